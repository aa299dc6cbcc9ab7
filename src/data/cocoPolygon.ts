import { UserError } from '../cli/errors.ts';

/** Coordinates beyond are no outline of anything; to follow them would take forever. */
export const FARTHEST = 1e6;

/**
 * Fills polygons as COCO does (pycocotools' `frPyObjects` and `merge`; `rleFrPoly` in `maskApi.c`), so that each pixel falls as
 * there: the outline is followed in steps of a fifth of a pixel, and its crossings of the columns' middles, numbered down the
 * columns, begin and end the runs. Parts outside the image are cut off.
 *
 * @param polygons x, y, x, y … in pixels, each closed by itself; their union is filled
 * @param where what to name in an error, e.g. `annotations.json, annotation 7`
 * @returns lengths of 0s, 1s, 0s …, column-major, together `width × height`
 * @throws UserError without a polygon, or for one with fewer than three points, an odd count of numbers or a point that is not
 *   within a million pixels
 */
export function cocoPolygonCounts(
  polygons: readonly (readonly number[])[],
  width: number,
  height: number,
  where: string,
): number[] {
  if (polygons.length === 0) throw new UserError(`${where}: the segmentation holds no polygon`);
  for (const polygon of polygons) {
    if (polygon.length < 6 || polygon.length % 2 !== 0) {
      throw new UserError(`${where}: a polygon has ${polygon.length} numbers, expected three or more points "x, y"`);
    }
    const outside = polygon.find((value) => !(Math.abs(value) <= FARTHEST));
    if (outside !== undefined)
      throw new UserError(`${where}: a polygon has a point at ${outside}, far outside its image`);
  }
  const filled = polygons.map((polygon) => countsOf(polygonColumnRuns(polygon, width, height), width * height));
  return filled.length === 1 ? filled[0] : union(filled);
}

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

/** Runs along columns as lengths of 0s, 1s, 0s … */
function countsOf(runs: readonly number[], pixels: number): number[] {
  const counts: number[] = [];
  let at = 0;
  for (let i = 0; i < runs.length; i += 2) {
    counts.push(runs[i] - at, runs[i + 1]);
    at = runs[i] + runs[i + 1];
  }
  if (at < pixels || counts.length === 0) counts.push(pixels - at);
  return counts;
}

/** Run lengths of the pixels that any of several covers (`rleMerge`); all are of one image. */
function union(all: readonly (readonly number[])[]): number[] {
  // +1 where a run of 1s begins, -1 where it ends.
  const edges: [at: number, change: number][] = [];
  let pixels = 0;
  for (const counts of all) {
    pixels = 0;
    counts.forEach((count, i) => {
      if (i % 2 === 1 && count > 0) edges.push([pixels, 1], [pixels + count, -1]);
      pixels += count;
    });
  }
  edges.sort((a, b) => a[0] - b[0]);
  const counts: number[] = [];
  let depth = 0;
  let from = 0;
  for (let i = 0; i < edges.length; ) {
    const at = edges[i][0];
    const before = depth > 0;
    for (; i < edges.length && edges[i][0] === at; i++) depth += edges[i][1];
    if (depth > 0 === before) continue;
    counts.push(at - from);
    from = at;
  }
  if (from < pixels || counts.length === 0) counts.push(pixels - from);
  return counts;
}
