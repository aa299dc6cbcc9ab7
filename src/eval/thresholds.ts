import type { Detections, Target } from '../data/types.ts';
import { type IouTable, imageIouMap } from './competitionScore.ts';
import { withoutCrowds } from './crowds.ts';
import { type BitMask, maskIou, packCrop, packMasks } from './maskIou.ts';
import { selectInstances } from './selectInstances.ts';

/** What one validation image gives to the metrics; truth masks are packed, 1/8 of their size in `Target`. */
export interface EvaluationSample {
  detections: Detections;
  /** Without crowds. */
  truth: { boxes: Float32Array; labels: Int32Array; masks: BitMask[] };
  /** Masks of the crowds: detections there that find no truth are left out (`withoutCrowds`). Empty for a box-only model. */
  crowds: BitMask[];
  /** Size in pixels of the image the detections and the truth refer to. */
  width: number;
  height: number;
}

/** Thresholds per label; index 0, the background, is never read. */
export interface Thresholds {
  /** An instance is kept when its score is greater. */
  minScore: number[];
  /** A pixel belongs to its instance when its probability is greater. */
  maskThreshold: number[];
}

export interface ThresholdSearchOptions {
  /** Scores to try; default .1, .2, … .9. */
  scores?: readonly number[];
  /** Mask thresholds to try; default .3, .4, … .7. */
  masks?: readonly number[];
  /** Where the search starts; default .5 and .5 for every class. */
  start?: Thresholds;
  /** Rounds over all classes at most; it ends earlier when a round changes nothing. Default 3. */
  maxRounds?: number;
}

/** .5 for scores and masks of every label. */
export function defaultThresholds(numClasses: number): Thresholds {
  return { minScore: Array(numClasses).fill(0.5), maskThreshold: Array(numClasses).fill(0.5) };
}

/**
 * @param width image width in pixels, of both detections and target
 * @throws Error if counts or sizes of the target disagree
 */
export function evaluationSample(
  detections: Detections,
  target: Target,
  width: number,
  height: number,
): EvaluationSample {
  const count = target.labels.length;
  const masks = detections.masks === undefined ? [] : packMasks(target.masks, width, height);
  if (target.boxes.length !== 4 * count || (detections.masks !== undefined && masks.length !== count)) {
    throw new Error(
      `evaluationSample: ${count} labels with ${target.boxes.length / 4} boxes and ${target.masks.length / (width * height)} masks of ${width} × ${height}`,
    );
  }
  const { boxes, labels, iscrowd } = target;
  if (!iscrowd.some(Boolean)) return { detections, truth: { boxes, labels, masks }, crowds: [], width, height };
  const counted = Array.from(labels.keys()).filter((i) => !iscrowd[i]);
  const truth = {
    boxes: Float32Array.from(counted.flatMap((i) => [...boxes.subarray(4 * i, 4 * i + 4)])),
    labels: Int32Array.from(counted, (i) => labels[i]),
    masks: masks.filter((_, i) => !iscrowd[i]),
  };
  return { detections, truth, crowds: masks.filter((_, i) => iscrowd[i]), width, height };
}

/**
 * The competition's view of one image: instances selected by thresholds, overlaps removed, against the truth masks; what lies
 * in a crowd is left out. `labels` are those of the predictions, in the order of the table's rows.
 */
export function selectionTable(sample: EvaluationSample, thresholds: Thresholds): IouTable & { labels: number[] } {
  const { detections, truth, crowds, width, height } = sample;
  const selected = selectInstances(detections, thresholds, width, height);
  const masks = selected.map((instance) => packCrop(instance.mask, 0.5, width, height));
  const flags = [...truth.masks.map(() => 0), ...crowds.map(() => 1)];
  const table = withoutCrowds(maskIou(masks, [...truth.masks, ...crowds], flags), flags, masks.length, 0.5);
  return {
    iou: table.iou,
    predicted: table.detections.length,
    truth: table.truth,
    labels: table.detections.map((d) => selected[d].label),
  };
}

/**
 * Searches per-class score and mask thresholds for the best competition score on validation images (the notebook's
 * authors chose theirs by hand). Because overlaps are removed across classes, the classes depend on each other: the
 * search goes class by class over the whole grid of (score, mask) pairs, the others fixed, until a round changes
 * nothing. Deterministic: a pair replaces the present one only if it scores strictly better, and pairs are tried from
 * the one nearest to the start outwards, so that among equals the least unusual stays.
 *
 * @param samples validation images with raw detections (all that the model kept)
 * @param numClasses classes counted with the background
 * @returns the thresholds and the score they reach (mean over images, 0…1)
 * @throws Error if a sample has no masks (a box-only model)
 */
export function searchThresholds(
  samples: readonly EvaluationSample[],
  numClasses: number,
  options: ThresholdSearchOptions = {},
): Thresholds & { score: number } {
  const scores = options.scores ?? [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
  const masks = options.masks ?? [0.3, 0.4, 0.5, 0.6, 0.7];
  const start = options.start ?? defaultThresholds(numClasses);
  const current: Thresholds = { minScore: [...start.minScore], maskThreshold: [...start.maskThreshold] };
  const images = samples.map((sample) => new ImageScorer(sample, numClasses));
  const scoreOf = (thresholds: Thresholds) => {
    let sum = 0;
    for (const image of images) sum += image.score(thresholds);
    return images.length === 0 ? 0 : sum / images.length;
  };
  let best = scoreOf(current);
  for (let round = 0; round < (options.maxRounds ?? 3); round++) {
    let changed = false;
    for (let label = 1; label < numClasses; label++) {
      const distance = ([score, mask]: readonly [number, number]) =>
        Math.abs(score - start.minScore[label]) + Math.abs(mask - start.maskThreshold[label]);
      const grid = scores
        .flatMap((score) => masks.map((mask) => [score, mask] as const))
        .sort((a, b) => distance(a) - distance(b));
      let chosen: readonly [number, number] = [current.minScore[label], current.maskThreshold[label]];
      for (const pair of grid) {
        [current.minScore[label], current.maskThreshold[label]] = pair;
        const score = scoreOf(current);
        if (score > best) {
          best = score;
          chosen = pair;
          changed = true;
        }
      }
      [current.minScore[label], current.maskThreshold[label]] = chosen;
    }
    if (!changed) break;
  }
  return { ...current, score: best };
}

/**
 * The competition score of one image at given thresholds, remembered: thresholds that keep the same detections of
 * every class at the same mask thresholds give the same score, which spares most of the grid on most images.
 */
class ImageScorer {
  private readonly sample: EvaluationSample;
  private readonly scoresOfLabel: number[][];
  private readonly known = new Map<string, number>();

  constructor(sample: EvaluationSample, numClasses: number) {
    if (sample.detections.masks === undefined) throw new Error('searchThresholds: a box-only model has no masks');
    this.sample = sample;
    this.scoresOfLabel = Array.from({ length: numClasses }, () => []);
    sample.detections.labels.forEach((label, i) => {
      this.scoresOfLabel[label]?.push(sample.detections.scores[i]);
    });
  }

  score(thresholds: Thresholds): number {
    // How many of a class pass tells which ones pass. Where none does, its mask threshold is without effect.
    const key = this.scoresOfLabel
      .map((scores, label) => {
        const kept = scores.filter((score) => score > thresholds.minScore[label]).length;
        return kept === 0 ? '' : `${kept}@${thresholds.maskThreshold[label]}`;
      })
      .join();
    let score = this.known.get(key);
    if (score === undefined) {
      score = imageIouMap(selectionTable(this.sample, thresholds)).score;
      this.known.set(key, score);
    }
    return score;
  }
}
