import type { Detections, MaskCrop } from '../data/types.ts';
import { orderByScore } from '../eval/maskAveragePrecision.ts';
import { selectInstances } from '../eval/selectInstances.ts';
import type { Thresholds } from '../eval/thresholds.ts';

/** A cell of the answer. */
export interface PredictedCell {
  /** 1 … numClasses - 1. */
  label: number;
  /** 0…1 */
  score: number;
  /** xmin, ymin, xmax, ymax of the box head in pixels of the file; the mask may be smaller, where better cells took its pixels. */
  box: [number, number, number, number];
  /** 0 or 1 per pixel, cut to what the cell covers, disjoint from all others; absent for a box-only model. */
  mask?: MaskCrop;
}

/** The answer for one image: plain data, fit to be sent to a thread. */
export interface ImagePrediction {
  id: string;
  /** Its place among all images of the folder, from 0. */
  position: number;
  /** Size of the file in pixels. */
  width: number;
  height: number;
  /** Best score first. */
  cells: PredictedCell[];
}

/**
 * The cells of one image: those of `selectInstances`, or for a box-only model the boxes that score above their class's `minScore`.
 *
 * @param width of the image in pixels
 * @param height of the image in pixels
 * @returns best score first; equal scores in the order of the detections
 */
export function selectCells(
  detections: Detections,
  thresholds: Thresholds,
  width: number,
  height: number,
): PredictedCell[] {
  const { boxes, labels, scores, masks } = detections;
  const chosen =
    masks === undefined
      ? orderByScore(scores)
          .filter((i) => scores[i] > thresholds.minScore[labels[i]])
          .map((i) => ({ label: labels[i], score: scores[i], detection: i, mask: undefined }))
      : selectInstances(detections, thresholds, width, height);
  return chosen.map(({ label, score, detection: i, mask }) => ({
    label,
    score,
    box: [boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]],
    ...(mask && { mask }),
  }));
}
