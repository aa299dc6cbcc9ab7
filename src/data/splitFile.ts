import { existsSync, readFileSync } from 'node:fs';
import { z } from 'zod';
import { UserError } from '../cli/errors.ts';
import { readCsv } from './csv.ts';
import type { ImageRecord } from './dataset.ts';
import { writeFileAtomic } from './files.ts';
import type { Split } from './split.ts';

/** How a split came about, for whoever reads the file; it is not needed to read it. */
export interface SplitOrigin {
  method: string;
  /** Share of the images that was asked for. */
  validation?: number;
  seed?: number;
}

/** Writes a split as JSON: how it came about, then the ids of `train` and `validation`. */
export function writeSplitFile(path: string, { train, validation }: Split, origin: SplitOrigin): void {
  const ids = (records: readonly ImageRecord[]): string[] => records.map(({ id }) => id);
  const content = { split: origin, train: ids(train), validation: ids(validation) };
  writeFileAtomic(path, `${JSON.stringify(content, null, 2)}\n`);
}

/** An image of a split file: where it is named, and on which side. */
interface Entry {
  id: string;
  part: 'train' | 'validation';
  where: string;
}

/**
 * Reads which images are trained on and which are kept for validation, and finds them in a data set.
 *
 * @param path JSON `{"train": [ids], "validation": [ids]}`, such as a run's `split.json` (other keys are ignored), or, where the
 *   name ends in .csv, a table with the columns `id` and `part` (train or validation)
 * @param records the images of the data set
 * @returns both sides in the order of `records`
 * @throws UserError for a file that cannot be read, an unknown or repeated id, or an image that is on no side
 */
export function readSplitFile(path: string, records: readonly ImageRecord[]): Split {
  if (!existsSync(path)) throw new UserError(`no such split file: ${path}`);
  const entries = /\.csv$/i.test(path) ? csvEntries(path) : jsonEntries(path);
  const known = new Set(records.map(({ id }) => id));
  const sides = new Map<string, Entry>();
  for (const entry of entries) {
    const { id, where } = entry;
    if (!known.has(id)) throw new UserError(`${path}, ${where}: there is no image "${id}" in the data set`);
    const before = sides.get(id);
    if (before !== undefined) {
      throw new UserError(`${path}: image "${id}" is listed twice (${before.where} and ${where}), expected once`);
    }
    sides.set(id, entry);
  }
  const missing = records.filter(({ id }) => !sides.has(id));
  if (missing.length > 0) {
    const more = missing.length > 1 ? ` and ${missing.length - 1} more` : '';
    throw new UserError(
      `${path} lacks image "${missing[0].id}"${more} of the data set, expected every image in train or validation`,
    );
  }
  const side = (part: Entry['part']): ImageRecord[] => records.filter(({ id }) => sides.get(id)?.part === part);
  return { train: side('train'), validation: side('validation') };
}

const splitSchema = z.looseObject({ train: z.array(z.string()), validation: z.array(z.string()) });

function jsonEntries(path: string): Entry[] {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new UserError(`${path} is not a readable split file (${(error as Error).message}), expected JSON or .csv`);
  }
  const parsed = splitSchema.safeParse(json);
  if (!parsed.success) {
    const { path: at, message } = parsed.error.issues[0];
    const what = at.length > 0 ? `${at.join('.')}: ${message}` : message;
    throw new UserError(`${path}: ${what}; expected {"train": [ids], "validation": [ids]}`);
  }
  return (['train', 'validation'] as const).flatMap((part) =>
    parsed.data[part].map((id, i) => ({ id, part, where: `${part}[${i}]` })),
  );
}

function csvEntries(path: string): Entry[] {
  return readCsv(path, ['id', 'part']).map(({ values, line }) => {
    const [id, part] = [values.id.trim(), values.part.trim()];
    const where = `line ${line}`;
    if (part !== 'train' && part !== 'validation') {
      throw new UserError(`${path}, ${where}: the part is "${part}", expected train or validation`);
    }
    return { id, part, where };
  });
}
