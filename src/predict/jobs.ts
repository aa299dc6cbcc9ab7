import { loadImage } from '../data/dataset.ts';
import type { ScaledImage } from '../data/scaledImage.ts';
import { WorkerPool } from '../data/workerPool.ts';
import { type OutputJob, writeImageOutputs } from './outputs/imageOutputs.ts';

/** Work that needs no device: plain data, done in whatever thread. */
export type PredictJob =
  | { kind: 'load'; path: string; id: string; resize: number }
  | { kind: 'write'; output: OutputJob };

/** An image of a `load`, null of a `write`. */
export type PredictResult = ScaledImage | null;

export async function runPredictJob(job: PredictJob): Promise<PredictResult> {
  if (job.kind === 'load') return loadImage(job.path, job.resize, job.id);
  await writeImageOutputs(job.output);
  return null;
}

/** Threads that load images ahead of the model and write what it found behind it; with 0 threads the caller's does both. */
export class PredictJobs {
  readonly #pool: WorkerPool<PredictJob, PredictResult> | undefined;

  constructor(workers: number) {
    const body = new URL('./predictWorker.ts', import.meta.url);
    this.#pool = workers > 0 ? new WorkerPool(workers, body, 'prediction worker') : undefined;
  }

  /** @throws UserError that names the file where it cannot be read */
  async load(path: string, id: string, resize: number): Promise<ScaledImage> {
    const image = await this.#run({ kind: 'load', path, id, resize });
    if (image === null) throw new Error('PredictJobs: a load gave no image');
    return image;
  }

  async write(output: OutputJob): Promise<void> {
    if (output.formats.length > 0) await this.#run({ kind: 'write', output });
  }

  /** Ends the threads. */
  async close(): Promise<void> {
    await this.#pool?.close();
  }

  #run(job: PredictJob): Promise<PredictResult> {
    return this.#pool === undefined ? runPredictJob(job) : this.#pool.run(job);
  }
}
