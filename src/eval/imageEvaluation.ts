import type { Detections, Target } from '../data/types.ts';
import { type DetectedBoxes, EVALUATE_IOU, nmsForMetrics, pairwiseBoxIou, takeBoxes } from './boxAveragePrecision.ts';
import type { CocoImage } from './cocoMatching.ts';
import { imageIouMap } from './competitionScore.ts';
import { type CountedTable, withoutCrowds } from './crowds.ts';
import { type MatchedScores, matchByScore } from './maskAveragePrecision.ts';
import { iouOfClass, maskIou, packCrop } from './maskIou.ts';
import { type EvaluationSample, selectionTable, type Thresholds } from './thresholds.ts';

/** IoU from which on a detection finds a truth in AP50 and in the competition. */
const FOUND_IOU = 0.5;

/** Detections of one image after matching at IoU .5: of all classes together, and of each label 1 … alone. */
export interface ClassMatches {
  all: MatchedScores;
  perClass: MatchedScores[];
}

/** Competition score of one image: all classes, and each label 1 … alone (null where nothing is and nothing was found). */
export interface CompetitionPart {
  score: number;
  perClass: (number | null)[];
}

/** What stays of one image once its detections have been compared with its truths: a few numbers for each. */
export interface ImageEvaluation {
  /** Truths that are no crowds. */
  truth: { boxes: Float32Array; labels: Int32Array };
  /** The detections of the notebook's `evaluate()`: after its suppression, without those that lie in a crowd. */
  suppressed: DetectedBoxes;
  box: ClassMatches;
  /** Null for a box-only model. */
  mask: ClassMatches | null;
}

/** One image's truths and detections, compared. */
export interface ImageComparison {
  evaluation: ImageEvaluation;
  /** For COCO's numbers; holds the tables of overlaps, so it is not to be kept. Without masks `segm` is null. */
  coco: { segm: CocoImage | null; bbox: CocoImage };
}

/**
 * Compares what was found in one image with its truths, by boxes and by masks.
 *
 * COCO's areas: a truth's is the number of pixels of its mask (of its box, by `Target.area`, where the target has no masks), for
 * boxes too, as in COCO's files; a detection's is that of what is compared, its mask at probability > .5 or its box.
 *
 * @param sample the same image as `evaluationSample` gives it
 * @param numClasses classes counted with the background
 */
export function compareImage(
  detections: Detections,
  target: Target,
  sample: EvaluationSample,
  numClasses: number,
): ImageComparison {
  const { boxes, labels, scores } = detections;
  const { iscrowd } = target;
  const count = scores.length;
  const boxOverlap = pairwiseBoxIou(boxes, target.boxes, iscrowd);
  const boxAreas = Float64Array.from(
    labels,
    (_, i) => (boxes[4 * i + 2] - boxes[4 * i]) * (boxes[4 * i + 3] - boxes[4 * i + 1]),
  );
  const areas = truthAreas(target, sample);
  const cocoImage = (overlap: Float64Array, detectionAreas: ArrayLike<number>): CocoImage => ({
    truths: { labels: target.labels, areas, crowds: iscrowd },
    detections: { labels, scores, areas: detectionAreas },
    overlap: (rows, columns) => pickOverlaps(overlap, target.labels.length, rows, columns),
  });
  const matches = (overlap: Float64Array): ClassMatches =>
    matchClasses(
      withoutCrowds(overlap, iscrowd, count, FOUND_IOU),
      { boxes, labels, scores },
      sample.truth.labels,
      numClasses,
    );
  const masks = compareMasks(detections, target, sample);
  return {
    evaluation: {
      truth: { boxes: sample.truth.boxes, labels: sample.truth.labels },
      suppressed: suppressedBoxes(
        { boxes, labels, scores },
        new Set(withoutCrowds(boxOverlap, iscrowd, count, EVALUATE_IOU).detections),
      ),
      box: matches(boxOverlap),
      mask: masks === null ? null : matches(masks.overlap),
    },
    coco: {
      segm: masks === null ? null : cocoImage(masks.overlap, masks.areas),
      bbox: cocoImage(boxOverlap, boxAreas),
    },
  };
}

/** The competition's view of one image under the given thresholds; null for a box-only model. */
export function competitionPart(
  sample: EvaluationSample,
  thresholds: Thresholds,
  numClasses: number,
): CompetitionPart | null {
  if (sample.detections.masks === undefined) return null;
  const selection = selectionTable(sample, thresholds);
  return {
    score: imageIouMap(selection).score,
    perClass: labelsOf(numClasses).map((label) => {
      const part = iouOfClass(selection.iou, selection.labels, sample.truth.labels, label);
      const table = { iou: part.iou, predicted: part.predicted.length, truth: part.truth.length };
      return table.predicted + table.truth === 0 ? null : imageIouMap(table).score;
    }),
  };
}

/** 1 … numClasses - 1. */
export function labelsOf(numClasses: number): number[] {
  return Array.from({ length: Math.max(0, numClasses - 1) }, (_, i) => i + 1);
}

/** Overlaps of the masks and areas of the detected ones, in pixels; null for a box-only model. */
function compareMasks(
  { masks }: Detections,
  { iscrowd }: Target,
  { truth, crowds, width, height }: EvaluationSample,
): { overlap: Float64Array; areas: number[] } | null {
  if (masks === undefined) return null;
  const packed = masks.map((crop) => packCrop(crop, 0.5, width, height));
  return {
    overlap: maskIou(packed, inOrder(iscrowd, truth.masks, crowds), iscrowd),
    areas: packed.map(({ area }) => area),
  };
}

function truthAreas({ masks, area, iscrowd }: Target, { truth, crowds, width, height }: EvaluationSample): number[] {
  if (truth.masks.length + crowds.length > 0) return inOrder(iscrowd, truth.masks, crowds).map(({ area }) => area);
  if (masks.length === 0) return [...area];
  const pixels = width * height;
  return Array.from(area, (_, i) =>
    masks.subarray(i * pixels, (i + 1) * pixels).reduce((sum, value) => sum + value, 0),
  );
}

/** Truths and crowds in the target's order. */
function inOrder<T>(iscrowd: Uint8Array, truths: readonly T[], crowds: readonly T[]): T[] {
  let [truth, crowd] = [0, 0];
  return Array.from(iscrowd, (flag) => (flag ? crowds[crowd++] : truths[truth++]));
}

function suppressedBoxes(detected: DetectedBoxes, counted: ReadonlySet<number>): DetectedBoxes {
  const kept = nmsForMetrics(detected.boxes, detected.scores, EVALUATE_IOU);
  return takeBoxes(
    detected,
    kept.filter((i) => counted.has(i)),
  );
}

function matchClasses(
  { detections, iou }: CountedTable,
  { labels, scores }: DetectedBoxes,
  truthLabels: Int32Array,
  numClasses: number,
): ClassMatches {
  const ownScores = Float32Array.from(detections, (d) => scores[d]);
  const ownLabels = detections.map((d) => labels[d]);
  return {
    all: matchByScore({ iou, scores: ownScores, truth: truthLabels.length }, FOUND_IOU),
    perClass: labelsOf(numClasses).map((label) => {
      const part = iouOfClass(iou, ownLabels, truthLabels, label);
      const partScores = Float32Array.from(part.predicted, (d) => ownScores[d]);
      return matchByScore({ iou: part.iou, scores: partScores, truth: part.truth.length }, FOUND_IOU);
    }),
  };
}

function pickOverlaps(
  overlap: Float64Array,
  columns: number,
  rows: readonly number[],
  wanted: readonly number[],
): Float64Array {
  const picked = new Float64Array(rows.length * wanted.length);
  let at = 0;
  for (const row of rows) for (const column of wanted) picked[at++] = overlap[row * columns + column];
  return picked;
}
