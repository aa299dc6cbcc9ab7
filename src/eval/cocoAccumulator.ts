import {
  COCO_AREA_RANGES,
  COCO_IOU_THRESHOLDS,
  COCO_MAX_DETECTIONS,
  type CocoImage,
  type CocoMatches,
  HIT,
  IGNORED,
  linspace,
  matchCoco,
} from './cocoMatching.ts';
import { orderByScore } from './maskAveragePrecision.ts';

/** Recalls at which COCO reads the precision: the doubles of `np.linspace(0, 1, 101)`. */
export const COCO_RECALLS: readonly number[] = linspace(0, 1, 101);

const [T, R, A, M] = [
  COCO_IOU_THRESHOLDS.length,
  COCO_RECALLS.length,
  COCO_AREA_RANGES.length,
  COCO_MAX_DETECTIONS.length,
];

/** One of COCO's twelve numbers: which part of the precision or recall table it is the mean of. */
export interface CocoStat {
  /** AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl. */
  name: string;
  kind: 'precision' | 'recall';
  /** Position in `COCO_IOU_THRESHOLDS`; undefined for the mean over all. */
  threshold?: number;
  /** Position in `COCO_AREA_RANGES`. */
  area: number;
  /** Position in `COCO_MAX_DETECTIONS`. */
  maxDetections: number;
}

/** COCO's twelve numbers in the order of `COCOeval.stats`. */
export const COCO_STATS: readonly CocoStat[] = [
  { name: 'AP', kind: 'precision', area: 0, maxDetections: 2 },
  { name: 'AP50', kind: 'precision', threshold: 0, area: 0, maxDetections: 2 },
  { name: 'AP75', kind: 'precision', threshold: 5, area: 0, maxDetections: 2 },
  { name: 'APs', kind: 'precision', area: 1, maxDetections: 2 },
  { name: 'APm', kind: 'precision', area: 2, maxDetections: 2 },
  { name: 'APl', kind: 'precision', area: 3, maxDetections: 2 },
  { name: 'AR1', kind: 'recall', area: 0, maxDetections: 0 },
  { name: 'AR10', kind: 'recall', area: 0, maxDetections: 1 },
  { name: 'AR100', kind: 'recall', area: 0, maxDetections: 2 },
  { name: 'ARs', kind: 'recall', area: 1, maxDetections: 2 },
  { name: 'ARm', kind: 'recall', area: 2, maxDetections: 2 },
  { name: 'ARl', kind: 'recall', area: 3, maxDetections: 2 },
];

export interface CocoEvaluation {
  /** The twelve numbers of `COCO_STATS`, 0…1; -1 where nothing defines one (no truth of that size, say). */
  stats: number[];
  /** The same of each class alone, in the order the labels were given in. */
  perClass: { label: number; stats: number[] }[];
  /**
   * [IoU thresholds, recalls, classes, area ranges, max detections]: the best precision at this recall or beyond; 0 beyond the
   * recall that was reached, -1 where a class has no truths that count.
   */
  precision: Float64Array;
  /** [IoU thresholds, classes, area ranges, max detections]: the recall that was reached, or -1. */
  recall: Float64Array;
}

/**
 * COCO's average precision and recall over a set of images (pycocotools' `COCOeval`, the twelve numbers that it prints). Images
 * are matched as they are added; what stays of each is a byte for each detection, threshold and area range.
 *
 * Equal scores of different images are ranked in the order in which the images were added (COCO: by rising image id).
 */
export class CocoAccumulator {
  private readonly labels: readonly number[];
  private readonly matches: CocoMatches[][];

  /** @param labels the classes that count; truths and detections of others are left out */
  constructor(labels: readonly number[]) {
    this.labels = labels;
    this.matches = labels.map(() => []);
  }

  add(image: CocoImage): void {
    this.labels.forEach((label, k) => {
      const matches = matchCoco(image, label);
      if (matches !== undefined) this.matches[k].push(matches);
    });
  }

  evaluation(): CocoEvaluation {
    const K = this.labels.length;
    const tables: Tables = {
      precision: new Float64Array(T * R * K * A * M).fill(-1),
      recall: new Float64Array(T * K * A * M).fill(-1),
      classes: K,
    };
    this.matches.forEach((matches, k) => {
      accumulateClass(tables, matches, k);
    });
    const everyClass = this.labels.map((_, k) => k);
    return {
      stats: COCO_STATS.map((stat) => meanOf(tables, stat, everyClass)),
      perClass: this.labels.map((label, k) => ({ label, stats: COCO_STATS.map((stat) => meanOf(tables, stat, [k])) })),
      precision: tables.precision,
      recall: tables.recall,
    };
  }
}

interface Tables {
  precision: Float64Array;
  recall: Float64Array;
  classes: number;
}

const precisionAt = (K: number, t: number, r: number, k: number, a: number, m: number) =>
  (((t * R + r) * K + k) * A + a) * M + m;
const recallAt = (K: number, t: number, k: number, a: number, m: number) => ((t * K + k) * A + a) * M + m;

/** `COCOeval.accumulate` for one class: its detections of all images by falling score, for each maximum, area and threshold. */
function accumulateClass({ precision, recall, classes }: Tables, matches: readonly CocoMatches[], k: number): void {
  if (matches.length === 0) return;
  const scores = new Float64Array(matches.reduce((sum, image) => sum + image.scores.length, 0));
  const imageOf = new Int32Array(scores.length);
  const rankOf = new Int32Array(scores.length);
  let filled = 0;
  matches.forEach((image, index) => {
    for (let rank = 0; rank < image.scores.length; rank++, filled++) {
      scores[filled] = image.scores[rank];
      imageOf[filled] = index;
      rankOf[filled] = rank;
    }
  });
  const pooled = orderByScore(scores);
  COCO_MAX_DETECTIONS.forEach((most, m) => {
    // Leaving out the lower ranks of each image keeps the order of the others, ties included.
    const entries = pooled.filter((entry) => rankOf[entry] < most);
    for (let a = 0; a < A; a++) {
      const truths = matches.reduce((sum, image) => sum + image.truths[a], 0);
      if (truths === 0) continue;
      for (let t = 0; t < T; t++) {
        const curve = new Curve(truths, entries.length);
        for (const entry of entries) {
          const { outcomes, scores } = matches[imageOf[entry]];
          curve.add(outcomes[(a * T + t) * scores.length + rankOf[entry]]);
        }
        recall[recallAt(classes, t, k, a, m)] = curve.reached;
        curve.read((r, value) => {
          precision[precisionAt(classes, t, r, k, a, m)] = value;
        });
      }
    }
  });
}

/** Precision over recall as detections come in by falling score. Ignored ones leave no trace. */
class Curve {
  private readonly truths: number;
  private readonly recall: Float64Array;
  private readonly precision: Float64Array;
  private length = 0;
  private hits = 0;

  constructor(truths: number, most: number) {
    this.truths = truths;
    this.recall = new Float64Array(most);
    this.precision = new Float64Array(most);
  }

  add(outcome: number): void {
    if (outcome === IGNORED) return;
    if (outcome === HIT) this.hits++;
    this.recall[this.length] = this.hits / this.truths;
    this.length++;
    // pycocotools adds np.spacing(1), which takes a last bit from a precision of 1 after a single detection.
    this.precision[this.length - 1] = this.hits / (this.length + Number.EPSILON);
  }

  /** Recall after the last detection. */
  get reached(): number {
    return this.hits / this.truths;
  }

  /** The best precision at or beyond each of `COCO_RECALLS`: at the first point that reaches it (`searchsorted`, left). */
  read(tell: (recall: number, precision: number) => void): void {
    for (let i = this.length - 1; i > 0; i--) {
      if (this.precision[i] > this.precision[i - 1]) this.precision[i - 1] = this.precision[i];
    }
    let at = 0;
    COCO_RECALLS.forEach((wanted, r) => {
      while (at < this.length && this.recall[at] < wanted) at++;
      tell(r, at < this.length ? this.precision[at] : 0);
    });
  }
}

/** `COCOeval.summarize`: the mean of all defined entries that the stat names, or -1. */
function meanOf({ precision, recall, classes }: Tables, stat: CocoStat, among: readonly number[]): number {
  let sum = 0;
  let count = 0;
  const take = (value: number) => {
    if (value > -1) {
      sum += value;
      count++;
    }
  };
  for (let t = stat.threshold ?? 0; t <= (stat.threshold ?? T - 1); t++) {
    for (const k of among) {
      if (stat.kind === 'recall') take(recall[recallAt(classes, t, k, stat.area, stat.maxDetections)]);
      else for (let r = 0; r < R; r++) take(precision[precisionAt(classes, t, r, k, stat.area, stat.maxDetections)]);
    }
  }
  return count === 0 ? -1 : sum / count;
}

/**
 * The curve that COCO's AP is the mean of: precision at the 101 recalls, all areas, 100 detections an image.
 *
 * @param classIndex position among the accumulator's labels
 * @param threshold position in `COCO_IOU_THRESHOLDS`; undefined for the mean over all ten
 * @returns undefined for a class without truths
 */
export function precisionOverRecall(
  { precision, perClass }: CocoEvaluation,
  classIndex: number,
  threshold?: number,
): number[] | undefined {
  const at = (t: number, r: number) => precision[precisionAt(perClass.length, t, r, classIndex, 0, M - 1)];
  if (at(0, 0) < 0) return undefined;
  const thresholds = threshold === undefined ? COCO_IOU_THRESHOLDS.map((_, t) => t) : [threshold];
  return COCO_RECALLS.map((_, r) => thresholds.reduce((sum, t) => sum + at(t, r), 0) / thresholds.length);
}
