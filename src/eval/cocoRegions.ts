/** Regions as COCO's run lengths give them, compared without ever being drawn (pycocotools' `maskApi.c`: rleIou, bbIou, rleToBbox). */

/** Covered pixels of an image, numbered down its columns. */
export interface Region {
  /** First and one past the last pixel of each run, rising, no run empty. */
  runs: Int32Array;
  /** Number of pixels. */
  area: number;
  /** x, y, width, height of the bounding box in pixels; all 0 for an empty region. */
  box: readonly [x: number, y: number, width: number, height: number];
}

/**
 * @param counts lengths of 0s, 1s, 0s …, column-major; they must fill the image
 * @param height of the image in pixels
 */
export function regionOfCounts(counts: ArrayLike<number>, height: number): Region {
  const runs = new Int32Array(counts.length & ~1);
  let filled = 0;
  let at = 0;
  let area = 0;
  let [left, right, top, bottom] = [Number.POSITIVE_INFINITY, -1, height, -1];
  for (let i = 0; i < counts.length; i++) {
    const start = at;
    at += counts[i];
    if (i % 2 === 0 || counts[i] === 0) continue;
    // A length of 0 between two runs joins them.
    if (filled > 0 && runs[filled - 1] === start) runs[filled - 1] = at;
    else {
      runs[filled++] = start;
      runs[filled++] = at;
    }
    area += counts[i];
    const [firstColumn, lastColumn] = [Math.floor(start / height), Math.floor((at - 1) / height)];
    left = Math.min(left, firstColumn);
    right = Math.max(right, lastColumn);
    top = firstColumn === lastColumn ? Math.min(top, start % height) : 0;
    bottom = firstColumn === lastColumn ? Math.max(bottom, (at - 1) % height) : height - 1;
  }
  const box = area === 0 ? ([0, 0, 0, 0] as const) : ([left, top, right - left + 1, bottom - top + 1] as const);
  return { runs: runs.subarray(0, filled), area, box };
}

/** Pixels that two regions of one image share. */
export function sharedPixels(a: Region, b: Region): number {
  const [p, q] = [a.runs, b.runs];
  let [i, j, shared] = [0, 0, 0];
  while (i < p.length && j < q.length) {
    const start = Math.max(p[i], q[j]);
    const end = Math.min(p[i + 1], q[j + 1]);
    if (start < end) shared += end - start;
    if (p[i + 1] < q[j + 1]) i += 2;
    else j += 2;
  }
  return shared;
}

/**
 * IoU of detected with true regions; with a crowd the share of the detection inside it.
 *
 * @param crowds [truths] not 0 for a crowd
 * @returns [detected, truths] row-major, 0…1
 */
export function regionOverlap(
  detected: readonly Region[],
  truths: readonly Region[],
  crowds: ArrayLike<number>,
): Float64Array {
  const overlap = new Float64Array(detected.length * truths.length);
  let at = 0;
  for (const d of detected) {
    for (let t = 0; t < truths.length; t++, at++) {
      const truth = truths[t];
      if (!boxesMeet(d.box, truth.box)) continue;
      const shared = sharedPixels(d, truth);
      if (shared > 0) overlap[at] = shared / (crowds[t] ? d.area : d.area + truth.area - shared);
    }
  }
  return overlap;
}

function boxesMeet(a: Region['box'], b: Region['box']): boolean {
  return a[0] < b[0] + b[2] && b[0] < a[0] + a[2] && a[1] < b[1] + b[3] && b[1] < a[1] + a[3];
}

/**
 * IoU of detected with true boxes x, y, width, height; with a crowd the share of the detection inside it. Boxes without a common
 * area have 0.
 *
 * @returns [detected, truths] row-major, 0…1
 */
export function boxOverlap(
  detected: readonly (readonly number[])[],
  truths: readonly (readonly number[])[],
  crowds: ArrayLike<number>,
): Float64Array {
  const overlap = new Float64Array(detected.length * truths.length);
  let at = 0;
  for (const d of detected) {
    for (let t = 0; t < truths.length; t++, at++) {
      const g = truths[t];
      const width = Math.min(d[0] + d[2], g[0] + g[2]) - Math.max(d[0], g[0]);
      const height = Math.min(d[1] + d[3], g[1] + g[3]) - Math.max(d[1], g[1]);
      if (width <= 0 || height <= 0) continue;
      const shared = width * height;
      const area = d[2] * d[3];
      // In pycocotools' order of operations: a last bit decides about an IoU that equals a threshold.
      overlap[at] = shared / (crowds[t] ? area : area + g[2] * g[3] - shared);
    }
  }
  return overlap;
}
