import { type Augmentation, augment, NO_AUGMENTATION } from './augmentations.ts';
import { type Dataset, type ImageRecord, type LoadedSample, loadSample } from './dataset.ts';
import { Random } from './random.ts';
import { WorkerPool } from './workerPool.ts';

export interface LoaderOptions {
  dataset: Dataset;
  /** The images to load, e.g. one side of a split; by default all of the data set. */
  records?: readonly ImageRecord[];
  /** Samples of a batch; the last one of an epoch may hold fewer. */
  batchSize: number;
  /** A new random order each epoch; otherwise the order of `records`. */
  shuffle?: boolean;
  /** Draws order and augmentation, at the start of each epoch and at no other time. A number is taken as a seed. */
  random: Random | number;
  /** Random changes of the samples; by default none. */
  augmentation?: Augmentation;
  /** Factor on both sides of every image; undefined for the file's size. */
  resize?: number;
  /** Include crowds (for evaluation), see `loadSample`; default false. */
  crowds?: boolean;
  /** Threads that decode ahead, or threads that loaders share; 0 decodes when the batch is asked for. */
  workers?: number | SampleThreads;
  /** Batches that are decoded ahead by the workers; default 2. */
  prefetch?: number;
}

/** The samples of one step; images may differ in size. */
export type Batch = LoadedSample[];

/** All that a sample depends on: plain data, so that it is the same whichever thread prepares it. */
export interface LoadJob {
  record: ImageRecord;
  resize?: number;
  augmentation: Augmentation;
  crowds?: boolean;
  /** Position of the record in its data set. */
  imageId: number;
  /** Seeds this sample's augmentation. */
  seed: number;
}

/** Threads that load samples, for loaders at one time or after another. Starting them takes longer than loading many a batch. */
export type SampleThreads = WorkerPool<LoadJob, LoadedSample>;

/** Starts threads; `close()` ends them. @param count 1 or more */
export function startSampleThreads(count: number): SampleThreads {
  return new WorkerPool(count, new URL('./loaderWorker.ts', import.meta.url), 'sample loader');
}

/** Loads and augments one sample, in whatever thread. */
export function runLoadJob(job: LoadJob): LoadedSample {
  const sample = loadSample(job.record, job);
  return augment(job.augmentation)(sample, new Random(job.seed));
}

/**
 * Batches of samples, one epoch for each iteration. Order and augmentation are drawn in the calling thread, so batches do not
 * depend on the number of workers or on their speed, and saving the generator between epochs is enough to resume exactly.
 *
 * A sample that cannot be loaded ends the iteration with the UserError that says why. `close()` must be called at the end,
 * or the workers' threads stay.
 */
export class Loader implements AsyncIterable<Batch> {
  private readonly options: LoaderOptions;
  private readonly records: readonly ImageRecord[];
  private readonly positions: ReadonlyMap<ImageRecord, number>;
  private readonly random: Random;
  private readonly pool: SampleThreads | undefined;
  private readonly ownsPool: boolean;
  private readonly dropped = new Map<string, number>();

  constructor(options: LoaderOptions) {
    const { batchSize, workers = 0, prefetch = 2 } = options;
    for (const [name, value, least] of [
      ['batchSize', batchSize, 1],
      ['workers', typeof workers === 'number' ? workers : 1, 0],
      ['prefetch', prefetch, 0],
    ] as const) {
      if (!(Number.isInteger(value) && value >= least)) {
        throw new RangeError(`Loader: ${name} must be a whole number, ${least} or more, got ${value}`);
      }
    }
    this.options = options;
    this.records = options.records ?? options.dataset.images;
    this.positions = new Map(options.dataset.images.map((record, i) => [record, i]));
    this.random = typeof options.random === 'number' ? new Random(options.random) : options.random;
    this.ownsPool = typeof workers === 'number';
    this.pool = typeof workers !== 'number' ? workers : workers > 0 ? startSampleThreads(workers) : undefined;
  }

  /** Batches of an epoch. */
  get length(): number {
    return Math.ceil(this.records.length / this.options.batchSize);
  }

  /** Cells without extent at this size, over all images loaded so far, each image counted once. */
  get droppedCells(): number {
    return [...this.dropped.values()].reduce((sum, count) => sum + count, 0);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, undefined> {
    const jobs = this.drawEpoch();
    const { batchSize, prefetch = 2 } = this.options;
    const ahead = this.pool === undefined ? 0 : prefetch * batchSize;
    const pending: Promise<LoadedSample>[] = [];
    let next = 0;
    try {
      for (let start = 0; start < jobs.length; start += batchSize) {
        const end = Math.min(start + batchSize, jobs.length);
        for (; next < Math.min(end + ahead, jobs.length); next++) {
          const loading = this.load(jobs[next]);
          // Its failure is told when its batch is awaited; until then Node must not take it for one that nobody handles.
          loading.catch(() => undefined);
          pending.push(loading);
        }
        const batch = await Promise.all(pending.splice(0, end - start));
        for (const sample of batch) this.dropped.set(sample.image.id, sample.dropped);
        yield batch;
      }
    } finally {
      this.pool?.forget(jobs);
    }
  }

  /** Ends the threads, unless they are shared; an iteration that still runs then fails. */
  async close(): Promise<void> {
    if (this.ownsPool) await this.pool?.close();
  }

  private drawEpoch(): LoadJob[] {
    const { resize, crowds, shuffle = false, augmentation = NO_AUGMENTATION } = this.options;
    const count = this.records.length;
    const order = shuffle ? this.random.permutation(count) : Int32Array.from({ length: count }, (_, i) => i);
    return Array.from(order, (i) => {
      const record = this.records[i];
      const imageId = this.positions.get(record) ?? i;
      return { record, imageId, resize, crowds, augmentation, seed: this.random.uint32() };
    });
  }

  private async load(job: LoadJob): Promise<LoadedSample> {
    return this.pool === undefined ? runLoadJob(job) : this.pool.run(job);
  }
}
