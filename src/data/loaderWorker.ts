import { parentPort } from 'node:worker_threads';
import { UserError } from '../cli/errors.ts';
import { type LoadJob, type LoadReply, runLoadJob } from './loader.ts';

/** The body of a loading thread (see `loader.ts`): a job in, a sample out, its arrays handed over without a copy. */
const port = parentPort;
if (port === null) throw new Error('loaderWorker.ts runs in a worker thread only');

port.on('message', (job: LoadJob) => {
  let reply: LoadReply;
  try {
    reply = { sample: runLoadJob(job) };
  } catch (error) {
    const { message, stack } = error instanceof Error ? error : new Error(String(error));
    reply = { error: { message, stack, exitCode: error instanceof UserError ? error.exitCode : undefined } };
  }
  port.postMessage(reply, 'sample' in reply ? buffersOf(reply.sample) : []);
});

function buffersOf({ image, target }: Extract<LoadReply, { sample: unknown }>['sample']): ArrayBuffer[] {
  const arrays = [image.data, target.boxes, target.labels, target.masks];
  return arrays.map((array) => array.buffer as ArrayBuffer);
}
