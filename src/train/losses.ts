import { UserError } from '../cli/errors.ts';
import type { StepLosses } from './step.ts';

/** A loss that is no number: the step's losses and images are named, and the process ends with 3. */
export class NonFiniteLossError extends UserError {
  constructor(losses: Record<string, number>, imageIds: readonly string[]) {
    const bad = Object.keys(losses).filter((name) => !Number.isFinite(losses[name]));
    const all = Object.entries(losses).map(([name, value]) => `${name} ${value}`);
    super(
      `Training stopped: ${bad.join(', ')} is not finite on the images ${imageIds.join(', ')} (${all.join(', ')}); try a lower --lr or --clip-norm. The last checkpoint is kept.`,
      3,
    );
  }
}

/** Losses are finite, but their gradients stay infinite however small the loss scale: the process ends with 3. */
export class NonFiniteGradientError extends UserError {
  constructor(scale: number) {
    super(
      `Training stopped: gradients are not finite in float16 even at a loss scale of ${scale}; try --precision f32, a lower --lr or --clip-norm. The last checkpoint is kept.`,
      3,
    );
  }
}

/** Reads a step's losses and frees them. @throws NonFiniteLossError */
export async function readLosses(
  { names, values }: StepLosses,
  imageIds: readonly string[],
): Promise<Record<string, number>> {
  try {
    const data = await values.floats();
    const losses = Object.fromEntries(names.map((name, i) => [name, data[i]]));
    if (!data.every(Number.isFinite)) throw new NonFiniteLossError(losses, imageIds);
    return losses;
  } finally {
    values.dispose();
  }
}

/** Running means of losses by name, with their total. */
export class LossMeter {
  readonly sums: Record<string, number>;
  #count: number;

  constructor(sums: Record<string, number> = {}, count = 0) {
    this.sums = { ...sums };
    this.#count = count;
  }

  add(losses: Record<string, number>): void {
    for (const [name, value] of Object.entries(losses)) this.sums[name] = (this.sums[name] ?? 0) + value;
    this.#count++;
  }

  /** Mean of each loss over the steps, and of their sum as `total`. */
  means(): Record<string, number> {
    const means = Object.fromEntries(
      Object.entries(this.sums).map(([name, sum]) => [name, sum / Math.max(this.#count, 1)]),
    );
    return { ...means, total: Object.values(means).reduce((sum, value) => sum + value, 0) };
  }
}
