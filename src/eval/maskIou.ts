import type { MaskCrop } from '../data/types.ts';

/**
 * One binary instance mask, packed 32 pixels to a word and cut to its bounding box. Words are aligned to the image's
 * columns (bit `x & 31` of word `x >> 5`), so that two masks of one image intersect by `&` without any shift.
 */
export interface BitMask {
  /** First and one past the last row that holds a pixel; both 0 for an empty mask. */
  top: number;
  bottom: number;
  /** First and one past the last column that holds a pixel; both 0 for an empty mask. */
  left: number;
  right: number;
  /** Image column of bit 0 of a row's first word, divided by 32. */
  firstWord: number;
  wordsPerRow: number;
  /** [bottom - top, wordsPerRow]. */
  words: Uint32Array;
  /** Number of pixels. */
  area: number;
}

const EMPTY: BitMask = {
  top: 0,
  bottom: 0,
  left: 0,
  right: 0,
  firstWord: 0,
  wordsPerRow: 0,
  words: new Uint32Array(0),
  area: 0,
};

/** Number of set bits of a 32-bit integer. */
function popcount(word: number): number {
  let v = word - ((word >>> 1) & 0x55555555);
  v = (v & 0x33333333) + ((v >>> 2) & 0x33333333);
  return Math.imul((v + (v >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/**
 * Packs the pixels of a window that exceed `threshold`.
 *
 * @param data [height, width] values of the window, row-major
 * @param x image column of the window's first column
 * @param y image row of the window's first row
 * @param imageWidth the image's width in pixels; what lies outside the image is dropped
 * @param imageHeight the image's height in pixels
 */
function pack(
  data: ArrayLike<number>,
  x: number,
  y: number,
  width: number,
  height: number,
  threshold: number,
  imageWidth: number,
  imageHeight: number,
): BitMask {
  const x0 = Math.max(0, -x);
  const x1 = Math.min(width, imageWidth - x);
  const y0 = Math.max(0, -y);
  const y1 = Math.min(height, imageHeight - y);
  // The bounding box of the set pixels first: crops are often much larger than what passes the threshold.
  let left = x1;
  let right = x0 - 1;
  let top = -1;
  let bottom = -1;
  for (let row = y0; row < y1; row++) {
    const start = row * width;
    let first = x0;
    while (first < x1 && !(data[start + first] > threshold)) first++;
    if (first >= x1) continue;
    let last = x1 - 1;
    while (!(data[start + last] > threshold)) last--;
    if (top < 0) top = row;
    bottom = row;
    if (first < left) left = first;
    if (last > right) right = last;
  }
  if (top < 0) return EMPTY;
  const firstWord = (left + x) >> 5;
  const wordsPerRow = ((right + x) >> 5) - firstWord + 1;
  const words = new Uint32Array((bottom - top + 1) * wordsPerRow);
  let area = 0;
  for (let row = top; row <= bottom; row++) {
    const start = row * width;
    const target = (row - top) * wordsPerRow - firstWord;
    for (let column = left; column <= right; column++) {
      if (data[start + column] > threshold) {
        const imageColumn = column + x;
        words[target + (imageColumn >> 5)] |= 1 << (imageColumn & 31);
        area++;
      }
    }
  }
  return {
    top: top + y,
    bottom: bottom + y + 1,
    left: left + x,
    right: right + x + 1,
    firstWord,
    wordsPerRow,
    words,
    area,
  };
}

/**
 * Packs a crop of mask probabilities: pixels with probability > `threshold` are set.
 *
 * @param crop pixels of one instance; parts outside the image are ignored
 * @param threshold 0…1
 * @param width image width in pixels
 * @param height image height in pixels
 */
export function packCrop(crop: MaskCrop, threshold: number, width: number, height: number): BitMask {
  if (crop.data.length !== crop.width * crop.height) {
    throw new Error(`packCrop: expected ${crop.height} × ${crop.width} probabilities, got ${crop.data.length}`);
  }
  return pack(crop.data, crop.x, crop.y, crop.width, crop.height, threshold, width, height);
}

/**
 * Packs full-size binary masks (the layout of `Target.masks`).
 *
 * @param masks [n, height, width], 0 or 1
 * @returns n packed masks
 */
export function packMasks(masks: Uint8Array, width: number, height: number): BitMask[] {
  const pixels = width * height;
  if (pixels === 0 || masks.length % pixels !== 0) {
    throw new Error(`packMasks: expected [n, ${height}, ${width}] masks, got ${masks.length} pixels`);
  }
  const packed: BitMask[] = [];
  for (let start = 0; start < masks.length; start += pixels) {
    const mask = masks.subarray(start, start + pixels);
    // The native searches skip the empty rows above and below, most of a full-size mask.
    const first = mask.indexOf(1);
    if (first < 0) {
      packed.push(EMPTY);
      continue;
    }
    const y0 = Math.floor(first / width);
    const y1 = Math.floor(mask.lastIndexOf(1) / width) + 1;
    packed.push(pack(mask.subarray(y0 * width, y1 * width), 0, y0, width, y1 - y0, 0, width, height));
  }
  return packed;
}

/** Number of pixels that two masks of one image share. */
export function maskIntersection(a: BitMask, b: BitMask): number {
  const top = Math.max(a.top, b.top);
  const bottom = Math.min(a.bottom, b.bottom);
  if (top >= bottom || Math.max(a.left, b.left) >= Math.min(a.right, b.right)) return 0;
  const wordFrom = Math.max(a.firstWord, b.firstWord);
  const wordTo = Math.min(a.firstWord + a.wordsPerRow, b.firstWord + b.wordsPerRow);
  let shared = 0;
  for (let row = top; row < bottom; row++) {
    const rowA = (row - a.top) * a.wordsPerRow - a.firstWord;
    const rowB = (row - b.top) * b.wordsPerRow - b.firstWord;
    for (let word = wordFrom; word < wordTo; word++) {
      const both = a.words[rowA + word] & b.words[rowB + word];
      if (both !== 0) shared += popcount(both);
    }
  }
  return shared;
}

/**
 * Pairwise intersection over union of two sets of masks of one image. Masks within a set may overlap each other. Only
 * pairs whose bounding boxes meet are compared, 32 pixels at a time. Two empty masks have IoU 0.
 *
 * @param crowds [truth] where not 0, the column holds the share of each predicted mask inside this truth instead (COCO's rule for
 *   crowds); by default nowhere
 * @returns [predicted, truth] row-major, 0…1
 */
export function maskIou(
  predicted: readonly BitMask[],
  truth: readonly BitMask[],
  crowds?: ArrayLike<number>,
): Float64Array {
  const iou = new Float64Array(predicted.length * truth.length);
  for (let p = 0; p < predicted.length; p++) {
    const own = predicted[p].area;
    for (let t = 0; t < truth.length; t++) {
      const shared = maskIntersection(predicted[p], truth[t]);
      if (shared > 0) iou[p * truth.length + t] = shared / (crowds?.[t] ? own : own + truth[t].area - shared);
    }
  }
  return iou;
}

/**
 * The rows and columns of an IoU matrix whose labels equal `label`: what a per-class metric compares.
 *
 * @param iou [predicted, truth]
 */
export function iouOfClass(
  iou: Float64Array,
  predictedLabels: ArrayLike<number>,
  truthLabels: ArrayLike<number>,
  label: number,
): { iou: Float64Array; predicted: number[]; truth: number[] } {
  const predicted: number[] = [];
  const truth: number[] = [];
  for (let p = 0; p < predictedLabels.length; p++) if (predictedLabels[p] === label) predicted.push(p);
  for (let t = 0; t < truthLabels.length; t++) if (truthLabels[t] === label) truth.push(t);
  const part = new Float64Array(predicted.length * truth.length);
  let k = 0;
  for (const p of predicted) for (const t of truth) part[k++] = iou[p * truthLabels.length + t];
  return { iou: part, predicted, truth };
}
