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

/**
 * Average precision of a set of images without regard to class. Detections of all images are pooled by falling score
 * (equal scores: order of images, then of detections); each takes the still free truth of its image with the largest
 * IoU (the first of equals) if that IoU is >= `iouThreshold`, else it is a false positive. The result is the area under
 * the precision envelope over recall at all points (`envelopeArea`).
 *
 * @param iouThreshold 0…1
 * @returns 0…1; 0 when there is no truth at all (recall is undefined there)
 * @throws Error if a table's size does not fit its counts
 */
export function averagePrecision(images: readonly ScoredIouTable[], iouThreshold = 0.5): number {
  const imageOf: number[] = [];
  const detectionOf: number[] = [];
  const pooled: number[] = [];
  let truths = 0;
  images.forEach((image, index) => {
    if (image.iou.length !== image.scores.length * image.truth) {
      throw new Error(
        `averagePrecision: expected [${image.scores.length}, ${image.truth}] IoUs for image ${index}, got ${image.iou.length}`,
      );
    }
    truths += image.truth;
    for (let d = 0; d < image.scores.length; d++) {
      imageOf.push(index);
      detectionOf.push(d);
      pooled.push(image.scores[d]);
    }
  });
  if (truths === 0) return 0;
  const taken = images.map((image) => new Uint8Array(image.truth));
  const recall = new Float64Array(pooled.length);
  const precision = new Float64Array(pooled.length);
  let found = 0;
  orderByScore(pooled).forEach((entry, rank) => {
    const image = images[imageOf[entry]];
    const free = taken[imageOf[entry]];
    const row = detectionOf[entry] * image.truth;
    let best = -1;
    for (let t = 0; t < image.truth; t++) {
      const value = image.iou[row + t];
      if (free[t] === 0 && value >= iouThreshold && (best < 0 || value > image.iou[row + best])) best = t;
    }
    if (best >= 0) {
      free[best] = 1;
      found++;
    }
    recall[rank] = found / truths;
    precision[rank] = found / (rank + 1);
  });
  return envelopeArea(recall, precision);
}

/**
 * Mask AP50: `averagePrecision` at IoU >= .5 over all instances of all images without regard to class. The tables hold
 * every detection the model kept, its mask binarised at probability > .5 (overlaps stay), at the resolution of the
 * loaded image. The same measure over box IoUs is `boxAP50`.
 */
export function maskAP50(images: readonly ScoredIouTable[]): number {
  return averagePrecision(images, 0.5);
}
