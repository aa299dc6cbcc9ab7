/**
 * OpenCV's `cv2.resize` with its default INTER_LINEAR rule (modules/imgproc/src/resize.cpp), for the two uses that the
 * notebook makes of it: 8-bit colour images and 0/1 masks that are then compared with 0.
 *
 * Pixel centres are aligned, there is no antialiasing, and an exact halving on both axes is the mean of 2 × 2 pixels
 * (OpenCV turns it into INTER_AREA).
 */
import { roundHalfEven } from './rounding.ts';

/** OpenCV's INTER_RESIZE_COEF_SCALE: weights of 8-bit images are 11-bit integers. */
const COEFFICIENT_SCALE = 2048;

/** Where the outputs along one axis are sampled: `index[i]` and the next pixel, weighted 1 - `fraction[i]` and `fraction[i]`. */
export interface AxisSamples {
  index: Int32Array;
  fraction: Float32Array;
}

/** The sampling positions as OpenCV computes them: the ratio in double precision, the position in single. */
export function axisSamples(from: number, to: number): AxisSamples {
  const scale = 1 / (to / from);
  const index = new Int32Array(to);
  const fraction = new Float32Array(to);
  for (let i = 0; i < to; i++) {
    const position = Math.fround((i + 0.5) * scale - 0.5);
    index[i] = Math.floor(position);
    fraction[i] = position - index[i];
  }
  return { index, fraction };
}

/** Columns never leave the image: a position before the first or after the last pixel takes that pixel alone. */
export function clampSamples(samples: AxisSamples, from: number): AxisSamples {
  const { index, fraction } = samples;
  for (let i = 0; i < index.length; i++) {
    if (index[i] < 0) {
      index[i] = 0;
      fraction[i] = 0;
    } else if (index[i] >= from - 1) {
      index[i] = from - 1;
      fraction[i] = 0;
    }
  }
  return samples;
}

function isHalving(width: number, height: number, newWidth: number, newHeight: number): boolean {
  return width === 2 * newWidth && height === 2 * newHeight;
}

/**
 * Resizes an 8-bit image of three channels, in OpenCV's fixed-point arithmetic, bit for bit as its portable code.
 *
 * @param data [height, width, 3]
 * @returns [newHeight, newWidth, 3]; `data` itself where the size stays
 */
export function resizeImage(
  data: Uint8Array,
  width: number,
  height: number,
  newWidth: number,
  newHeight: number,
): Uint8Array {
  if (width === newWidth && height === newHeight) return data;
  const out = new Uint8Array(newWidth * newHeight * 3);
  if (isHalving(width, height, newWidth, newHeight)) {
    halveImage(data, width, out, newWidth, newHeight);
    return out;
  }
  const columns = clampSamples(axisSamples(width, newWidth), width);
  const rows = axisSamples(height, newHeight);
  const leftWeight = new Int32Array(newWidth);
  const rightWeight = new Int32Array(newWidth);
  for (let x = 0; x < newWidth; x++) {
    leftWeight[x] = roundHalfEven(Math.fround(1 - columns.fraction[x]) * COEFFICIENT_SCALE);
    rightWeight[x] = roundHalfEven(columns.fraction[x] * COEFFICIENT_SCALE);
  }
  const expandRow = (y: number, into: Int32Array): void => {
    const base = y * width * 3;
    for (let x = 0; x < newWidth; x++) {
      const left = base + columns.index[x] * 3;
      const right = Math.min(columns.index[x] + 1, width - 1) * 3 + base;
      for (let c = 0; c < 3; c++) {
        into[x * 3 + c] = data[left + c] * leftWeight[x] + data[right + c] * rightWeight[x];
      }
    }
  };
  // Two expanded rows are kept; going down, the lower one of an output row is often the upper one of the next.
  let upper = new Int32Array(newWidth * 3);
  let lower = new Int32Array(newWidth * 3);
  let upperRow = -1;
  let lowerRow = -1;
  for (let y = 0; y < newHeight; y++) {
    const first = Math.min(Math.max(rows.index[y], 0), height - 1);
    const second = Math.min(Math.max(rows.index[y] + 1, 0), height - 1);
    if (first === lowerRow && first !== upperRow) {
      [upper, lower] = [lower, upper];
      [upperRow, lowerRow] = [lowerRow, upperRow];
    }
    if (first !== upperRow) {
      expandRow(first, upper);
      upperRow = first;
    }
    if (second !== lowerRow) {
      expandRow(second, lower);
      lowerRow = second;
    }
    const upperWeight = roundHalfEven(Math.fround(1 - rows.fraction[y]) * COEFFICIENT_SCALE);
    const lowerWeight = roundHalfEven(rows.fraction[y] * COEFFICIENT_SCALE);
    const base = y * newWidth * 3;
    for (let i = 0; i < newWidth * 3; i++) {
      // VResizeLinear for 8 bits: products are cut to 16 bits before they are added, then 2 bits are rounded away.
      const sum = ((upperWeight * (upper[i] >> 4)) >> 16) + ((lowerWeight * (lower[i] >> 4)) >> 16);
      out[base + i] = (sum + 2) >> 2;
    }
  }
  return out;
}

function halveImage(data: Uint8Array, width: number, out: Uint8Array, newWidth: number, newHeight: number): void {
  for (let y = 0; y < newHeight; y++) {
    for (let x = 0; x < newWidth; x++) {
      const top = (y * 2 * width + x * 2) * 3;
      const bottom = top + width * 3;
      const to = (y * newWidth + x) * 3;
      for (let c = 0; c < 3; c++) {
        out[to + c] = (data[top + c] + data[top + 3 + c] + data[bottom + c] + data[bottom + 3 + c] + 2) >> 2;
      }
    }
  }
}

/** Resizes many masks of one size to another; see {@link MaskResizer.resize}. */
export interface MaskResizer {
  /**
   * `cv2.resize(mask as float) > 0`: an output pixel is 1 where any input pixel of non-zero weight is. All weights are
   * non-negative, so no arithmetic is needed.
   *
   * @param mask [height, width], 0 or 1
   * @param firstRow, endRow rows of `mask` outside firstRow … endRow - 1 must be empty; output rows that read none of
   *   them are left as they are
   * @param out [newHeight, newWidth], zeros; receives the result
   */
  resize(mask: Uint8Array, firstRow: number, endRow: number, out: Uint8Array): void;
}

/** Prepares the sampling tables once for all masks of an image. */
export function maskResizer(width: number, height: number, newWidth: number, newHeight: number): MaskResizer {
  const columns = sampledPair(width, newWidth, isHalving(width, height, newWidth, newHeight));
  const rows = sampledPair(height, newHeight, isHalving(width, height, newWidth, newHeight));
  return {
    resize(mask, firstRow, endRow, out) {
      for (let y = 0; y < newHeight; y++) {
        if (rows.last[y] < firstRow || rows.first[y] >= endRow) continue;
        const upper = rows.first[y] * width;
        const lower = rows.last[y] * width;
        for (let x = 0; x < newWidth; x++) {
          const left = columns.first[x];
          const right = columns.last[x];
          out[y * newWidth + x] = mask[upper + left] | mask[upper + right] | mask[lower + left] | mask[lower + right];
        }
      }
    },
  };
}

/** The first and last input position with non-zero weight, for each output along one axis. */
function sampledPair(from: number, to: number, halving: boolean): { first: Int32Array; last: Int32Array } {
  const first = new Int32Array(to);
  const last = new Int32Array(to);
  const { index, fraction } = axisSamples(from, to);
  for (let i = 0; i < to; i++) {
    first[i] = Math.min(Math.max(index[i], 0), from - 1);
    last[i] = fraction[i] > 0 || halving ? Math.min(Math.max(index[i] + 1, 0), from - 1) : first[i];
  }
  return { first, last };
}

/**
 * `cv2.resize(mask as float32, (newWidth, newHeight)) > 0` for one mask.
 *
 * @param mask [height, width], 0 or 1
 * @returns [newHeight, newWidth], 0 or 1; a new array
 */
export function resizeMask(
  mask: Uint8Array,
  width: number,
  height: number,
  newWidth: number,
  newHeight: number,
): Uint8Array {
  const out = new Uint8Array(newWidth * newHeight);
  maskResizer(width, height, newWidth, newHeight).resize(mask, 0, height, out);
  return out;
}
