import type { MaskCrop } from './types.ts';

/** Masks as runs: pairs (first pixel, length), pixels counted from 0 along the rows of the image. Never a mask of the whole image. */

/**
 * The text of runs in the competition's format, as `rleEncode` gives it for the mask.
 *
 * @param runs [2 × runs] starts and lengths, row-major
 */
export function runsToText(runs: ArrayLike<number>): string {
  const parts = new Array<number>(runs.length);
  for (let i = 0; i < runs.length; i += 2) {
    parts[i] = runs[i] + 1;
    parts[i + 1] = runs[i + 1];
  }
  return parts.join(' ');
}

/** Pixels in all runs. */
export function runsArea(runs: ArrayLike<number>): number {
  let area = 0;
  for (let i = 1; i < runs.length; i += 2) area += runs[i];
  return area;
}

/**
 * The box of the pixels in `runs`, corners inclusive: xmin, ymin, xmax, ymax.
 *
 * @param width columns of the image
 * @returns undefined where there are none
 */
export function runsBox(runs: ArrayLike<number>, width: number): [number, number, number, number] | undefined {
  if (runs.length === 0) return undefined;
  let [xmin, ymin, xmax, ymax] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, -1, -1];
  for (let i = 0; i < runs.length; i += 2) {
    const last = runs[i] + runs[i + 1] - 1;
    const top = Math.floor(runs[i] / width);
    const bottom = Math.floor(last / width);
    xmin = Math.min(xmin, top === bottom ? runs[i] % width : 0);
    xmax = Math.max(xmax, top === bottom ? last % width : width - 1);
    ymin = Math.min(ymin, top);
    ymax = Math.max(ymax, bottom);
  }
  return [xmin, ymin, xmax, ymax];
}

/**
 * Goes from runs along rows to runs along columns (pixel `x × height + y` instead of `y × width + x`). Used with width and height
 * exchanged it goes back. The result is canonical whatever the order and overlap of the input: ascending, disjoint and as long
 * as can be, across the ends of columns. Work and memory follow the box of the pixels.
 *
 * @param runs [2 × runs] starts and lengths, row-major, within the image
 * @param width columns of the image
 * @param height rows of the image
 */
export function transposeRuns(runs: ArrayLike<number>, width: number, height: number): Int32Array {
  const box = runsBox(runs, width);
  if (box === undefined) return new Int32Array(0);
  const [left, top, right, bottom] = box;
  const columns = right - left + 1;
  const rows = bottom - top + 1;
  // [column, row], so that it is read in order.
  const covered = new Uint8Array(columns * rows);
  for (let i = 0; i < runs.length; i += 2) {
    let y = Math.floor(runs[i] / width);
    let x = runs[i] - y * width;
    for (let rest = runs[i + 1]; rest > 0; rest--) {
      covered[(x - left) * rows + y - top] = 1;
      if (++x === width) {
        x = 0;
        y++;
      }
    }
  }
  const result: number[] = [];
  let end = -1;
  for (let column = 0, start = 0; column < columns; column++, start += rows) {
    for (let row = 0; row < rows; row++) {
      if (covered[start + row] === 0) continue;
      const from = row;
      while (row < rows && covered[start + row] !== 0) row++;
      const first = (left + column) * height + top + from;
      // A box as high as the image has runs that go on in the next column.
      if (first === end) result[result.length - 1] += row - from;
      else result.push(first, row - from);
      end = first + row - from;
    }
  }
  return Int32Array.from(result);
}

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
  const box = runsBox(runs, imageWidth);
  if (box === undefined) return { area: 0, x: 0, y: 0, width: 0, height: 0 };
  const [x, y, right, bottom] = box;
  return { area: runsArea(runs), x, y, width: right - x + 1, height: bottom - y + 1 };
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
