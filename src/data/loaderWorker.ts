import type { LoadedSample } from './dataset.ts';
import { type LoadJob, runLoadJob } from './loader.ts';
import { answerJobs } from './workerPool.ts';

/** The body of a loading thread (see `loader.ts`): a job in, a sample out. */
answerJobs<LoadJob, LoadedSample>(runLoadJob, ({ image, target }) =>
  [image.data, target.boxes, target.labels, target.masks].map((array) => array.buffer as ArrayBuffer),
);
