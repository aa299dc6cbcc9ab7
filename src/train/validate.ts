import type { Dataset, ImageRecord } from '../data/dataset.ts';
import { Loader } from '../data/loader.ts';
import { Random } from '../data/random.ts';
import { withoutCrowds } from '../data/target.ts';
import { type EvaluationResult, Evaluator } from '../eval/evaluator.ts';
import { searchThresholds, type Thresholds } from '../eval/thresholds.ts';
import type { MaskRCNN } from '../model/maskRcnn.ts';
import { LossMeter, readLosses } from './losses.ts';
import type { TrainOptions } from './options.ts';
import type { Progress } from './progress.ts';
import { validationLosses } from './step.ts';

export interface Validation {
  /** Means of the losses and their total. */
  losses: Record<string, number>;
  scores: EvaluationResult;
  evaluator: Evaluator;
}

export interface ValidationOptions {
  model: MaskRCNN;
  dataset: Dataset;
  records: readonly ImageRecord[];
  options: TrainOptions;
  thresholds: Thresholds;
  progress?: Progress;
}

/**
 * Scores the model on the validation images as loaded: losses in training form (the sampler's seed is fixed, running
 * statistics do not move) and detections against the truth.
 */
export async function validate(options: ValidationOptions): Promise<Validation> {
  const validation = await validateUnless(() => false, options);
  if (!validation) throw new Error('Validation stopped without being asked to.');
  return validation;
}

/** `validate` for an operation that the user may stop: `stopping` is asked after each batch. @returns null if it was stopped */
export async function validateUnless(
  stopping: () => boolean,
  { model, dataset, records, options, thresholds, progress }: ValidationOptions,
): Promise<Validation | null> {
  const loader = new Loader({
    dataset,
    records,
    batchSize: options.batchSize,
    random: options.seed,
    resize: options.resize,
    workers: Math.min(options.workers, 1),
    crowds: true,
  });
  const sampler = new Random(options.seed);
  const meter = new LossMeter();
  const evaluator = new Evaluator({ numClasses: model.config.numClasses, thresholds, keepSamples: true });
  let done = 0;
  try {
    for await (const batch of loader) {
      const cells = batch.map((sample) => ({ ...sample, target: withoutCrowds(sample.target) }));
      const losses = await validationLosses(model, cells, { kind: 'random', seed: sampler.uint32() });
      meter.add(
        await readLosses(
          losses,
          batch.map(({ image }) => image.id),
        ),
      );
      const detections = await model.predict(batch.map(({ image }) => image));
      for (const [i, { image, target }] of batch.entries()) {
        evaluator.add(detections[i], target, image.width, image.height);
      }
      done += batch.length;
      progress?.update(done);
      if (stopping()) return null;
    }
  } finally {
    await loader.close();
  }
  return { losses: meter.means(), scores: evaluator.compute(), evaluator };
}

/** Thresholds of a small grid that score best on what the evaluator has seen; the given ones for a box-only model. */
export function tunedThresholds(evaluator: Evaluator, numClasses: number, fallback: Thresholds): Thresholds {
  if (evaluator.samples.some(({ detections }) => detections.masks === undefined)) return fallback;
  const { minScore, maskThreshold } = searchThresholds(evaluator.samples, numClasses, {
    scores: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    masks: [0.4, 0.5, 0.6],
  });
  return { minScore, maskThreshold };
}
