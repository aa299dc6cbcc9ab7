import { Loader } from '../data/loader.ts';
import { Random } from '../data/random.ts';
import type { Sample } from '../data/types.ts';
import { GradScaler } from '../kernels/gradScaler.ts';
import type { Run } from './run.ts';
import { trainStep } from './step.ts';
import { type Profile, StepProfile } from './stepProfile.ts';

export interface ProfileOptions {
  mode: 'train' | 'predict';
  /** Steps that are timed, after `warmUp` steps that compile and fill the pool. */
  steps: number;
  warmUp: number;
  progress?: (done: number, total: number) => void;
}

/**
 * Times the kernels of whole steps on a planned and allocated run, always on the same batches. Weights move as in training (by a
 * rate so small that the work of a step stays what it is).
 * @throws Error on a device without timestamp queries
 */
export async function profileRun(run: Run, { mode, steps, warmUp, progress }: ProfileOptions): Promise<Profile> {
  const { model, options } = run;
  const { gpu } = model.device;
  const batches = await firstBatches(run, 2);
  const random = new Random(options.seed + 1);
  const scaler = options.precision === 'f16' && mode === 'train' ? new GradScaler(model.device) : undefined;
  const step = async (index: number): Promise<void> => {
    const batch = batches[index % batches.length];
    if (mode === 'predict') {
      await model.predict(batch.map(({ image }) => image));
      return;
    }
    const { values } = await trainStep(
      model,
      batch,
      { kind: 'random', seed: random.uint32() },
      {
        ...options,
        lr: options.lr * 1e-4,
        scaler,
      },
    );
    await values.data();
    values.dispose();
  };
  const total = warmUp + steps;
  for (let i = 0; i < warmUp; i++) {
    await step(i);
    progress?.(i + 1, total);
  }
  const profile = await StepProfile.start(gpu);
  try {
    for (let i = 0; i < steps; i++) {
      await step(warmUp + i);
      progress?.(warmUp + i + 1, total);
    }
  } catch (error) {
    profile.cancel();
    throw error;
  } finally {
    scaler?.dispose();
  }
  return profile.finish(steps);
}

/** The first batches of the training images, as loaded without changes. */
async function firstBatches({ dataset, split, options }: Run, count: number): Promise<Sample[][]> {
  const loader = new Loader({
    dataset,
    records: split.train.slice(0, count * options.batchSize),
    batchSize: options.batchSize,
    random: options.seed,
    resize: options.resize,
  });
  const batches: Sample[][] = [];
  for await (const batch of loader) batches.push(batch);
  await loader.close();
  return batches;
}
