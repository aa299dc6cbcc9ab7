import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync, rmdirSync, rmSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { UserError } from '../../cli/errors.ts';
import type { Dataset } from '../dataset.ts';
import { requireOutputFolder } from '../files.ts';
import { saveAsPng } from '../images.ts';
import { cocoFormat } from './writeCoco.ts';
import { competitionFormat } from './writeCompetition.ts';
import { labelsFormat } from './writeLabels.ts';
import type { WritableFormat, WrittenCells } from './writer.ts';

/** The formats that a data set can be written in. */
export const dataFormats = ['competition', 'coco', 'labels'] as const;
export type DataFormat = (typeof dataFormats)[number];

export interface ConvertOptions {
  dataset: Dataset;
  format: DataFormat;
  /** The folder to make; an empty one may be there. */
  out: string;
  /** Called after each image. */
  progress?: (done: number, total: number) => void;
  /** True once the user has asked to stop. */
  stopping?: () => boolean;
}

const formats: Readonly<Record<DataFormat, WritableFormat>> = {
  competition: competitionFormat,
  coco: cocoFormat,
  labels: labelsFormat,
};

/** Finds what would keep a conversion from its end, before it writes. */
function checkConversion({ dataset, format, out }: ConvertOptions): void {
  requireOutputFolder(out, '--out');
  if (existsSync(out) && readdirSync(out).length > 0) {
    throw new UserError(`--out ${out}: the folder is there and not empty, expected a new one.`);
  }
  formats[format].check(dataset);
}

/**
 * Writes a data set in another format, its images as PNG without loss. It grows in a folder beside `out`, which is renamed when all is
 * done: a conversion that fails or is stopped leaves nothing.
 *
 * @returns null when it was stopped
 * @throws UserError for an `out` that is not empty or lies in a file, or a data set that the format cannot hold
 */
export async function convertDataset(options: ConvertOptions): Promise<WrittenCells | null> {
  checkConversion(options);
  const { dataset, format, out, progress, stopping } = options;
  const temporary = `${resolve(out)}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`;
  mkdirSync(dirname(temporary), { recursive: true });
  try {
    mkdirSync(temporary);
    const writer = formats[format].start(temporary, dataset);
    let done = 0;
    for (const record of dataset.images) {
      const path = join(temporary, writer.imagePath(record));
      mkdirSync(dirname(path), { recursive: true });
      saveAsPng(record.path, path);
      writer.add(record);
      progress?.(++done, dataset.images.length);
      // Lets an interrupt be heard.
      await new Promise(setImmediate);
      if (stopping?.()) return null;
    }
    const written = writer.finish();
    if (existsSync(out)) rmdirSync(out);
    renameSync(temporary, out);
    return written;
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}
