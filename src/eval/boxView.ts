import type { Detections } from '../data/types.ts';
import { nmsForMetrics } from './boxAveragePrecision.ts';
import type { DrawnInstance } from './overlay.ts';
import type { Thresholds } from './thresholds.ts';

/** IoU of the notebook's `batched_nms` before it draws boxes. */
const VIEW_NMS = 0.6;

/**
 * The boxes that the notebook draws of a box-only model (`analyze_train_sample`): those that score above their class's `minScore`,
 * after non-maximum suppression within each class.
 *
 * @param iouThreshold of two boxes of a class that overlap more, the better scored stays
 * @returns indices into `detections`, by label, then best score first
 */
export function selectBoxes(
  { boxes, labels, scores }: Detections,
  thresholds: Thresholds,
  iouThreshold = VIEW_NMS,
): number[] {
  const byLabel = new Map<number, number[]>();
  for (let i = 0; i < labels.length; i++) {
    if (!(scores[i] > thresholds.minScore[labels[i]])) continue;
    byLabel.set(labels[i], [...(byLabel.get(labels[i]) ?? []), i]);
  }
  return [...byLabel.keys()]
    .sort((a, b) => a - b)
    .flatMap((label) => {
      const members = byLabel.get(label) as number[];
      const own = Float32Array.from(members.flatMap((i) => [...boxes.subarray(4 * i, 4 * i + 4)]));
      const kept = nmsForMetrics(
        own,
        Float32Array.from(members, (i) => scores[i]),
        iouThreshold,
      );
      return kept.map((k) => members[k]);
    });
}

/**
 * The same boxes as frames to draw, one pixel wide and cut to the image.
 *
 * @param width of the image in pixels
 * @param height of the image in pixels
 */
export function boxInstances(
  detections: Detections,
  thresholds: Thresholds,
  width: number,
  height: number,
): DrawnInstance[] {
  return selectBoxes(detections, thresholds).map((i) => {
    const [xmin, ymin, xmax, ymax] = detections.boxes.subarray(4 * i, 4 * i + 4);
    const clamp = (value: number, side: number): number => Math.min(side - 1, Math.max(0, Math.floor(value)));
    const [x, y] = [clamp(xmin, width), clamp(ymin, height)];
    const [w, h] = [clamp(xmax, width) - x + 1, clamp(ymax, height) - y + 1];
    const data = new Float32Array(w * h);
    data.fill(1, 0, w).fill(1, (h - 1) * w);
    for (let row = 0; row < h; row++) data[row * w] = data[row * w + w - 1] = 1;
    return { mask: { x, y, width: w, height: h, data }, label: detections.labels[i], score: detections.scores[i] };
  });
}
