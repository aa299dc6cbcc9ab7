import type { Detections, MaskCrop } from '../data/types.ts';
import { orderByScore } from './maskAveragePrecision.ts';
import type { Thresholds } from './thresholds.ts';

/** One cell of the final answer. */
export interface SelectedInstance {
  /** 0 or 1 per pixel, cut to the bounding box of what is left of the cell; inside the image and never empty. */
  mask: MaskCrop;
  /** 1 … numClasses - 1. */
  label: number;
  /** 0…1 */
  score: number;
  /** Which of the detections it is. */
  detection: number;
}

/**
 * The notebook's `get_filtered_masks`: keeps detections whose score exceeds their class's `minScore`, their pixels whose
 * probability exceeds their class's `maskThreshold`, and takes from each the pixels of better-scored ones. A cell left without
 * a pixel is dropped (the notebook writes an empty row for it). Each crop is visited once, whatever the number of cells.
 *
 * @param detections with masks; need not be sorted
 * @param thresholds per label; both comparisons are strict, that of pixels in single precision (as NumPy's)
 * @param width of the image in pixels; parts of crops outside the image are ignored
 * @param height of the image in pixels
 * @returns disjoint masks, best score first; equal scores in the order of the detections
 * @throws Error if the detections have no masks, or a label has no thresholds
 */
export function selectInstances(
  detections: Detections,
  thresholds: Thresholds,
  width: number,
  height: number,
): SelectedInstance[] {
  const { masks, labels, scores } = detections;
  if (masks === undefined) throw new Error('selectInstances: a box-only model has no masks');
  if (masks.length !== labels.length || scores.length !== labels.length) {
    throw new Error(
      `selectInstances: ${labels.length} labels, but ${scores.length} scores and ${masks.length} masks; expected as many`,
    );
  }
  const taken = new Uint8Array(width * height);
  const instances: SelectedInstance[] = [];
  for (const i of orderByScore(scores)) {
    const label = labels[i];
    const minScore = thresholds.minScore[label];
    const maskThreshold = thresholds.maskThreshold[label];
    if (minScore === undefined || maskThreshold === undefined) {
      throw new Error(`selectInstances: no thresholds for label ${label}, expected one for each of 0 … numClasses - 1`);
    }
    if (!(scores[i] > minScore)) continue;
    const mask = takePixels(masks[i], maskThreshold, taken, width, height);
    if (mask !== undefined) instances.push({ mask, label, score: scores[i], detection: i });
  }
  return instances;
}

/** The pixels of a crop above the threshold that nobody has taken yet, which are taken now; undefined if there is none. */
function takePixels(
  crop: MaskCrop,
  threshold: number,
  taken: Uint8Array,
  width: number,
  height: number,
): MaskCrop | undefined {
  // NumPy compares in float32: a probability that is the threshold's own rounding does not exceed it.
  const limit = Math.fround(threshold);
  const firstColumn = Math.max(0, -crop.x);
  const lastColumn = Math.min(crop.width, width - crop.x) - 1;
  const firstRow = Math.max(0, -crop.y);
  const lastRow = Math.min(crop.height, height - crop.y) - 1;
  const found: number[] = [];
  let left = lastColumn;
  let right = firstColumn;
  for (let row = firstRow; row <= lastRow; row++) {
    const imageRow = (row + crop.y) * width + crop.x;
    for (let column = firstColumn; column <= lastColumn; column++) {
      const at = row * crop.width + column;
      if (!(crop.data[at] > limit) || taken[imageRow + column] !== 0) continue;
      taken[imageRow + column] = 1;
      found.push(at);
      if (column < left) left = column;
      if (column > right) right = column;
    }
  }
  if (found.length === 0) return undefined;
  // Found row by row: the first and the last tell the box's rows.
  const top = Math.floor(found[0] / crop.width);
  const bottom = Math.floor(found[found.length - 1] / crop.width);
  const data = new Float32Array((right - left + 1) * (bottom - top + 1));
  for (const at of found) {
    const row = Math.floor(at / crop.width);
    data[(row - top) * (right - left + 1) + (at - row * crop.width - left)] = 1;
  }
  return { x: crop.x + left, y: crop.y + top, width: right - left + 1, height: bottom - top + 1, data };
}
