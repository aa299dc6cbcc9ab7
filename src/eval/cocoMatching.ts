import { orderByScore } from './maskAveragePrecision.ts';

/**
 * IoU thresholds of COCO, .50 to .95: the doubles of `np.linspace(.5, .95, 10)`, of which some differ in the last bit from the
 * decimal they stand for; a pair whose IoU is exactly a threshold falls as in pycocotools only with the same ones.
 */
export const COCO_IOU_THRESHOLDS: readonly number[] = linspace(0.5, 0.95, 10);

/** Detections per image and class that count, best first: COCO's `maxDets`. */
export const COCO_MAX_DETECTIONS: readonly number[] = [1, 10, 100];

/** COCO's area ranges in pixels, both ends included: a region of exactly 32² pixels is small and medium. */
export const COCO_AREA_RANGES: readonly { name: 'all' | 'small' | 'medium' | 'large'; from: number; to: number }[] = [
  { name: 'all', from: 0, to: 1e5 ** 2 },
  { name: 'small', from: 0, to: 32 ** 2 },
  { name: 'medium', from: 32 ** 2, to: 96 ** 2 },
  { name: 'large', from: 96 ** 2, to: 1e5 ** 2 },
];

/** numpy's `linspace` with both ends: multiples of the step, except that the last value is `to` itself. */
export function linspace(from: number, to: number, count: number): number[] {
  const step = (to - from) / (count - 1);
  return Array.from({ length: count }, (_, i) => (i === count - 1 ? to : i * step + from));
}

/** The truths of one image, in the order of the data set. */
export interface CocoTruths {
  /** [n] class labels. */
  labels: ArrayLike<number>;
  /** [n] pixels; decides the area range. */
  areas: ArrayLike<number>;
  /** [n] not 0 for a crowd: a region that detections may hit any number of times without being counted. */
  crowds: ArrayLike<number>;
  /**
   * [n] not 0 where a detection that takes this truth is counted as if it had found nothing. `COCOeval` does so with annotations
   * whose id is 0, because it stores the id as the match; see `evaluateCoco`.
   */
  unmatchable?: ArrayLike<number>;
}

/** The detections of one image, in any order. */
export interface CocoDetections {
  labels: ArrayLike<number>;
  scores: ArrayLike<number>;
  /** [n] pixels; a detection without a truth counts only in the area ranges that hold its area. */
  areas: ArrayLike<number>;
}

export interface CocoImage {
  truths: CocoTruths;
  detections: CocoDetections;
  /**
   * IoU of some detections with some truths of the image, [detections, truths] row-major; with a crowd it is the share of the
   * detection's area that lies inside the crowd instead.
   */
  overlap(detections: readonly number[], truths: readonly number[]): Float64Array;
}

/** What a detection is at one IoU threshold and area range. */
export const MISS = 0;
export const HIT = 1;
/** It met a crowd or a truth outside the area range, or it met nothing and lies outside the range itself. */
export const IGNORED = 2;

/** One image's detections of one class against its truths. */
export interface CocoMatches {
  /** At most 100, best first. */
  scores: Float64Array;
  /** [area ranges, IoU thresholds, detections] MISS, HIT or IGNORED. */
  outcomes: Uint8Array;
  /** [area ranges] truths that are neither crowds nor outside the range. */
  truths: number[];
}

/**
 * Matches one class of one image as `COCOeval.evaluateImg` (pycocotools/cocoeval.py): the 100 best detections by falling score
 * (equal scores keep their order) take, each in turn, the free truth with the largest IoU that is at least the threshold.
 *
 * Quirks kept: of equal IoUs the *last* truth is taken; a truth inside the area range goes before any that is ignored, whatever
 * their IoUs; a crowd is never used up, an ignored truth that is no crowd is.
 *
 * @returns undefined for an image that has neither truths nor detections of the class
 */
export function matchCoco(image: CocoImage, label: number): CocoMatches | undefined {
  const { truths, detections } = image;
  const truth = indicesOf(truths.labels, label);
  const ofClass = indicesOf(detections.labels, label);
  if (truth.length === 0 && ofClass.length === 0) return undefined;
  const scoreOf = (i: number) => detections.scores[i];
  const detected = orderByScore(ofClass.map(scoreOf))
    .slice(0, COCO_MAX_DETECTIONS[COCO_MAX_DETECTIONS.length - 1])
    .map((at) => ofClass[at]);
  const candidates = candidatesOf(image, detected, truth);
  const count = detected.length;
  const outcomes = new Uint8Array(COCO_AREA_RANGES.length * COCO_IOU_THRESHOLDS.length * count);
  const counted: number[] = [];
  const taken = new Uint8Array(truth.length);
  let at = 0;
  for (const { from, to } of COCO_AREA_RANGES) {
    const outside = (area: number) => area < from || area > to;
    const ignored = truth.map((t) => Boolean(truths.crowds[t]) || outside(truths.areas[t]));
    counted.push(ignored.filter((value) => !value).length);
    const mayTake = (t: number) => taken[t] === 0 || Boolean(truths.crowds[truth[t]]);
    for (const threshold of COCO_IOU_THRESHOLDS) {
      taken.fill(0);
      for (let d = 0; d < count; d++) {
        const best = bestCandidate(candidates[d], threshold, ignored, mayTake);
        if (best >= 0) taken[best] = 1;
        const found = best >= 0 && !truths.unmatchable?.[truth[best]];
        if ((best >= 0 && ignored[best]) || (!found && outside(detections.areas[detected[d]]))) {
          outcomes[at + d] = IGNORED;
        } else if (found) outcomes[at + d] = HIT;
      }
      at += count;
    }
  }
  return { scores: Float64Array.from(detected, scoreOf), outcomes, truths: counted };
}

interface Candidates {
  /** Positions among the class's truths, in their order. */
  truths: number[];
  ious: number[];
}

/** For each detection the truths that pass the lowest threshold: few, so that the forty passes over them cost little. */
function candidatesOf(image: CocoImage, detected: readonly number[], truth: readonly number[]): Candidates[] {
  const iou = detected.length > 0 && truth.length > 0 ? image.overlap(detected, truth) : new Float64Array(0);
  return detected.map((_, d) => {
    const found: Candidates = { truths: [], ious: [] };
    for (let t = 0; t < truth.length; t++) {
      const value = iou[d * truth.length + t];
      if (value >= COCO_IOU_THRESHOLDS[0]) {
        found.truths.push(t);
        found.ious.push(value);
      }
    }
    return found;
  });
}

/** The candidate a detection takes, or -1: first among those that count, then among the ignored ones. */
function bestCandidate(
  { truths, ious }: Candidates,
  threshold: number,
  ignored: readonly boolean[],
  mayTake: (truth: number) => boolean,
): number {
  for (const wanted of [false, true]) {
    let best = -1;
    let least = threshold;
    for (let i = 0; i < truths.length; i++) {
      if (ignored[truths[i]] !== wanted || ious[i] < least || !mayTake(truths[i])) continue;
      least = ious[i];
      best = truths[i];
    }
    if (best >= 0) return best;
  }
  return -1;
}

function indicesOf(labels: ArrayLike<number>, label: number): number[] {
  const found: number[] = [];
  for (let i = 0; i < labels.length; i++) if (labels[i] === label) found.push(i);
  return found;
}
