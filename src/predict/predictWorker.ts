import { answerJobs } from '../data/workerPool.ts';
import { type PredictJob, type PredictResult, runPredictJob } from './jobs.ts';

/** The body of a prediction's thread, see `jobs.ts`. */
answerJobs<PredictJob, PredictResult>(runPredictJob, (image) => (image ? [image.data.buffer as ArrayBuffer] : []));
