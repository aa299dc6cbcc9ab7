import type { TrainOptions } from './options.ts';

/** The learning rate starts warm-up at this share of its value (torchvision's detection reference). */
const WARMUP_START = 1 / 1000;

/**
 * The learning rate of a step (0 … totalSteps - 1): linear warm-up, StepLR by epochs, and a last stretch at a lower rate.
 * Source: torch's LinearLR and StepLR, torchvision's `references/detection/engine.py`.
 */
export function learningRate(
  step: number,
  stepsPerEpoch: number,
  { lr, epochs, warmupSteps, stepLr, finalDecay }: TrainOptions,
): number {
  let rate = lr;
  if (step < warmupSteps) rate *= WARMUP_START + (1 - WARMUP_START) * (step / warmupSteps);
  if (stepLr) rate *= stepLr.gamma ** Math.floor(Math.floor(step / stepsPerEpoch) / stepLr.size);
  if (finalDecay && step >= Math.round(epochs * stepsPerEpoch * (1 - finalDecay.share))) rate *= finalDecay.factor;
  return rate;
}
