import { stringify } from 'csv-stringify/sync';
import { writeFileAtomic } from '../data/files.ts';
import type { MaskCrop } from '../data/types.ts';

export { type SelectedInstance, selectInstances } from './selectInstances.ts';

/** A row of the competition's `submission.csv`: image id and the run-length text of one cell. */
export type SubmissionRow = [id: string, rle: string];

/**
 * The run-length text of a binary crop within its image: "start length …", row-major over the image, starts counted from 1.
 * The same text as `rleEncode` gives for the full-size mask, without making one.
 *
 * @param mask lies inside the image; pixels > 0 are covered
 * @param width of the image in pixels
 */
export function cropRle(mask: MaskCrop, width: number): string {
  const runs: number[] = [];
  let end = -1;
  for (let row = 0, at = 0; row < mask.height; row++) {
    for (let column = 0; column < mask.width; column++, at++) {
      if (!(mask.data[at] > 0)) continue;
      const pixel = (mask.y + row) * width + mask.x + column;
      // A crop as wide as the image has runs that go on in the next row.
      if (pixel === end) runs[runs.length - 1]++;
      else runs.push(pixel + 1, 1);
      end = pixel + 1;
    }
  }
  return runs.join(' ');
}

/**
 * One row per cell in the given order, or one row with an empty text for an image without cells, as the competition wants.
 *
 * @param width of the image in pixels
 */
export function submissionRows(id: string, instances: readonly { mask: MaskCrop }[], width: number): SubmissionRow[] {
  if (instances.length === 0) return [[id, '']];
  return instances.map((instance) => [id, cropRle(instance.mask, width)]);
}

/** Writes `submission.csv` (columns id, predicted), atomically; missing folders are made. */
export function writeSubmission(path: string, rows: readonly SubmissionRow[]): void {
  writeFileAtomic(path, stringify(rows as SubmissionRow[], { header: true, columns: ['id', 'predicted'] }));
}
