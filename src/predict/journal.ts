/**
 * The record of a prediction run, `predictions.jsonl`: a line that says what is predicted with what, then a line per image as soon
 * as it is done. A run that ended in any way goes on after the last whole line, and all that concerns the whole folder
 * (`submission.csv`, COCO results) is made of it.
 */
import { closeSync, existsSync, ftruncateSync, openSync, readSync, statSync, writeFileSync } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';
import * as z from 'zod';
import { UserError } from '../cli/errors.ts';
import { cropFromCocoRle, cropToCocoRle } from '../data/cropRle.ts';
import { writePartsAtomic } from '../data/files.ts';
import { precisions } from '../model/precision.ts';
import type { ImagePrediction } from './prediction.ts';
import { inShard } from './shards.ts';

export const JOURNAL = 'predictions.jsonl';
const FORMAT = 'webgpu-mask-rcnn predictions';

const count = z.int().nonnegative();
const headerSchema = z.strictObject({
  format: z.literal(FORMAT),
  version: z.literal(1),
  /** SHA-256 of the file of weights, which holds the thresholds too. */
  weights: z.string(),
  /** Names of the labels 1 …. */
  classes: z.array(z.string()),
  /** false for a box-only model. */
  masks: z.boolean(),
  /** Scale of the images for the network. */
  resize: z.number().positive(),
  batchSize: count.min(1),
  shard: z.strictObject({ index: count.min(1), of: count.min(1) }),
  /** All images of the folder, whatever the part, and the SHA-256 of their names. */
  images: z.strictObject({ count, sha256: z.string() }),
  /** Where it is not float32. */
  precision: z.enum(precisions).optional(),
  /** Formats of one file per image that every line below has been written in. */
  formats: z.array(z.string()),
});
export type JournalHeader = z.output<typeof headerSchema>;

const entrySchema = z.strictObject({
  /** Place among all images of the folder, from 0. */
  position: count,
  id: z.string(),
  /** Tells the file's contents, see `glancePng`. */
  fingerprint: z.string(),
  width: count.min(1),
  height: count.min(1),
  cells: z.array(
    z.strictObject({
      label: count.min(1),
      score: z.number(),
      box: z.tuple([z.number(), z.number(), z.number(), z.number()]),
      /** The mask as COCO's compressed run lengths. */
      counts: z.string().optional(),
    }),
  ),
});
export type JournalEntry = z.output<typeof entrySchema>;

/** What two processes must have in common to work on one run. */
export type RunFacts = Omit<JournalHeader, 'format' | 'version' | 'formats'>;

export function journalHeader(facts: RunFacts, formats: string[]): JournalHeader {
  return { format: FORMAT, version: 1, ...facts, formats };
}

/** The line of an image. */
export function entryOf(prediction: ImagePrediction, fingerprint: string): JournalEntry {
  const { position, id, width, height, cells } = prediction;
  return {
    position,
    id,
    fingerprint,
    width,
    height,
    cells: cells.map(({ label, score, box, mask }) => ({
      label,
      score,
      box,
      ...(mask && { counts: cropToCocoRle(mask, width, height).counts }),
    })),
  };
}

/**
 * The reverse of {@link entryOf}.
 * @param where what to name in an error
 */
export function predictionOf(entry: JournalEntry, where: string): ImagePrediction {
  const { position, id, width, height } = entry;
  const cells = entry.cells.map(({ label, score, box, counts }) => ({
    label,
    score,
    box,
    ...(counts !== undefined && { mask: cropFromCocoRle({ size: [height, width], counts }, where) }),
  }));
  return { id, position, width, height, cells };
}

interface Line {
  text: string;
  /** The file's bytes up to and with this line. */
  end: number;
  /** false for a last line without a line feed: the writer was stopped within it. */
  whole: boolean;
}

/** The lines of a text file, a piece of which is in memory at a time. */
function* readLines(path: string): Generator<Line> {
  const file = openSync(path, 'r');
  try {
    const piece = Buffer.alloc(1 << 16);
    const decoder = new StringDecoder('utf8');
    let text = '';
    let end = 0;
    for (let read = readSync(file, piece); read > 0; read = readSync(file, piece)) {
      text += decoder.write(piece.subarray(0, read));
      let from = 0;
      for (let feed = text.indexOf('\n'); feed >= 0; feed = text.indexOf('\n', from)) {
        const line = text.slice(from, feed);
        end += Buffer.byteLength(line) + 1;
        yield { text: line, end, whole: true };
        from = feed + 1;
      }
      text = text.slice(from);
    }
    text += decoder.end();
    if (text !== '') yield { text, end: end + Buffer.byteLength(text), whole: false };
  } finally {
    closeSync(file);
  }
}

function parseLine<T>(schema: z.ZodType<T>, text: string): T | undefined {
  try {
    return schema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

/** An open journal. */
export interface JournalReader {
  path: string;
  header: JournalHeader;
  /** Each once. `end` is the number of the file's bytes up to and with the entry's line, `where` names it in an error. */
  entries: Generator<{ entry: JournalEntry; end: number; where: string }, void, undefined>;
  /** Bytes of the header's line. */
  start: number;
  /** Closes the file, which the end of the entries does too. */
  close(): void;
}

/**
 * Reads a journal: its header at once, entries when they are asked for. A last line that was not written to its end is left out.
 *
 * @throws UserError where the file is no journal; while reading, where a line is damaged or an image stands out of its order
 */
export function readJournal(path: string): JournalReader {
  const lines = readLines(path);
  const first = lines.next();
  const header = first.done ? undefined : parseLine(headerSchema, first.value.text);
  if (first.done || header === undefined) {
    lines.return(undefined);
    throw new UserError(`${path} is no record of a prediction run (its first line is not one's).`);
  }
  const close = (): void => void lines.return(undefined);
  return { path, header, start: first.value.end, entries: readEntries(path, header, lines), close };
}

function* readEntries(path: string, header: JournalHeader, lines: Generator<Line>): JournalReader['entries'] {
  const { shard, images } = header;
  let number = 1;
  let position = shard.index - 1;
  for (const { text, end, whole } of lines) {
    number++;
    if (!whole) return;
    const where = `${path}, line ${number}`;
    const entry = parseLine(entrySchema, text);
    if (entry === undefined) throw new UserError(`${where} is damaged: it does not tell an image's cells.`);
    if (entry.position !== position || position >= images.count || !inShard(position, shard)) {
      throw new UserError(`${where}: it has image number ${entry.position + 1}, expected ${position + 1}.`);
    }
    position += shard.of;
    yield { entry, end, where };
  }
}

/** A journal to which entries are added. */
export class JournalWriter {
  readonly #file: number;

  private constructor(file: number) {
    this.#file = file;
  }

  /** Begins a journal; one that is there is replaced. */
  static create(path: string, header: JournalHeader): JournalWriter {
    writePartsAtomic(path, [`${JSON.stringify(header)}\n`]);
    return new JournalWriter(openSync(path, 'a'));
  }

  /** Goes on after the first `end` bytes; what follows is cut off. */
  static continue(path: string, end: number): JournalWriter {
    const file = openSync(path, 'a');
    ftruncateSync(file, end);
    return new JournalWriter(file);
  }

  append(entry: JournalEntry): void {
    writeFileSync(this.#file, `${JSON.stringify(entry)}\n`);
  }

  close(): void {
    closeSync(this.#file);
  }
}

/**
 * Gives a journal another header, its entries as they are; a line that was not written to its end is dropped.
 * @returns bytes of the file
 */
export function replaceHeader(path: string, header: JournalHeader): number {
  function* parts(): Generator<string> {
    yield `${JSON.stringify(header)}\n`;
    let first = true;
    for (const { text, whole } of readLines(path)) {
      if (!first && whole) yield `${text}\n`;
      first = false;
    }
  }
  writePartsAtomic(path, parts());
  return statSync(path).size;
}

/** How much of a run a journal holds. */
export interface JournalState {
  header: JournalHeader;
  /** Images done: the first so many of the part. */
  done: number;
  /** Bytes of the header and these images' lines. */
  end: number;
}

/**
 * Looks how far the run of a journal has come. It writes nothing.
 *
 * @param files of the part, in order; those that are done must be as they were
 * @returns undefined where there is no journal
 * @throws UserError where the journal tells of another run (which facts differ) or other images, or is damaged
 */
export function inspectJournal(
  path: string,
  wanted: JournalHeader,
  files: readonly { id: string; fingerprint: string; path: string }[],
): JournalState | undefined {
  if (!existsSync(path)) return undefined;
  const { header, entries, start, close } = readJournal(path);
  const state = { header, done: 0, end: start };
  try {
    const different = differences(header, wanted);
    if (different.length > 0) {
      throw new UserError(
        `${path} belongs to a run with ${different.join(' and ')}: expected the same to go on, another --out, or --restart to begin anew.`,
      );
    }
    for (const { entry, end } of entries) {
      const file = files[state.done];
      if (entry.id !== file.id || entry.fingerprint !== file.fingerprint) {
        throw new UserError(
          `${file.path} has changed since it was predicted (${path}): expected the same to go on, another --out, or --restart to begin anew.`,
        );
      }
      state.done++;
      state.end = end;
    }
  } finally {
    close();
  }
  return state;
}

/** What two runs do not have in common, in words; the formats and the part do not count. */
export function runDifferences(a: JournalHeader, b: JournalHeader): string[] {
  const facts: [string, unknown, unknown][] = [
    ['other weights', [a.weights, a.classes, a.masks], [b.weights, b.classes, b.masks]],
    [`--resize ${a.resize}`, a.resize, b.resize],
    [`--batch-size ${a.batchSize}`, a.batchSize, b.batchSize],
    [`--precision ${a.precision ?? 'f32'}`, a.precision ?? 'f32', b.precision ?? 'f32'],
    [`other images (${a.images.count})`, a.images, b.images],
  ];
  return facts.filter(([, x, y]) => JSON.stringify(x) !== JSON.stringify(y)).map(([words]) => words);
}

function differences(a: JournalHeader, b: JournalHeader): string[] {
  const sameShard = a.shard.index === b.shard.index && a.shard.of === b.shard.of;
  return [...runDifferences(a, b), ...(sameShard ? [] : [`--shard ${a.shard.index}/${a.shard.of}`])];
}
