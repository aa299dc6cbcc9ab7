import { Worker } from 'node:worker_threads';
import { UserError } from '../cli/errors.ts';
import { type Dataset, type ImageRecord, type LoadedSample, loadSample } from './dataset.ts';
import { Random } from './random.ts';
import { compose, horizontalFlip, verticalFlip } from './transforms.ts';

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
  /** Probability 0…1 of a horizontal flip; default 0. */
  hflip?: number;
  /** Probability 0…1 of a vertical flip; default 0. */
  vflip?: number;
  /** Factor on both sides of every image; undefined for the file's size. */
  resize?: number;
  /** Include crowds (for evaluation), see `loadSample`; default false. */
  crowds?: boolean;
  /** Threads that decode ahead; 0 decodes when the batch is asked for. */
  workers?: number;
  /** Batches that are decoded ahead by the workers; default 2. */
  prefetch?: number;
}

/** The samples of one step; images may differ in size. */
export type Batch = LoadedSample[];

/** All that a sample depends on: plain data, so that it is the same whichever thread prepares it. */
export interface LoadJob {
  record: ImageRecord;
  resize?: number;
  crowds?: boolean;
  hflip: number;
  vflip: number;
  /** Position of the record in its data set. */
  imageId: number;
  /** Seeds this sample's augmentation. */
  seed: number;
}

/** What a worker answers; errors cross the threads as plain data. */
export type LoadReply =
  | { sample: LoadedSample }
  | { error: { message: string; stack?: string /** Set for a UserError. */; exitCode?: number } };

/** Loads and augments one sample, in whatever thread. */
export function runLoadJob(job: LoadJob): LoadedSample {
  const sample = loadSample(job.record, job);
  return compose(horizontalFlip(job.hflip), verticalFlip(job.vflip))(sample, new Random(job.seed));
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
  private readonly pool: WorkerPool | undefined;
  private readonly dropped = new Map<string, number>();

  constructor(options: LoaderOptions) {
    const { batchSize, workers = 0, prefetch = 2 } = options;
    for (const [name, value, least] of [
      ['batchSize', batchSize, 1],
      ['workers', workers, 0],
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
    this.pool = workers > 0 ? new WorkerPool(workers) : undefined;
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

  /** Ends the workers' threads; an iteration that still runs fails. */
  async close(): Promise<void> {
    await this.pool?.close();
  }

  private drawEpoch(): LoadJob[] {
    const { resize, crowds, shuffle = false, hflip = 0, vflip = 0 } = this.options;
    const count = this.records.length;
    const order = shuffle ? this.random.permutation(count) : Int32Array.from({ length: count }, (_, i) => i);
    return Array.from(order, (i) => {
      const record = this.records[i];
      const imageId = this.positions.get(record) ?? i;
      return { record, imageId, resize, crowds, hflip, vflip, seed: this.random.uint32() };
    });
  }

  private async load(job: LoadJob): Promise<LoadedSample> {
    return this.pool === undefined ? runLoadJob(job) : this.pool.run(job);
  }
}

interface QueuedJob {
  job: LoadJob;
  resolve(sample: LoadedSample): void;
  reject(error: Error): void;
}

/** Threads that take jobs in order, one at a time each. Idle ones do not keep the process alive. */
class WorkerPool {
  private readonly busy = new Map<Worker, QueuedJob>();
  private idle: Worker[];
  private queue: QueuedJob[] = [];
  /** Why no job can be taken any more. */
  private ended: Error | undefined;
  private readonly workers: Worker[];

  constructor(count: number) {
    this.workers = Array.from({ length: count }, () => this.start());
    this.idle = [...this.workers];
  }

  run(job: LoadJob): Promise<LoadedSample> {
    if (this.ended !== undefined) return Promise.reject(this.ended);
    return new Promise((resolve, reject) => {
      this.queue.push({ job, resolve, reject });
      this.dispatch();
    });
  }

  /** Takes jobs that no worker has begun out of the queue; what they promised stays open. */
  forget(jobs: readonly LoadJob[]): void {
    const gone = new Set(jobs);
    this.queue = this.queue.filter(({ job }) => !gone.has(job));
  }

  async close(): Promise<void> {
    this.fail(new Error('the loader was closed while it was loading'));
    await Promise.all(this.workers.map((worker) => worker.terminate()));
  }

  private start(): Worker {
    // On Node 20 a worker does not inherit tsx's hooks, not even by execArgv, so it registers them itself before the
    // TypeScript file is imported.
    const hooks = JSON.stringify(import.meta.resolve('tsx/esm/api'));
    const file = JSON.stringify(new URL('./loaderWorker.ts', import.meta.url).href);
    const code = `import(${hooks}).then(({ register }) => { register(); return import(${file}); });`;
    const worker = new Worker(code, { eval: true, execArgv: [], name: 'sample loader' });
    worker.on('message', (reply: LoadReply) => this.settle(worker, reply));
    worker.on('error', (error) => this.fail(error instanceof Error ? error : new Error(String(error))));
    worker.on('exit', (code) => this.fail(new Error(`a loading thread ended with code ${code}`)));
    worker.unref();
    return worker;
  }

  private dispatch(): void {
    while (this.queue.length > 0 && this.idle.length > 0) {
      const worker = this.idle.shift() as Worker;
      const queued = this.queue.shift() as QueuedJob;
      this.busy.set(worker, queued);
      worker.ref();
      worker.postMessage(queued.job);
    }
  }

  private settle(worker: Worker, reply: LoadReply): void {
    const queued = this.busy.get(worker);
    if (queued === undefined) return; // the pool has failed meanwhile, and with it this job
    this.busy.delete(worker);
    worker.unref();
    this.idle.push(worker);
    if ('sample' in reply) queued.resolve(reply.sample);
    else queued.reject(rebuildError(reply.error));
    this.dispatch();
  }

  private fail(error: Error): void {
    this.ended ??= error;
    const open = [...this.busy.values(), ...this.queue];
    this.busy.clear();
    this.queue = [];
    for (const { reject } of open) reject(this.ended);
  }
}

function rebuildError({ message, stack, exitCode }: Extract<LoadReply, { error: unknown }>['error']): Error {
  if (exitCode !== undefined) return new UserError(message, exitCode);
  const error = new Error(message);
  if (stack !== undefined) error.stack = stack;
  return error;
}
