/** Segmentations of COCO files (polygons and run lengths) as runs along the rows of the image, and back. */
import { UserError } from '../../cli/errors.ts';
import { type CocoRle, cocoCountsFromString, cocoCountsToString } from '../cocoRle.ts';
import { transposeRuns } from '../runs.ts';

/** Coordinates beyond this are no outline in an image of any size that can be read. */
const FARTHEST = 1e6;

/** The outline is drawn this many times finer than the pixels. */
const SCALE = 5;

/** A coordinate on the fine grid. C's cast to int cuts towards zero. */
function fine(value: number): number {
  return Math.trunc(SCALE * value + 0.5);
}

/** Adds the crossing of a column's middle between u and u + 1 at row v of the fine grid, if there is one: `x × height + y`. */
function addCrossing(found: number[], u: number, v: number, width: number, height: number): void {
  if (u < 0 || u % SCALE !== 2) return;
  const column = (u - 2) / SCALE;
  if (column < width) found.push(column * height + Math.ceil(Math.min(Math.max((v + 0.5) / SCALE - 0.5, 0), height)));
}

/**
 * The pixels of a polygon, exactly as pycocotools draws it (`rleFrPoly` of `maskApi.c`): the outline is a chain of points on a grid of
 * fifths of a pixel, and a pixel of a column is inside where an odd number of the chain's crossings of the column's middle lies above
 * it. The chain crosses between two neighbours on it, whichever way it is walked, so that only those at the middles are computed.
 *
 * @param xy [x, y, x, y, …], three points or more; parts outside the image are cut off
 * @param width columns of the image
 * @param height rows of the image
 * @returns runs along columns: pairs (pixel `x × height + y`, length), ascending and disjoint
 */
export function polygonColumnRuns(xy: readonly number[], width: number, height: number): number[] {
  const found: number[] = [];
  let [toX, toY] = [fine(xy[0]), fine(xy[1])];
  for (let i = 2; i <= xy.length; i += 2) {
    const [fromX, fromY] = [toX, toY];
    toX = fine(xy[i % xy.length]);
    toY = fine(xy[(i + 1) % xy.length]);
    const dx = Math.abs(toX - fromX);
    const dy = Math.abs(toY - fromY);
    if (dx === 0) continue;
    if (dx >= dy) {
      const [xs, ys, ye] = fromX > toX ? [toX, toY, fromY] : [fromX, fromY, toY];
      const slope = (ye - ys) / dx;
      const first = Math.max(xs, 0);
      for (let u = first + ((SCALE + 2 - (first % SCALE)) % SCALE); u < xs + dx; u += SCALE) {
        const t = u - xs;
        const v = Math.min(Math.trunc(ys + slope * t + 0.5), Math.trunc(ys + slope * (t + 1) + 0.5));
        addCrossing(found, u, v, width, height);
      }
    } else {
      const [xs, ys, xe] = fromY > toY ? [toX, toY, fromX] : [fromX, fromY, toX];
      const slope = (xe - xs) / dy;
      for (let t = 0, u = Math.trunc(xs + 0.5); t < dy; t++) {
        const next = Math.trunc(xs + slope * (t + 1) + 0.5);
        if (next !== u) addCrossing(found, Math.min(u, next), ys + t, width, height);
        u = next;
      }
    }
  }
  const crossings = Float64Array.from(found).sort();
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
