import type { Detections, Target } from '../data/types.ts';
import { EVALUATE_IOU, meanAveragePrecisionForBoxes } from './boxAveragePrecision.ts';
import { CocoAccumulator, type CocoEvaluation } from './cocoAccumulator.ts';
import { type BoxRecord, computeMAP } from './computeMAP.ts';
import {
  type ClassMatches,
  type CompetitionPart,
  compareImage,
  competitionPart,
  type ImageEvaluation,
  labelsOf,
} from './imageEvaluation.ts';
import { pooledAveragePrecision } from './maskAveragePrecision.ts';
import { defaultThresholds, type EvaluationSample, evaluationSample, type Thresholds } from './thresholds.ts';

/**
 * COCO's twelve numbers (`COCO_STATS`: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl), 0…1, or -1 where no truth
 * defines one. Sizes are in pixels of the images as loaded. Only the 100 best detections of a class count in an image (COCO's
 * `maxDets`), so that an image of more cells than that cannot reach a recall of 1.
 */
export interface CocoStats {
  /** By masks at probability > .5; null for a box-only model. */
  segm: number[] | null;
  bbox: number[];
}

export interface ClassEvaluation {
  /** Class label, 1 … numClasses - 1. */
  label: number;
  /** Truths of the class; crowds are none. */
  instances: number;
  /** Competition score of the class's truths and predictions, over the images that have any; null without masks or such an image. */
  iouMap: number | null;
  /** The notebook's box AP of the class at IoU .3; null for a class without truths. */
  boxMap30: number | null;
  /** Mask AP50 of the class's truths and detections; null without masks or without truths. */
  maskAP50: number | null;
  /** Box AP50 of the class's truths and detections; null without truths. */
  boxAP50: number | null;
  /** COCO's twelve numbers of the class. */
  coco: CocoStats;
}

/** All scores are 0…1. Mask scores are null for a box-only model. */
export interface EvaluationResult {
  /** Competition score of the thresholded, overlap-free masks (`iouMap`). */
  iouMap: number | null;
  /** Box mAP of the notebook's `evaluate()`: NMS .3, IoU .3 (`evaluateBoxes`). */
  boxMap30: number;
  /** The notebook's `compute_mAP` over the same boxes after NMS .3, the background counted as a class (`computeMAP`). */
  computeMAP: number;
  /**
   * Mask AP at IoU >= .5 over all instances without regard to class (`averagePrecision`): of every detection the model kept, its
   * mask binarised at probability > .5 (overlaps stay), at the resolution of the loaded image.
   */
  maskAP50: number | null;
  /** The same by boxes (`pairwiseBoxIou`), without any NMS. */
  boxAP50: number;
  images: number;
  /** Truths of all images; crowds are none. */
  instances: number;
  coco: CocoStats;
  /** One entry for each label 1 … numClasses - 1. */
  perClass: ClassEvaluation[];
  /** Competition score of each image, in the order in which they were added. */
  perImage: { id: string; iouMap: number | null }[];
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

interface EvaluatedImage extends ImageEvaluation {
  id: string;
  competition: CompetitionPart | null;
}

/**
 * Accumulates the detections and truths of a set of images and yields the scores of training and evaluation. Images
 * are those the loader gives (after its resize); masks and boxes of one image refer to the same pixels. What is compared is
 * compared when it is added; of an image stay its boxes and some bytes for each detection, no masks and no tables.
 *
 * Crowds (`Target.iscrowd`) are no truths. COCO's numbers treat them by COCO's own rules (`matchCoco`); for the other scores, a
 * detection of which half or more lies in one crowd is left out unless it overlaps a truth (`withoutCrowds`).
 */
export class Evaluator {
  /** What was added, if `keepSamples`; empty otherwise. */
  readonly samples: EvaluationSample[] = [];
  private readonly numClasses: number;
  private readonly thresholds: Thresholds;
  private readonly keepSamples: boolean;
  private readonly images: EvaluatedImage[] = [];
  private readonly accumulators: { segm: CocoAccumulator; bbox: CocoAccumulator };

  constructor(options: EvaluatorOptions) {
    this.numClasses = options.numClasses;
    this.thresholds = options.thresholds ?? defaultThresholds(options.numClasses);
    this.keepSamples = options.keepSamples ?? false;
    const labels = labelsOf(options.numClasses);
    this.accumulators = { segm: new CocoAccumulator(labels), bbox: new CocoAccumulator(labels) };
  }

  /**
   * @param detections all that the model kept in this image
   * @param width image width in pixels
   * @param height image height in pixels
   * @param id names the image in `perImage`; by default its position in its data set
   * @throws Error if counts or sizes disagree, or if some images come with masks and others without
   */
  add(detections: Detections, target: Target, width: number, height: number, id = String(target.imageId)): void {
    const hasMasks = detections.masks !== undefined;
    if (this.images.length > 0 && hasMasks !== (this.images[0].mask !== null)) {
      throw new Error('Evaluator: all images must come with masks, or none');
    }
    const sample = evaluationSample(detections, target, width, height);
    const { evaluation, coco } = compareImage(detections, target, sample, this.numClasses);
    this.accumulators.bbox.add(coco.bbox);
    if (coco.segm !== null) this.accumulators.segm.add(coco.segm);
    this.images.push({ ...evaluation, id, competition: competitionPart(sample, this.thresholds, this.numClasses) });
    if (this.keepSamples) this.samples.push(sample);
  }

  /** COCO's numbers with their tables of precision and recall. Without masks `segm` is null. */
  cocoEvaluation(): { segm: CocoEvaluation | null; bbox: CocoEvaluation } {
    const hasMasks = this.images.every(({ mask }) => mask !== null);
    return {
      segm: hasMasks ? this.accumulators.segm.evaluation() : null,
      bbox: this.accumulators.bbox.evaluation(),
    };
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
      thresholds === undefined
        ? image
        : { ...image, competition: competitionPart(this.samples[i], thresholds, this.numClasses) },
    );
    // Without any image the set is empty, not without masks.
    const hasMasks = images.every(({ mask }) => mask !== null);
    const boxes = meanAveragePrecisionForBoxes(
      images.map(({ truth }, i) => ({ imageId: String(i), ...truth })),
      images.map(({ suppressed }, i) => ({ imageId: String(i), ...suppressed })),
      EVALUATE_IOU,
    );
    const { segm, bbox } = this.cocoEvaluation();
    return {
      iouMap: hasMasks ? mean(images.map(({ competition }) => competition?.score ?? 0)) : null,
      boxMap30: boxes.mean,
      computeMAP: computeMAP(truthRecords(images), detectionRecords(images), Math.max(1, this.numClasses)).mean,
      maskAP50: hasMasks ? pooledAveragePrecision(images.map(({ mask }) => (mask as ClassMatches).all)) : null,
      boxAP50: pooledAveragePrecision(images.map(({ box }) => box.all)),
      images: images.length,
      instances: images.reduce((sum, { truth }) => sum + truth.labels.length, 0),
      coco: { segm: segm?.stats ?? null, bbox: bbox.stats },
      perClass: labelsOf(this.numClasses).map((label) => ({
        ...classEvaluation(label, images, hasMasks, boxes.perClass[label]?.averagePrecision ?? null),
        coco: { segm: segm?.perClass[label - 1].stats ?? null, bbox: bbox.perClass[label - 1].stats },
      })),
      perImage: images.map(({ id, competition }) => ({ id, iouMap: competition?.score ?? null })),
    };
  }
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** The notebook's list `ground_truth`. */
function truthRecords(images: readonly EvaluatedImage[]): BoxRecord[] {
  return images.flatMap(({ truth: { boxes, labels } }, imageId) =>
    Array.from(labels, (label, i) => ({ imageId, label, box: boxAt(boxes, i), score: 1 })),
  );
}

/** The notebook's list `predictions`: what its `evaluate()` keeps after suppression. */
function detectionRecords(images: readonly EvaluatedImage[]): BoxRecord[] {
  return images.flatMap(({ suppressed: { boxes, labels, scores } }, imageId) =>
    Array.from(labels, (label, i) => ({ imageId, label, box: boxAt(boxes, i), score: scores[i] })),
  );
}

function boxAt(boxes: Float32Array, i: number): BoxRecord['box'] {
  return [boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]];
}

function classEvaluation(
  label: number,
  images: readonly EvaluatedImage[],
  hasMasks: boolean,
  boxMap30: number | null,
): Omit<ClassEvaluation, 'coco'> {
  const box = images.map((image) => image.box.perClass[label - 1]);
  const mask = images.flatMap((image) => image.mask?.perClass[label - 1] ?? []);
  const instances = box.reduce((sum, { truth }) => sum + truth, 0);
  const scores = images.flatMap(({ competition }) => competition?.perClass[label - 1] ?? []);
  return {
    label,
    instances,
    iouMap: scores.length === 0 ? null : mean(scores),
    boxMap30,
    maskAP50: hasMasks && instances > 0 ? pooledAveragePrecision(mask) : null,
    boxAP50: instances > 0 ? pooledAveragePrecision(box) : null,
  };
}
