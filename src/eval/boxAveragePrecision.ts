import {
  annotationTable,
  type BoxAnnotationRow,
  type BoxPredictionRow,
  type BoxTable,
  type LabelledBoxes,
  NO_LABEL,
  predictionTable,
  type ScoredBoxes,
} from './boxTables.ts';
import { envelopeArea, orderByScore } from './maskAveragePrecision.ts';

export type { BoxAnnotationRow, BoxPredictionRow, LabelledBoxes, ScoredBoxes };

const f32 = Math.fround;

/**
 * Pairwise IoU of boxes xmin, ymin, xmax, ymax (torchvision's `box_iou`: no pixel is added to sides). Pairs without a
 * common area, boxes without area among them, have IoU 0.
 *
 * @param a [n, 4]
 * @param b [m, 4]
 * @param crowds [m] where not 0, the column holds the share of each box of `a` inside this box of `b` instead (COCO's rule for
 *   crowds); by default nowhere
 * @returns [n, m] row-major, float64
 */
export function pairwiseBoxIou(a: ArrayLike<number>, b: ArrayLike<number>, crowds?: ArrayLike<number>): Float64Array {
  const n = a.length / 4;
  const m = b.length / 4;
  const iou = new Float64Array(n * m);
  for (let i = 0; i < n; i++) {
    const p = 4 * i;
    const area = (a[p + 2] - a[p]) * (a[p + 3] - a[p + 1]);
    for (let j = 0; j < m; j++) {
      const q = 4 * j;
      const width = Math.min(a[p + 2], b[q + 2]) - Math.max(a[p], b[q]);
      const height = Math.min(a[p + 3], b[q + 3]) - Math.max(a[p + 1], b[q + 1]);
      if (width > 0 && height > 0) {
        const shared = width * height;
        iou[i * m + j] = shared / (crowds?.[j] ? area : area + (b[q + 2] - b[q]) * (b[q + 3] - b[q + 1]) - shared);
      }
    }
  }
  return iou;
}

/**
 * Non-maximum suppression over all boxes, whatever their class, as `torchvision.ops.nms` does it on the CPU: by falling
 * score (equal scores in index order), a box goes when its IoU with a kept one is *greater* than the threshold. All
 * arithmetic is rounded to float32, as there. For metrics on results already read back; the model has its GPU kernel.
 *
 * @param boxes [n, 4] xmin, ymin, xmax, ymax
 * @param scores [n]
 * @returns kept indices, best score first
 */
export function nmsForMetrics(boxes: Float32Array, scores: Float32Array, iouThreshold: number): number[] {
  const areas = new Float32Array(scores.length);
  for (let i = 0; i < scores.length; i++) {
    areas[i] = f32(boxes[4 * i + 2] - boxes[4 * i]) * f32(boxes[4 * i + 3] - boxes[4 * i + 1]);
  }
  const kept: number[] = [];
  for (const candidate of orderByScore(scores)) {
    const c = 4 * candidate;
    const suppressed = kept.some((keeper) => {
      const k = 4 * keeper;
      const width = f32(Math.min(boxes[k + 2], boxes[c + 2]) - Math.max(boxes[k], boxes[c]));
      const height = f32(Math.min(boxes[k + 3], boxes[c + 3]) - Math.max(boxes[k + 1], boxes[c + 1]));
      if (width <= 0 || height <= 0) return false;
      const shared = f32(width * height);
      return f32(shared / f32(f32(areas[keeper] + areas[candidate]) - shared)) > iouThreshold;
    });
    if (!suppressed) kept.push(candidate);
  }
  return kept;
}

export interface ClassAveragePrecision {
  averagePrecision: number;
  /** Truths of this class. */
  annotations: number;
}

export interface BoxMeanAveragePrecision {
  /** Mean over the classes that have truths; 0 if there is none (the source divides by 0). */
  mean: number;
  perClass: Record<string, ClassAveragePrecision>;
}

/**
 * The notebook's `mean_average_precision_for_boxes` (Roman Solovyev's `map_boxes`, after keras-retinanet's
 * `utils/eval.py`): per class the area under the precision envelope, then the mean over classes with truths.
 *
 * Inputs are the notebook's: rows, or the paths of CSV files (see `annotationTable`, `predictionTable`); or boxes by image.
 *
 * Quirks of the source, kept:
 * - within an image detections claim truths in *list* order, not in score order; only the curve is sorted by score;
 * - a detection looks at its best-overlapping truth alone: if that is taken already, it is a false positive even when
 *   another truth overlaps enough (matches at IoU >= threshold);
 * - images that the truths do not name are never visited, so detections there cost nothing, nor do detections of a class
 *   that no truth has. A truth with an empty label (NaN) names an image without being a truth itself;
 * - ids and labels are compared as the texts that pandas makes of them: a column of whole numbers with a gap holds "7.0";
 * - boxes and scores are rounded to float32, IoU is float64 of those, without the extra pixel of `compute_mAP`.
 *
 * The source sorts scores unstably; equal scores keep list order here. It prints counts and a line per class, which is left
 * to the caller.
 *
 * @param iouThreshold 0…1 (the notebook's `evaluate()` uses .3)
 * @param options `excludeNotInAnnotations`: the source's `exclude_not_in_annotations`, leaves out predictions of images that
 *   the truths do not name. As those are never visited, this changes a score only where the same id is a number in one table
 *   and a text in the other: the option compares values, all else texts. Default false
 * @throws UserError for a CSV file that cannot be read as such a table
 */
export function meanAveragePrecisionForBoxes(
  annotations: string | readonly BoxAnnotationRow[] | readonly LabelledBoxes[],
  predictions: string | readonly BoxPredictionRow[] | readonly ScoredBoxes[],
  iouThreshold = 0.5,
  { excludeNotInAnnotations = false }: { excludeNotInAnnotations?: boolean } = {},
): BoxMeanAveragePrecision {
  const valid = annotationTable(annotations);
  const preds = predictionTable(predictions);
  const named = new Set(valid.imageIds.values);
  const truths = groupByImageAndLabel(valid);
  const detections = groupByImageAndLabel(
    preds,
    excludeNotInAnnotations ? (row) => named.has(preds.imageIds.values[row]) : undefined,
  );
  const labels = new Set(valid.labels.texts);
  labels.delete(NO_LABEL);
  const perClass: Record<string, ClassAveragePrecision> = {};
  let sum = 0;
  for (const label of [...labels].sort()) {
    const scores: number[] = [];
    const hits: number[] = [];
    let count = 0;
    for (const [imageId, ofImage] of truths) {
      const truth = ofImage.get(label)?.boxes ?? [];
      const detected = detections.get(imageId)?.get(label);
      count += truth.length / 4;
      if (detected !== undefined) {
        for (const score of detected.scores) scores.push(score);
        for (const hit of claimInListOrder(detected.boxes, truth, iouThreshold)) hits.push(hit);
      }
    }
    const recall: number[] = [];
    const precision: number[] = [];
    let found = 0;
    for (const index of orderByScore(scores)) {
      found += hits[index];
      recall.push(found / count);
      precision.push(found / recall.length);
    }
    const ap = envelopeArea(recall, precision);
    perClass[label] = { averagePrecision: ap, annotations: count };
    sum += ap;
  }
  return { mean: labels.size === 0 ? 0 : sum / labels.size, perClass };
}

/** 1 for each detection whose best-overlapping truth passes the threshold and was not claimed before it, else 0. */
function claimInListOrder(detections: readonly number[], truth: readonly number[], iouThreshold: number): number[] {
  const truths = truth.length / 4;
  const iou = pairwiseBoxIou(detections, truth);
  const claimed = new Set<number>();
  return Array.from({ length: detections.length / 4 }, (_, d) => {
    let best = -1;
    for (let t = 0; t < truths; t++) {
      if (best < 0 || iou[d * truths + t] > iou[d * truths + best]) best = t;
    }
    if (best < 0 || iou[d * truths + best] < iouThreshold || claimed.has(best)) return 0;
    claimed.add(best);
    return 1;
  });
}

/** [n, 4] boxes and, for predictions, [n] scores. */
interface ImageClass {
  boxes: number[];
  scores: number[];
}

/** Boxes and scores, in list order, of each image and label; images in order of appearance. */
function groupByImageAndLabel(table: BoxTable, counts: (row: number) => boolean = () => true) {
  const images = new Map<string, Map<string, ImageClass>>();
  table.imageIds.texts.forEach((imageId, row) => {
    if (!counts(row)) return;
    const label = table.labels.texts[row];
    const ofImage: Map<string, ImageClass> = images.get(imageId) ?? new Map();
    const group: ImageClass = ofImage.get(label) ?? { boxes: [], scores: [] };
    images.set(imageId, ofImage);
    ofImage.set(label, group);
    for (let k = 0; k < 4; k++) group.boxes.push(table.boxes[4 * row + k]);
    group.scores.push(table.scores[row]);
  });
  return images;
}

/** What a model kept in one image. */
export interface DetectedBoxes {
  boxes: Float32Array;
  labels: Int32Array;
  scores: Float32Array;
}

/** IoU of the notebook's `evaluate()`, both of its suppression and of its matching. */
export const EVALUATE_IOU = 0.3;

/** The notebook's `apply_nms`: the detections that `nmsForMetrics` keeps, best score first. */
export function applyNms({ boxes, labels, scores }: DetectedBoxes, iouThreshold: number): DetectedBoxes {
  return takeBoxes({ boxes, labels, scores }, nmsForMetrics(boxes, scores, iouThreshold));
}

/** The detections of the given indices, in their order. */
export function takeBoxes({ boxes, labels, scores }: DetectedBoxes, indices: readonly number[]): DetectedBoxes {
  const taken = new Float32Array(4 * indices.length);
  indices.forEach((i, at) => {
    taken.set(boxes.subarray(4 * i, 4 * i + 4), 4 * at);
  });
  return {
    boxes: taken,
    labels: Int32Array.from(indices, (i) => labels[i]),
    scores: Float32Array.from(indices, (i) => scores[i]),
  };
}

/**
 * The box score of the notebook's `evaluate()`: NMS at IoU .3 over all boxes of an image whatever their class
 * (`apply_nms`), then `meanAveragePrecisionForBoxes` at IoU .3.
 *
 * @param annotations truths by image
 * @param predictions every detection the model kept, by image
 */
export function evaluateBoxes(
  annotations: readonly LabelledBoxes[],
  predictions: readonly (DetectedBoxes & { imageId: string })[],
): BoxMeanAveragePrecision {
  const kept = predictions.map((image) => ({ imageId: image.imageId, ...applyNms(image, EVALUATE_IOU) }));
  return meanAveragePrecisionForBoxes(annotations, kept, EVALUATE_IOU);
}
