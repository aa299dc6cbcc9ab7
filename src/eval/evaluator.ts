import type { Detections, Target } from '../data/types.ts';
import { boxAP50, evaluateBoxes, type LabelledBoxes, pairwiseBoxIou, type ScoredBoxes } from './boxAveragePrecision.ts';
import { type IouTable, iouMap } from './competitionScore.ts';
import { maskAP50, type ScoredIouTable } from './maskAveragePrecision.ts';
import { iouOfClass, maskIou, packCrop } from './maskIou.ts';
import {
  defaultThresholds,
  type EvaluationSample,
  evaluationSample,
  selectionTable,
  type Thresholds,
} from './thresholds.ts';

export interface ClassEvaluation {
  /** Class label, 1 … numClasses - 1. */
  label: number;
  /** Truths of the class. */
  instances: number;
  /** Competition score of the class's truths and predictions, over the images that have any; null without masks or such an image. */
  iouMap: number | null;
  /** The notebook's box AP of the class at IoU .3; null for a class without truths. */
  boxMap30: number | null;
  /** Mask AP50 of the class's truths and detections; null without masks or without truths. */
  maskAP50: number | null;
  /** Box AP50 of the class's truths and detections; null without truths. */
  boxAP50: number | null;
}

/** All scores are 0…1. Mask scores are null for a box-only model. */
export interface EvaluationResult {
  /** Competition score of the thresholded, overlap-free masks (`iouMap`). */
  iouMap: number | null;
  /** Box mAP of the notebook's `evaluate()`: NMS .3, IoU .3 (`evaluateBoxes`). */
  boxMap30: number;
  /** Mask AP at IoU .5 over all instances without regard to class (`maskAP50`). */
  maskAP50: number | null;
  /** Box AP at IoU .5 over all instances without regard to class (`boxAP50`). */
  boxAP50: number;
  images: number;
  /** Truths of all images. */
  instances: number;
  /** One entry for each label 1 … numClasses - 1. */
  perClass: ClassEvaluation[];
}

export interface EvaluatorOptions {
  /** Classes counted with the background. */
  numClasses: number;
  /** Selects instances for the competition score; default .5 and .5 for every class. */
  thresholds?: Thresholds;
  /**
   * Keep detections (with their mask crops) and packed truths in `samples`, for `searchThresholds` and for
   * `compute(thresholds)`. Off by default: thousands of images would not fit in memory.
   */
  keepSamples?: boolean;
}

interface ImageTables {
  truthLabels: Int32Array;
  truthBoxes: LabelledBoxes;
  detected: ScoredBoxes & { boxes: Float32Array; labels: Int32Array; scores: Float32Array };
  boxIou: Float64Array;
  /** IoU of all detections' masks at probability > .5; null for a box-only model. */
  maskIou: Float64Array | null;
  selection: (IouTable & { labels: number[] }) | null;
}

/**
 * Accumulates the detections and truths of a set of images and yields the scores of training and evaluation. Images
 * are those the loader gives (after its resize); masks and boxes of one image refer to the same pixels.
 */
export class Evaluator {
  /** What was added, if `keepSamples`; empty otherwise. */
  readonly samples: EvaluationSample[] = [];
  private readonly numClasses: number;
  private readonly thresholds: Thresholds;
  private readonly keepSamples: boolean;
  private readonly images: ImageTables[] = [];

  constructor(options: EvaluatorOptions) {
    this.numClasses = options.numClasses;
    this.thresholds = options.thresholds ?? defaultThresholds(options.numClasses);
    this.keepSamples = options.keepSamples ?? false;
  }

  /**
   * @param detections all that the model kept in this image
   * @param width image width in pixels
   * @param height image height in pixels
   * @throws Error if counts or sizes disagree, or if some images come with masks and others without
   */
  add(detections: Detections, target: Target, width: number, height: number): void {
    const hasMasks = detections.masks !== undefined;
    if (this.images.length > 0 && hasMasks !== (this.images[0].maskIou !== null)) {
      throw new Error('Evaluator: all images must come with masks, or none');
    }
    const sample = evaluationSample(detections, target, width, height);
    const imageId = String(this.images.length);
    const { boxes, labels, scores, masks } = detections;
    this.images.push({
      truthLabels: target.labels,
      truthBoxes: { imageId, boxes: target.boxes, labels: target.labels },
      detected: { imageId, boxes, labels, scores },
      boxIou: pairwiseBoxIou(boxes, target.boxes),
      maskIou:
        masks === undefined
          ? null
          : maskIou(
              masks.map((crop) => packCrop(crop, 0.5, width, height)),
              sample.truth.masks,
            ),
      selection: hasMasks ? selectionTable(sample, this.thresholds) : null,
    });
    if (this.keepSamples) this.samples.push(sample);
  }

  /**
   * @param thresholds replaces those of the constructor for the competition score (those that `searchThresholds`
   *   found, say); needs `keepSamples`
   */
  compute(thresholds?: Thresholds): EvaluationResult {
    if (thresholds !== undefined && !this.keepSamples) {
      throw new Error('Evaluator: compute(thresholds) needs keepSamples');
    }
    const images = this.images.map((image, i) =>
      thresholds === undefined || image.selection === null
        ? image
        : { ...image, selection: selectionTable(this.samples[i], thresholds) },
    );
    const boxes = evaluateBoxes(
      images.map((image) => image.truthBoxes),
      images.map((image) => image.detected),
    );
    const boxTables = images.map((image) => scoredTable(image, image.boxIou));
    const masks = masksOf(images);
    return {
      iouMap: masks === null ? null : iouMap(masks.map((image) => image.selection)).score,
      boxMap30: boxes.mean,
      maskAP50: masks === null ? null : maskAP50(masks.map((image) => scoredTable(image, image.maskIou))),
      boxAP50: boxAP50(boxTables),
      images: images.length,
      instances: images.reduce((sum, image) => sum + image.truthLabels.length, 0),
      perClass: Array.from({ length: Math.max(0, this.numClasses - 1) }, (_, i) =>
        classEvaluation(i + 1, images, boxes.perClass[i + 1]?.averagePrecision ?? null),
      ),
    };
  }
}

type MaskTables = ImageTables & { maskIou: Float64Array; selection: IouTable & { labels: number[] } };

/** The images' tables with masks, or null for a box-only model. Without any image the sets are empty, not missing. */
function masksOf(images: readonly ImageTables[]): MaskTables[] | null {
  const withMasks = images.filter((image): image is MaskTables => image.maskIou !== null && image.selection !== null);
  return withMasks.length === images.length ? withMasks : null;
}

function scoredTable(image: ImageTables, iou: Float64Array): ScoredIouTable {
  return { iou, scores: image.detected.scores, truth: image.truthLabels.length };
}

function classEvaluation(label: number, images: readonly ImageTables[], boxMap30: number | null): ClassEvaluation {
  const ofClass = (image: ImageTables, iou: Float64Array): ScoredIouTable => {
    const part = iouOfClass(iou, image.detected.labels, image.truthLabels, label);
    return { iou: part.iou, scores: part.predicted.map((d) => image.detected.scores[d]), truth: part.truth.length };
  };
  const boxTables = images.map((image) => ofClass(image, image.boxIou));
  const instances = boxTables.reduce((sum, table) => sum + table.truth, 0);
  const masks = masksOf(images);
  const selections = (masks ?? [])
    .map(({ selection, truthLabels }) => {
      const part = iouOfClass(selection.iou, selection.labels, truthLabels, label);
      return { iou: part.iou, predicted: part.predicted.length, truth: part.truth.length };
    })
    .filter((table) => table.predicted + table.truth > 0);
  return {
    label,
    instances,
    iouMap: selections.length === 0 ? null : iouMap(selections).score,
    boxMap30,
    maskAP50: masks === null || instances === 0 ? null : maskAP50(masks.map((image) => ofClass(image, image.maskIou))),
    boxAP50: instances === 0 ? null : boxAP50(boxTables),
  };
}
