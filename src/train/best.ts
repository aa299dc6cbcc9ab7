import type { EvaluationResult } from '../eval/evaluator.ts';

/** How one epoch did on the validation images. */
export interface EpochScore {
  epoch: number;
  /** Competition score; for a box-only model, which has none, the notebook's box mAP (`boxMap30`). */
  iouMap: number;
  /** Mask AP50; box AP50 for a box-only model. */
  maskAP50: number;
  validationLoss: number;
}

/** What decides between epochs. */
export function epochScore(
  epoch: number,
  { iouMap, boxMap30, maskAP50, boxAP50 }: Pick<EvaluationResult, 'iouMap' | 'boxMap30' | 'maskAP50' | 'boxAP50'>,
  validationLoss: number,
): EpochScore {
  return { epoch, iouMap: iouMap ?? boxMap30, maskAP50: maskAP50 ?? boxAP50, validationLoss };
}

/** True if `a` beats `b`: by competition score, then mask AP50, then validation loss; the earlier of equals stays. */
export function isBetter(a: EpochScore, b: EpochScore | null): boolean {
  if (!b) return true;
  if (a.iouMap !== b.iouMap) return a.iouMap > b.iouMap;
  if (a.maskAP50 !== b.maskAP50) return a.maskAP50 > b.maskAP50;
  return a.validationLoss < b.validationLoss;
}

/** What `select` can go by. */
export const epochMetrics = ['iouMap', 'maskAP50', 'boxMap30', 'boxAP50'] as const;
export type EpochMetric = (typeof epochMetrics)[number];

/** An epoch that was scored again. */
export interface EpochResult {
  score: EpochScore;
  scores: EvaluationResult;
}

/** True if `a` beats `b` by one metric, of equals by `isBetter`. */
export function isBetterBy(metric: EpochMetric, a: EpochResult, b: EpochResult | null): boolean {
  if (!b) return true;
  const [mine, other] = [a.scores[metric] ?? 0, b.scores[metric] ?? 0];
  return mine === other ? isBetter(a.score, b.score) : mine > other;
}
