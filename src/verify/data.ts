import { UserError } from '../cli/errors.ts';
import { combineRows, overlapRows, resizeRows, rleRows } from './dataMasks.ts';
import { boxRows, cocoRows, iouMapRows } from './dataMetrics.ts';
import { describeRows, splitRows } from './dataTables.ts';
import type { DataGolden } from './golden.ts';
import type { Progress } from './ops.ts';
import type { Row } from './rows.ts';

const PARTS: readonly [what: string, rows: (golden: DataGolden) => Row[]][] = [
  ['run lengths', rleRows],
  ['overlap removal', overlapRows],
  ['combined masks', combineRows],
  ['resize', resizeRows],
  ['split', splitRows],
  ['describe', describeRows],
  ['box metrics', boxRows],
  ['competition score', iouMapRows],
  ['COCO', cocoRows],
];

/**
 * Computes every value of a data case on the host and compares it: texts, orders, boxes, masks and labels exactly, resized images
 * within one grey level, scores within 1e-6.
 *
 * @throws UserError naming the file and the place when an input cannot be read, such as a run outside its image
 */
export function verifyData(golden: DataGolden, progress?: Progress): Row[] {
  return PARTS.flatMap(([what, rowsOf], done) => {
    try {
      return rowsOf(golden);
    } catch (error) {
      if (error instanceof UserError) throw new UserError(`${golden.path}: ${error.message}`, error.exitCode);
      throw error;
    } finally {
      progress?.(done + 1, PARTS.length, what);
    }
  });
}
