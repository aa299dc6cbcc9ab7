import { removeOverlaps } from '../data/rle.ts';
import type { Thresholds } from './thresholds.ts';

/** What a model found, with whole masks (torchvision's output in eval mode). */
export interface DenseDetections {
  /** n times [height × width] probabilities 0…1. */
  masks: readonly Float32Array[];
  /** [n] */
  labels: ArrayLike<number>;
  /** [n] 0…1 */
  scores: ArrayLike<number>;
}

/**
 * The notebook's `get_filtered_masks`, step for step on whole masks: detections in their order, those whose score exceeds their
 * class's `minScore`, their pixels whose probability exceeds its `maskThreshold`, without the pixels of all before. A mask that
 * loses every pixel stays in the list, empty, as there.
 *
 * `selectInstances` does the same on crops: it takes detections by falling score (the order in which a model gives them) and drops
 * empty masks. This form is the plain one that it is tested against, and takes masks from anywhere.
 *
 * @param thresholds per label; scores are compared in double and pixels in single precision, as Python and NumPy do
 * @returns masks of 0 and 1, disjoint
 * @throws Error if there are not as many masks, labels and scores, or a label has no thresholds
 */
export function filteredMasks({ masks, labels, scores }: DenseDetections, thresholds: Thresholds): Uint8Array[] {
  if (masks.length !== labels.length || scores.length !== labels.length) {
    throw new Error(
      `filteredMasks: ${labels.length} labels, but ${scores.length} scores and ${masks.length} masks; expected as many`,
    );
  }
  const kept: Uint8Array[] = [];
  masks.forEach((mask, i) => {
    const minScore = thresholds.minScore[labels[i]];
    const maskThreshold = thresholds.maskThreshold[labels[i]];
    if (minScore === undefined || maskThreshold === undefined) {
      throw new Error(
        `filteredMasks: no thresholds for label ${labels[i]}, expected one for each of 0 … numClasses - 1`,
      );
    }
    if (!(scores[i] > minScore)) return;
    const limit = Math.fround(maskThreshold);
    kept.push(Uint8Array.from(mask, (probability) => Number(probability > limit)));
  });
  return removeOverlaps(kept);
}
