/** One image's scored detections against its truths, by mask or box IoU. */
export interface ScoredIouTable {
  /** [detections, truth] row-major, 0…1. */
  iou: Float64Array;
  /** [detections] confidence, in any order. */
  scores: ArrayLike<number>;
  /** Number of truths. */
  truth: number;
}

/**
 * Area under a precision-recall curve after precision is made monotonic (each precision is the largest at that recall
 * or beyond), summed where recall changes: the all-point interpolation of Pascal VOC 2010 and py-faster-rcnn's
 * `voc_ap`, which keras-retinanet and the notebook's `_compute_ap` share.
 *
 * @param recall non-decreasing, 0…1
 * @param precision of the same length, 0…1
 */
export function envelopeArea(recall: ArrayLike<number>, precision: ArrayLike<number>): number {
  let area = 0;
  let envelope = 0;
  // From the last point back: the envelope so far belongs to the step of recall that ends here.
  for (let i = recall.length - 1; i >= 0; i--) {
    if (precision[i] > envelope) envelope = precision[i];
    area += (recall[i] - (i > 0 ? recall[i - 1] : 0)) * envelope;
  }
  return area;
}

/** Indices of `scores` by falling score; equal scores keep their order. */
export function orderByScore(scores: ArrayLike<number>): number[] {
  return Array.from({ length: scores.length }, (_, i) => i).sort((a, b) => scores[b] - scores[a] || a - b);
}

/** One image's detections after matching: all that an average precision still needs of them. */
export interface MatchedScores {
  /** [detections] confidence, in any order. */
  scores: ArrayLike<number>;
  /** [detections] 1 where the detection found a truth, else 0. */
  hits: Uint8Array;
  /** Number of truths. */
  truth: number;
}

/**
 * Matches the detections of one image by falling score (equal scores keep their order): each takes the still free truth with the
 * largest IoU (the first of equals) if that IoU is >= `iouThreshold`.
 *
 * @throws Error if the table's size does not fit its counts
 */
export function matchByScore({ iou, scores, truth }: ScoredIouTable, iouThreshold: number): MatchedScores {
  if (iou.length !== scores.length * truth) {
    throw new Error(`matchByScore: expected [${scores.length}, ${truth}] IoUs, got ${iou.length}`);
  }
  const hits = new Uint8Array(scores.length);
  const taken = new Uint8Array(truth);
  for (const detection of orderByScore(scores)) {
    const row = detection * truth;
    let best = -1;
    for (let t = 0; t < truth; t++) {
      const value = iou[row + t];
      if (taken[t] === 0 && value >= iouThreshold && (best < 0 || value > iou[row + best])) best = t;
    }
    if (best < 0) continue;
    taken[best] = 1;
    hits[detection] = 1;
  }
  return { scores, hits, truth };
}

/**
 * The area under the precision envelope over recall at all points (`envelopeArea`) of the detections of all images, pooled by
 * falling score (equal scores: order of images, then of detections).
 *
 * @returns 0…1; 0 when there is no truth at all (recall is undefined there)
 */
export function pooledAveragePrecision(images: readonly MatchedScores[]): number {
  const count = images.reduce((sum, { hits }) => sum + hits.length, 0);
  const truths = images.reduce((sum, { truth }) => sum + truth, 0);
  if (truths === 0) return 0;
  const scores = new Float64Array(count);
  const hits = new Uint8Array(count);
  let filled = 0;
  for (const image of images) {
    scores.set(image.scores, filled);
    hits.set(image.hits, filled);
    filled += image.hits.length;
  }
  const recall = new Float64Array(count);
  const precision = new Float64Array(count);
  let found = 0;
  orderByScore(scores).forEach((entry, rank) => {
    found += hits[entry];
    recall[rank] = found / truths;
    precision[rank] = found / (rank + 1);
  });
  return envelopeArea(recall, precision);
}

/**
 * Average precision of a set of images without regard to class: `matchByScore` in each, then `pooledAveragePrecision`.
 *
 * @param iouThreshold 0…1
 * @returns 0…1; 0 when there is no truth at all
 * @throws Error if a table's size does not fit its counts
 */
export function averagePrecision(images: readonly ScoredIouTable[], iouThreshold = 0.5): number {
  return pooledAveragePrecision(images.map((image) => matchByScore(image, iouThreshold)));
}
