import { UserError } from '../../cli/errors.ts';
import type { Annotation, Dataset, ImageRecord } from '../dataset.ts';
import { rleRuns } from '../rle.ts';

/** A format that data sets are written in. */
export interface WritableFormat {
  /** @throws UserError for a data set that it cannot hold */
  check(dataset: Dataset): void;
  /** Begins a data set in an empty folder. */
  start(dir: string, dataset: Dataset): DatasetWriter;
}

/** A data set that is being written, image by image in the data set's order; the images' files are put at their paths by the caller. */
export interface DatasetWriter {
  /** Where the image's PNG belongs, relative to the folder. */
  imagePath(record: ImageRecord): string;
  /** Writes an image's cells. */
  add(record: ImageRecord): void;
  finish(): WrittenCells;
}

export interface WrittenCells {
  cells: number;
  /** What the format could not hold, a line each. */
  losses: string[];
}

/** The runs of an annotation that was read before, so that nothing can be wrong with them. */
export function annotationRuns({ rle, line }: Annotation, { id, width, height }: ImageRecord): Int32Array {
  return rleRuns(rle, width, height, `cell ${line} of image ${id}`);
}

/** Counts what is left out, by reason. */
export class Losses {
  private readonly counts = new Map<string, number>();

  add(reason: string): void {
    this.counts.set(reason, (this.counts.get(reason) ?? 0) + 1);
  }

  /** One line for each reason. */
  lines(): string[] {
    return [...this.counts].map(([reason, count]) => `${reason}: ${count}`);
  }
}

/** Why an annotation is left out. */
export const NO_PIXEL = 'Cells without a pixel, left out';
export const IS_CROWD = 'Crowds (regions of many cells), which this format does not have, left out';

/** @throws UserError for a data set of nothing but crowds and cells without pixels, in a format without crowds */
export function requireCells({ dir, images }: Dataset): void {
  const some = images.some(({ annotations }) => annotations.some(({ rle, iscrowd }) => rle !== '' && !iscrowd));
  if (!some) throw new UserError(`${dir} has no cells that this format can hold: every annotation is a crowd or empty`);
}
