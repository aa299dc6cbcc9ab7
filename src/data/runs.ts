import type { MaskCrop } from './types.ts';

/** Where the runs of a mask lie. */
export interface RunsExtent {
  /** Pixels covered; where runs overlap, they count twice. */
  area: number;
  /** First column and row of the bounding box, and its size in pixels; all 0 without a run. */
  x: number;
  y: number;
  width: number;
  height: number;
}

/** Area and bounding box of a mask, without drawing it. @param runs as `rleRuns` gives them @param imageWidth in pixels */
export function runsExtent(runs: Int32Array, imageWidth: number): RunsExtent {
  let [left, right, top, bottom, area] = [imageWidth, -1, Number.POSITIVE_INFINITY, -1, 0];
  for (let i = 0; i < runs.length; i += 2) {
    const last = runs[i] + runs[i + 1] - 1;
    const [firstRow, lastRow] = [Math.floor(runs[i] / imageWidth), Math.floor(last / imageWidth)];
    area += runs[i + 1];
    top = Math.min(top, firstRow);
    bottom = Math.max(bottom, lastRow);
    // A run that goes on in the next row touches both edges of the image.
    left = firstRow === lastRow ? Math.min(left, runs[i] % imageWidth) : 0;
    right = firstRow === lastRow ? Math.max(right, last % imageWidth) : imageWidth - 1;
  }
  if (area === 0) return { area, x: 0, y: 0, width: 0, height: 0 };
  return { area, x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
}

/** A mask cut to its bounding box, 1 where a run covers. @param runs as `rleRuns` gives them */
export function runsCrop(runs: Int32Array, imageWidth: number): MaskCrop {
  const { x, y, width, height } = runsExtent(runs, imageWidth);
  const data = new Float32Array(width * height);
  for (let i = 0; i < runs.length; i += 2) {
    for (let pixel = runs[i]; pixel < runs[i] + runs[i + 1]; pixel++) {
      data[(Math.floor(pixel / imageWidth) - y) * width + (pixel % imageWidth) - x] = 1;
    }
  }
  return { x, y, width, height, data };
}
