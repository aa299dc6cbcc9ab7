import { Loader } from '../data/loader.ts';
import { Random } from '../data/random.ts';
import type { Sample } from '../data/types.ts';
import { busyMs, Profiler, type Span } from '../gpu/profiler.ts';
import type { Run } from './run.ts';
import { trainStep } from './step.ts';

export interface ProfileOptions {
  mode: 'train' | 'predict';
  /** Steps that are timed, after `warmUp` steps that compile and fill the pool. */
  steps: number;
  warmUp: number;
  progress?: (done: number, total: number) => void;
}

export interface Profile {
  spans: Span[];
  /** Milliseconds of the timed steps: by the host's clock, and in which the device was inside kernels. */
  wallMs: number;
  busyMs: number;
  /** Readbacks and dispatches of a step. */
  readbacks: number;
  dispatches: number;
  /** Bytes in use within the last step at its end, by tag, and buffers created by the timed steps. */
  byTag: Record<string, number>;
  held: number;
  created: number;
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
  await gpu.sync();
  const profiler = new Profiler(gpu.device);
  gpu.profileWith(profiler);
  try {
    const before = gpu.counters();
    const started = performance.now();
    for (let i = 0; i < steps; i++) {
      await step(warmUp + i);
      progress?.(warmUp + i + 1, total);
    }
    await gpu.sync();
    const wallMs = performance.now() - started;
    const after = gpu.counters();
    const spans = await profiler.collect(gpu);
    return {
      spans,
      wallMs,
      busyMs: busyMs(spans),
      readbacks: (after.readbacks - before.readbacks) / steps,
      dispatches: (after.dispatches - before.dispatches) / steps,
      byTag: after.byTag,
      held: after.held,
      created: after.created - before.created,
    };
  } finally {
    gpu.profileWith(null);
    profiler.destroy();
  }
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
