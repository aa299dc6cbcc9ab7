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

/**
 * Average over "classes" 0 … numClasses - 1 of the notebook's `compute_AP`, with its quirks:
 * - the lists of truths and predictions are never emptied between classes, so entry c measures the classes 0 … c
 *   together, and matching inside it disregards the class;
 * - the background class 0 counts as a class (with labels that start at 1 its area is 0);
 * - a prediction looks at its best-overlapping truth alone; a taken one makes it a false positive;
 * - it matches when IoU > threshold; 1e-6 is added to both denominators; the area is the trapezoid rule from
 *   (recall 0, precision 1), not an envelope; the score threshold the source takes is never used.
 */
function computeAP(
  truths: readonly BoxRecord[],
  predictions: readonly BoxRecord[],
  iouThreshold: number,
  numClasses: number,
): number {
  const truthOfImage = new Map<string | number, BoxRecord[]>();
  let pooled: BoxRecord[] = [];
  let truthCount = 0;
  let sum = 0;
  for (let label = 0; label < numClasses; label++) {
    for (const truth of truths) {
      if (truth.label !== label) continue;
      const ofImage = truthOfImage.get(truth.imageId);
      if (ofImage === undefined) truthOfImage.set(truth.imageId, [truth]);
      else ofImage.push(truth);
      truthCount++;
    }
    // Appended to the sorted list, then sorted again: stable, as Python's `sorted(..., reverse=True)`.
    pooled = [...pooled, ...predictions.filter((p) => p.label === label)].sort((a, b) => b.score - a.score);
    const claimed = new Set<BoxRecord>();
    let found = 0;
    let area = 0;
    let lastRecall = 0;
    let lastPrecision = 1;
    pooled.forEach((prediction, rank) => {
      let best: BoxRecord | undefined;
      let bestIou = -1;
      for (const truth of truthOfImage.get(prediction.imageId) ?? []) {
        const iou = inclusiveBoxIou(prediction.box, truth.box);
        if (iou > bestIou) {
          bestIou = iou;
          best = truth;
        }
      }
      if (best !== undefined && bestIou > iouThreshold && !claimed.has(best)) {
        claimed.add(best);
        found++;
      }
      const recall = found / (truthCount + EPSILON);
      const precision = found / (rank + 1 + EPSILON);
      area += ((recall - lastRecall) * (precision + lastPrecision)) / 2;
      lastRecall = recall;
      lastPrecision = precision;
    });
    sum += area;
  }
  return sum / numClasses;
}

/**
 * The notebook's `compute_mAP`: the mean of `compute_AP` at IoU .50, .55, … .90 (`np.arange(0.5, 0.95, 0.05)` stops
 * before .95), quirks kept; see `computeAP` above for what they are.
 *
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
  const perThreshold = Array.from({ length: 9 }, (_, i) => computeAP(truths, predictions, 0.5 + i * step, numClasses));
  return { mean: perThreshold.reduce((sum, value) => sum + value, 0) / perThreshold.length, perThreshold };
}
