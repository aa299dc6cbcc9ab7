/** Segmentations of COCO files (polygons and run lengths) as runs along the rows of the image, and back. */
import { UserError } from '../../cli/errors.ts';
import { FARTHEST, polygonColumnRuns } from '../cocoPolygon.ts';
import { type CocoRle, cocoCountsFromString, cocoCountsToString } from '../cocoRle.ts';
import { transposeRuns } from '../runs.ts';

/**
 * A `segmentation` of a COCO file as runs: a list of polygons (joined), or run lengths as a list or as compressed text.
 *
 * @param segmentation as the file has it
 * @param width columns of the image
 * @param height rows of the image
 * @param where what to name in an error, e.g. `annotations.json, annotation 7`
 * @returns [2 × runs] starts and lengths, row-major; none where it covers no pixel
 * @throws UserError for anything else, a polygon of two points, or run lengths of another size than the image
 */
export function segmentationRuns(segmentation: unknown, width: number, height: number, where: string): Int32Array {
  const columns = Array.isArray(segmentation)
    ? segmentation.flatMap((polygon, i) => {
        const which = segmentation.length === 1 ? 'the polygon' : `polygon ${i + 1}`;
        return polygonColumnRuns(requirePolygon(polygon, `${where}: ${which}`), width, height);
      })
    : countsColumnRuns(segmentation, width, height, where);
  if (Array.isArray(segmentation) && segmentation.length === 0) {
    throw new UserError(`${where}: the segmentation is empty, expected polygons or run lengths`);
  }
  return transposeRuns(columns, height, width);
}

function requirePolygon(polygon: unknown, where: string): number[] {
  if (!Array.isArray(polygon)) throw new UserError(`${where} is no list of numbers, expected [x, y, x, y, …]`);
  for (const value of polygon) {
    if (!(typeof value === 'number' && Math.abs(value) <= FARTHEST)) {
      throw new UserError(`${where} holds ${JSON.stringify(value)}, expected coordinates in pixels`);
    }
  }
  if (polygon.length % 2 === 1) {
    throw new UserError(`${where} holds ${polygon.length} numbers, expected pairs x, y`);
  }
  if (polygon.length < 6) {
    throw new UserError(`${where} has ${polygon.length / 2} points, expected 3 or more`);
  }
  return polygon as number[];
}

function countsColumnRuns(segmentation: unknown, width: number, height: number, where: string): number[] {
  const { size, counts } = (segmentation ?? {}) as { size?: unknown; counts?: unknown };
  const lengths = typeof counts === 'string' ? cocoCountsFromString(counts, where) : counts;
  if (!Array.isArray(lengths) || !Array.isArray(size)) {
    throw new UserError(`${where}: the segmentation is neither polygons nor run lengths with a size`);
  }
  if (size.length !== 2 || size[0] !== height || size[1] !== width) {
    throw new UserError(
      `${where}: the run lengths are for ${size[1]} × ${size[0]} pixels, but the image is ${width} × ${height}`,
    );
  }
  const runs: number[] = [];
  let at = 0;
  for (const [i, length] of lengths.entries()) {
    if (!(Number.isInteger(length) && length >= 0)) {
      throw new UserError(`${where}: ${JSON.stringify(length)} is no run length, expected a whole number from 0`);
    }
    if (i % 2 === 1 && length > 0) runs.push(at, length);
    at += length;
  }
  if (at !== width * height) {
    throw new UserError(
      `${where}: the run lengths add up to ${at} pixels, expected ${width * height} (${width} × ${height})`,
    );
  }
  return runs;
}

/**
 * Runs as COCO's compressed run lengths (pycocotools' `encode`).
 *
 * @param runs [2 × runs] starts and lengths, row-major
 */
export function runsToCocoRle(runs: ArrayLike<number>, width: number, height: number): CocoRle {
  const columns = transposeRuns(runs, width, height);
  const counts: number[] = [];
  let end = 0;
  for (let i = 0; i < columns.length; i += 2) {
    counts.push(columns[i] - end, columns[i + 1]);
    end = columns[i] + columns[i + 1];
  }
  if (end < width * height || counts.length === 0) counts.push(width * height - end);
  return { size: [height, width], counts: cocoCountsToString(counts) };
}
