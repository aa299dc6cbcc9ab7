/** One row of the notebook's `ground_truth` and `predictions` lists. */
export interface BoxRecord {
  imageId: string | number;
  label: number;
  /** xmin, ymin, xmax, ymax in pixels, corners inclusive. */
  box: readonly [number, number, number, number];
  /** 0…1; truths carry 1, which is never read. */
  score: number;
}

/**
 * IoU of the notebook's `IOU`: sides are one pixel longer than their difference (inclusive corners).
 * Differs from torchvision's `box_iou`, and from `pairwiseBoxIou` here, by that pixel.
 */
export function inclusiveBoxIou(a: readonly number[], b: readonly number[]): number {
  const width = Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0]) + 1);
  const height = Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]) + 1);
  const shared = width * height;
  const areaA = (a[2] - a[0] + 1) * (a[3] - a[1] + 1);
  const areaB = (b[2] - b[0] + 1) * (b[3] - b[1] + 1);
  return shared / (areaA + areaB - shared);
}

const EPSILON = 1e-6;

/** A prediction and the truth of its image that overlaps it best, or -1 where the image has none yet. */
interface Ranked {
  record: BoxRecord;
  truth: number;
  iou: number;
}

/**
 * What `compute_AP` looks at for each class in turn: all predictions so far by falling score, each with its best-overlapping truth
 * so far, and the number of truths so far. Independent of the IoU threshold, so that each pair of boxes is compared once.
 */
function* classesInTurn(
  truths: readonly BoxRecord[],
  predictions: readonly BoxRecord[],
  numClasses: number,
): Generator<{ ranked: readonly Ranked[]; truths: number }> {
  const truthsOfImage = new Map<string | number, { index: number; box: BoxRecord['box'] }[]>();
  let ranked: Ranked[] = [];
  let count = 0;
  /** Compares with the truths of the image from the `from`th on; of equal IoUs the first stays. */
  const compare = (entry: Ranked, from: number): void => {
    const ofImage = truthsOfImage.get(entry.record.imageId) ?? [];
    for (let i = from; i < ofImage.length; i++) {
      const iou = inclusiveBoxIou(entry.record.box, ofImage[i].box);
      if (iou > entry.iou) {
        entry.iou = iou;
        entry.truth = ofImage[i].index;
      }
    }
  };
  for (let label = 0; label < numClasses; label++) {
    const before = new Map([...truthsOfImage].map(([image, list]) => [image, list.length]));
    for (const { label: own, imageId, box } of truths) {
      if (own !== label) continue;
      const ofImage = truthsOfImage.get(imageId) ?? [];
      ofImage.push({ index: count++, box });
      truthsOfImage.set(imageId, ofImage);
    }
    for (const entry of ranked) compare(entry, before.get(entry.record.imageId) ?? 0);
    const added = predictions
      .filter((record) => record.label === label)
      .map((record): Ranked => ({ record, truth: -1, iou: -1 }));
    for (const entry of added) compare(entry, 0);
    // Appended to the sorted list, then sorted again: stable, as Python's `sorted(..., reverse=True)`.
    ranked = [...ranked, ...added].sort((a, b) => b.record.score - a.record.score);
    yield { ranked, truths: count };
  }
}

/** Area under precision over recall by the trapezoid rule from (recall 0, precision 1), as `compute_AP` has it. */
function trapezoidArea(ranked: readonly Ranked[], truths: number, iouThreshold: number): number {
  const claimed = new Uint8Array(truths);
  let found = 0;
  let area = 0;
  let lastRecall = 0;
  let lastPrecision = 1;
  ranked.forEach(({ truth, iou }, rank) => {
    if (truth >= 0 && iou > iouThreshold && claimed[truth] === 0) {
      claimed[truth] = 1;
      found++;
    }
    const recall = found / (truths + EPSILON);
    const precision = found / (rank + 1 + EPSILON);
    area += ((recall - lastRecall) * (precision + lastPrecision)) / 2;
    lastRecall = recall;
    lastPrecision = precision;
  });
  return area;
}

/**
 * The notebook's `compute_mAP`: the mean over IoU thresholds of the mean over "classes" 0 … numClasses - 1 of `compute_AP`.
 * Quirks of the source, kept:
 * - the thresholds are .50, .55, … .90 (`np.arange(0.5, 0.95, 0.05)` stops before .95, and adds up rounding);
 * - the lists of truths and predictions are never emptied between classes, so entry c measures the classes 0 … c
 *   together, and matching inside it disregards the class;
 * - the background class 0 counts as a class (with labels that start at 1 its area is 0);
 * - a prediction looks at its best-overlapping truth alone; a taken one makes it a false positive;
 * - it matches when IoU > threshold, of boxes a pixel longer than their difference (`inclusiveBoxIou`);
 * - 1e-6 is added to both denominators; the area is the trapezoid rule, not an envelope; the score threshold that the source
 *   takes is never used.
 *
 * @param truths in the order of the list; `score` is not read
 * @param numClasses classes counted with the background; labels are 0 … numClasses - 1, others are ignored
 * @throws Error if numClasses < 1
 */
export function computeMAP(
  truths: readonly BoxRecord[],
  predictions: readonly BoxRecord[],
  numClasses: number,
): { mean: number; perThreshold: number[] } {
  if (numClasses < 1) throw new Error(`computeMAP: expected numClasses >= 1, got ${numClasses}`);
  // np.arange adds multiples of (0.5 + 0.05) - 0.5, which is slightly more than 0.05.
  const step = 0.5 + 0.05 - 0.5;
  const thresholds = Array.from({ length: 9 }, (_, i) => 0.5 + i * step);
  const sums = thresholds.map(() => 0);
  for (const { ranked, truths: count } of classesInTurn(truths, predictions, numClasses)) {
    thresholds.forEach((threshold, i) => {
      sums[i] += trapezoidArea(ranked, count, threshold);
    });
  }
  const perThreshold = sums.map((sum) => sum / numClasses);
  return { mean: perThreshold.reduce((sum, value) => sum + value, 0) / perThreshold.length, perThreshold };
}
