import { UserError } from '../cli/errors.ts';

/** Points on each side of a pixel at which `rleFrPoly` follows the outline. */
const SCALE = 5;
/** Coordinates beyond are no outline of anything; to follow them would take forever. */
const FARTHEST = 1e6;

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
  const filled = polygons.map((polygon) => fillPolygon(polygon, width, height));
  return filled.length === 1 ? filled[0] : union(filled);
}

/** `rleFrPoly`. */
function fillPolygon(polygon: readonly number[], width: number, height: number): number[] {
  const points = polygon.length / 2;
  const outline = Int32Array.from(polygon, (value) => SCALE * value + 0.5);
  const crossings: number[] = [];
  let lastX = 0;
  let lastY = 0;
  let first = true;
  // One point of the outline, in fifths of a pixel; where it changes the column, it may cross a column's middle.
  const follow = (x: number, y: number): void => {
    if (!first && x !== lastX) {
      // Middles of columns are at 2, 7, 12 … fifths.
      const left = Math.min(x, lastX) - 2;
      if (left >= 0 && left % SCALE === 0 && left <= (width - 1) * SCALE) {
        const row = (Math.min(y, lastY) + 0.5) / SCALE - 0.5;
        crossings.push((left / SCALE) * height + Math.ceil(Math.min(Math.max(row, 0), height)));
      }
    }
    first = false;
    lastX = x;
    lastY = y;
  };
  for (let i = 0; i < points; i++) {
    const next = i + 1 < points ? i + 1 : 0;
    let [x0, y0, x1, y1] = [outline[2 * i], outline[2 * i + 1], outline[2 * next], outline[2 * next + 1]];
    const dx = Math.abs(x1 - x0);
    const dy = Math.abs(y1 - y0);
    // Edges are computed in one direction and walked in the other, so that rounding does not depend on the polygon's sense.
    const flip = (dx >= dy && x0 > x1) || (dx < dy && y0 > y1);
    if (flip) [x0, y0, x1, y1] = [x1, y1, x0, y0];
    const length = Math.max(dx, dy);
    const slope = length === 0 ? 0 : (dx >= dy ? y1 - y0 : x1 - x0) / length;
    for (let d = 0; d <= length; d++) {
      const t = flip ? length - d : d;
      if (dx >= dy) follow(x0 + t, Math.trunc(y0 + slope * t + 0.5));
      else follow(Math.trunc(x0 + slope * t + 0.5), y0 + t);
    }
  }
  crossings.push(width * height);
  const ends = Float64Array.from(crossings).sort();
  return withoutEmptyRuns(ends.map((at, i) => at - (i > 0 ? ends[i - 1] : 0)));
}

/** A length of 0 (other than the first) joins its two neighbours. */
function withoutEmptyRuns(lengths: Float64Array): number[] {
  const counts = [lengths[0]];
  for (let i = 1; i < lengths.length; i++) {
    if (lengths[i] > 0) counts.push(lengths[i]);
    else if (++i < lengths.length) counts[counts.length - 1] += lengths[i];
  }
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
