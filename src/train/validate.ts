import type { Dataset, ImageRecord } from '../data/dataset.ts';
import { type Batch, Loader, type SampleThreads } from '../data/loader.ts';
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
  /** Threads that load the images; by default it starts one of its own. */
  threads?: SampleThreads;
}

/**
 * Scores the model on the validation images as loaded: losses in training form (the sampler's seed is fixed, running
 * statistics do not move) and detections against the truth. Losses are those of batches as in training; images are predicted in
 * batches of `validationBatchSize`, which changes nothing but time and memory where images have one size.
 */
export async function validate(options: ValidationOptions): Promise<Validation> {
  const validation = await validateUnless(() => false, options);
  if (!validation) throw new Error('Validation stopped without being asked to.');
  return validation;
}

/** `validate` for an operation that the user may stop: `stopping` is asked after each batch. @returns null if it was stopped */
export async function validateUnless(
  stopping: () => boolean,
  { model, dataset, records, options, thresholds, progress, threads }: ValidationOptions,
): Promise<Validation | null> {
  const loader = new Loader({
    dataset,
    records,
    batchSize: options.batchSize,
    random: options.seed,
    resize: options.resize,
    workers: threads ?? Math.min(options.workers, 1),
    crowds: true,
  });
  const sampler = new Random(options.seed);
  const meter = new LossMeter();
  const evaluator = new Evaluator({ numClasses: model.config.numClasses, thresholds, keepSamples: true });
  let done = 0;
  let waiting: Batch = [];
  const predict = async (): Promise<void> => {
    const detections = await model.predict(waiting.map(({ image }) => image));
    for (const [i, { image, target }] of waiting.entries()) {
      evaluator.add(detections[i], target, image.width, image.height);
    }
    done += waiting.length;
    progress?.update(done);
    waiting = [];
  };
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
      waiting.push(...batch);
      if (waiting.length >= (options.validationBatchSize ?? options.batchSize)) await predict();
      if (stopping()) return null;
    }
    if (waiting.length > 0) await predict();
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
