/** Segmentations of COCO files (polygons and run lengths) as runs along the rows of the image, and back. */
import { UserError } from '../../cli/errors.ts';
import { type CocoRle, cocoCountsFromString, cocoCountsToString } from '../cocoRle.ts';
import { transposeRuns } from '../runs.ts';

/** Coordinates beyond this are no outline in an image of any size that can be read. */
const FARTHEST = 1e6;

/**
 * The pixels of a polygon, exactly as pycocotools draws it (`rleFrPoly` of `maskApi.c`): the outline is walked in steps of a fifth
 * of a pixel, and a pixel of a column is inside where an odd number of crossings lies above it.
 *
 * @param xy [x, y, x, y, …], three points or more; parts outside the image are cut off
 * @param width columns of the image
 * @param height rows of the image
 * @returns runs along columns: pairs (pixel `x × height + y`, length), ascending and disjoint
 */
export function polygonColumnRuns(xy: readonly number[], width: number, height: number): number[] {
  const scale = 5;
  const points = xy.length / 2;
  // C's cast to int cuts towards zero.
  const x = Array.from({ length: points }, (_, i) => Math.trunc(scale * xy[2 * i] + 0.5));
  const y = Array.from({ length: points }, (_, i) => Math.trunc(scale * xy[2 * i + 1] + 0.5));
  const crossings: number[] = [];
  let [lastX, lastY] = [x[0], y[0]];
  const visit = (u: number, v: number): void => {
    if (u !== lastX) {
      const column = ((u < lastX ? u : u - 1) + 0.5) / scale - 0.5;
      if (Math.floor(column) === column && column >= 0 && column <= width - 1) {
        const row = Math.min(Math.max((Math.min(v, lastY) + 0.5) / scale - 0.5, 0), height);
        crossings.push(column * height + Math.ceil(row));
      }
    }
    lastX = u;
    lastY = v;
  };
  for (let i = 0; i < points; i++) {
    let [xs, ys, xe, ye] = [x[i], y[i], x[(i + 1) % points], y[(i + 1) % points]];
    const dx = Math.abs(xe - xs);
    const dy = Math.abs(ye - ys);
    const steep = dx < dy;
    const flip = steep ? ys > ye : xs > xe;
    if (flip) [xs, ys, xe, ye] = [xe, ye, xs, ys];
    // A repeated point has no slope; only its place counts.
    const slope = dx + dy === 0 ? 0 : steep ? (xe - xs) / dy : (ye - ys) / dx;
    const steps = Math.max(dx, dy);
    for (let d = 0; d <= steps; d++) {
      const t = flip ? steps - d : d;
      const across = Math.trunc((steep ? xs : ys) + slope * t + 0.5);
      if (steep) visit(across, t + ys);
      else visit(t + xs, across);
    }
  }
  crossings.sort((a, b) => a - b);
  // Between an odd crossing and the next one the pixels are inside; two at one place cancel each other.
  const runs: number[] = [];
  const pixels = width * height;
  for (let i = 0; i < crossings.length; i += 2) {
    const from = crossings[i];
    const to = i + 1 < crossings.length ? crossings[i + 1] : pixels;
    if (to === from) continue;
    if (runs.length > 0 && runs[runs.length - 2] + runs[runs.length - 1] === from) runs[runs.length - 1] += to - from;
    else runs.push(from, to - from);
  }
  return runs;
}

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
