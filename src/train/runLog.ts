import { appendFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '../data/files.ts';
import { EventFile } from '../report/tensorboard.ts';
import { RUN_FILES } from './run.ts';

/** One line of `metrics.jsonl`: means of the losses by name with their `total`, and the validation scores. */
export interface EpochMetrics {
  epoch: number;
  steps: number;
  lr: number;
  secondsPerStep: number;
  train: Record<string, number>;
  validation: Record<string, number>;
  iouMap: number | null;
  boxMap30: number;
  maskAP50: number | null;
  boxAP50: number;
  /** Of a run in float16: the loss scale at the end of the epoch, and the steps that were left out since the run began. */
  lossScale?: number;
  skippedSteps?: number;
}

/**
 * What a run writes down while it trains: `metrics.jsonl`, a line an epoch, and TensorBoard's event files.
 *
 * All scalars stand over the number of steps done since the run began:
 * - `step/NAME`: losses, their total and the learning rate, each step;
 * - `train/NAME`, `validation/NAME`: mean losses, `scores/NAME`, `epoch/epoch` and `epoch/secondsPerStep`, each epoch; in float16
 *   `epoch/lossScale` and `epoch/skippedSteps`.
 */
export class RunLog {
  readonly #dir: string;
  readonly #firstStep: number;
  #events: EventFile | null = null;

  private constructor(dir: string, firstStep: number) {
    this.#dir = dir;
    this.#firstStep = firstStep;
  }

  /** The log of a new run. */
  static start(dir: string): RunLog {
    writeFileAtomic(join(dir, RUN_FILES.metrics), '');
    return new RunLog(dir, 0);
  }

  /**
   * Goes on after the given epochs and steps (of all epochs). What a killed run wrote beyond them is trained again: its lines of
   * metrics are cut off; its event file stays, and that of this session tells TensorBoard to hide the steps it repeats.
   */
  static resume(dir: string, epochs: number, steps: number): RunLog {
    const path = join(dir, RUN_FILES.metrics);
    const lines = readFileSync(path, 'utf8').split('\n').filter(Boolean).slice(0, epochs);
    writeFileAtomic(path, lines.map((line) => `${line}\n`).join(''));
    return new RunLog(dir, steps + 1);
  }

  /**
   * @param step steps done, this one included
   * @param losses by name
   */
  step(step: number, losses: Readonly<Record<string, number>>, lr: number): void {
    const total = Object.values(losses).reduce((sum, value) => sum + value, 0);
    this.#scalars(step, named('step', { ...losses, total, lr }));
  }

  /** @param step steps done since the run began */
  epoch(step: number, metrics: EpochMetrics): void {
    const { epoch, steps: _, lr: __, secondsPerStep, train, validation, lossScale, skippedSteps, ...scores } = metrics;
    const scaling: Record<string, number> =
      lossScale === undefined || skippedSteps === undefined ? {} : { lossScale, skippedSteps };
    this.#scalars(step, {
      ...named('train', train),
      ...named('validation', validation),
      ...named('scores', scores),
      ...named('epoch', { epoch, secondsPerStep, ...scaling }),
    });
    appendFileSync(join(this.#dir, RUN_FILES.metrics), `${JSON.stringify(metrics)}\n`);
  }

  #scalars(step: number, scalars: Record<string, number>): void {
    // A session that does nothing, because the run has ended already, leaves no file.
    this.#events ??= new EventFile(this.#dir, this.#firstStep);
    this.#events.scalars(step, scalars);
  }
}

/** Values under `group/NAME`; without those that a model does not have. */
function named(group: string, values: Readonly<Record<string, number | null>>): Record<string, number> {
  const known = Object.entries(values).filter((entry): entry is [string, number] => entry[1] !== null);
  return Object.fromEntries(known.map(([name, value]) => [`${group}/${name}`, value]));
}
