/** IoU thresholds .50, .55, …, .95 of the competition. Built from integers, so that each is the double nearest to its name. */
export const COMPETITION_IOU_THRESHOLDS: readonly number[] = Array.from({ length: 10 }, (_, i) => (50 + 5 * i) / 100);

/** One image's predictions against its truths, by any IoU. */
export interface IouTable {
  /** [predicted, truth] row-major, 0…1. */
  iou: Float64Array;
  predicted: number;
  truth: number;
}

export interface ImageScore {
  /** Mean of `perThreshold`, 0…1. */
  score: number;
  /** TP / (TP + FP + FN) at each of `COMPETITION_IOU_THRESHOLDS`. */
  perThreshold: number[];
}

export interface CompetitionScore extends ImageScore {
  /** Score of each image, in the order given. */
  perImage: number[];
}

/**
 * Precision TP / (TP + FP + FN) of one image at the competition's ten IoU thresholds, and their mean. A pair matches
 * when its IoU is *greater* than the threshold; TP are truths with a match, FN truths without, FP predictions without.
 * Overlap-free predictions (the competition's rule) give each truth at most one match, so no assignment is needed.
 *
 * Neither truth nor prediction scores 1 (nothing to find, nothing found; the source divides 0 by 0 there); truth
 * without prediction and prediction without truth score 0.
 *
 * Source: the notebook's "Metric" cell, https://www.kaggle.com/theoviel/competition-metric-map-iou (`precision_at`).
 *
 * @throws Error if `iou` has not predicted × truth entries
 */
export function imageIouMap({ iou, predicted, truth }: IouTable): ImageScore {
  if (iou.length !== predicted * truth) {
    throw new Error(`imageIouMap: expected [${predicted}, ${truth}] IoUs, got ${iou.length}`);
  }
  if (predicted === 0 && truth === 0) {
    return { score: 1, perThreshold: COMPETITION_IOU_THRESHOLDS.map(() => 1) };
  }
  // A row or column has a match at a threshold exactly if its largest IoU passes it.
  const bestOfPrediction = new Float64Array(predicted);
  const bestOfTruth = new Float64Array(truth);
  for (let p = 0; p < predicted; p++) {
    for (let t = 0; t < truth; t++) {
      const value = iou[p * truth + t];
      if (value > bestOfPrediction[p]) bestOfPrediction[p] = value;
      if (value > bestOfTruth[t]) bestOfTruth[t] = value;
    }
  }
  const perThreshold = COMPETITION_IOU_THRESHOLDS.map((threshold) => {
    let truePositives = 0;
    for (const best of bestOfTruth) if (best > threshold) truePositives++;
    let falsePositives = 0;
    for (const best of bestOfPrediction) if (!(best > threshold)) falsePositives++;
    return truePositives / (truth + falsePositives);
  });
  return { score: mean(perThreshold), perThreshold };
}

/**
 * The competition's score of a set of images: `imageIouMap` of each, then the mean over images. (The Kaggle notebook
 * it comes from pools TP, FP and FN over images when given several; the competition itself averages images.)
 *
 * @returns score 0 for an empty set
 */
export function iouMap(images: readonly IouTable[]): CompetitionScore {
  const scores = images.map(imageIouMap);
  return {
    score: mean(scores.map((image) => image.score)),
    perThreshold: COMPETITION_IOU_THRESHOLDS.map((_, i) => mean(scores.map((image) => image.perThreshold[i]))),
    perImage: scores.map((image) => image.score),
  };
}

function mean(values: readonly number[]): number {
  let sum = 0;
  for (const value of values) sum += value;
  return values.length === 0 ? 0 : sum / values.length;
}
