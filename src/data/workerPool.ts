import { parentPort, Worker } from 'node:worker_threads';
import { UserError } from '../cli/errors.ts';

/** What a thread answers; errors cross the threads as plain data. */
type Reply<Result> =
  | { result: Result }
  | { error: { message: string; stack?: string /** Set for a UserError. */; exitCode?: number } };

interface QueuedJob<Job, Result> {
  job: Job;
  resolve(result: Result): void;
  reject(error: Error): void;
}

/**
 * Threads that take jobs in order, one at a time each. Jobs and results are plain data. Idle threads do not keep the process alive;
 * `close()` ends them.
 */
export class WorkerPool<Job, Result> {
  private readonly busy = new Map<Worker, QueuedJob<Job, Result>>();
  private idle: Worker[];
  private queue: QueuedJob<Job, Result>[] = [];
  /** Why no job can be taken any more. */
  private ended: Error | undefined;
  private readonly workers: Worker[];

  /**
   * @param count threads, 1 or more
   * @param body the module that each thread runs; it calls {@link answerJobs}
   * @param name of the threads, for debuggers
   */
  constructor(count: number, body: URL, name: string) {
    this.workers = Array.from({ length: count }, () => this.start(body, name));
    this.idle = [...this.workers];
  }

  /** What the job's thread makes of it; fails with the thread's error, which is still a UserError if it was one there. */
  run(job: Job): Promise<Result> {
    if (this.ended !== undefined) return Promise.reject(this.ended);
    return new Promise((resolve, reject) => {
      this.queue.push({ job, resolve, reject });
      this.dispatch();
    });
  }

  /** Takes jobs that no thread has begun out of the queue; what they promised stays open. */
  forget(jobs: readonly Job[]): void {
    const gone = new Set(jobs);
    this.queue = this.queue.filter(({ job }) => !gone.has(job));
  }

  /** Ends the threads; jobs that still run fail. */
  async close(): Promise<void> {
    this.fail(new Error('the worker threads were closed while they were working'));
    await Promise.all(this.workers.map((worker) => worker.terminate()));
  }

  private start(body: URL, name: string): Worker {
    // On Node 20 a worker does not inherit tsx's hooks, not even by execArgv, so it registers them itself before the
    // TypeScript file is imported.
    const hooks = JSON.stringify(import.meta.resolve('tsx/esm/api'));
    const file = JSON.stringify(body.href);
    const code = `import(${hooks}).then(({ register }) => { register(); return import(${file}); });`;
    const worker = new Worker(code, { eval: true, execArgv: [], name });
    worker.on('message', (reply: Reply<Result>) => this.settle(worker, reply));
    worker.on('error', (error) => this.fail(error instanceof Error ? error : new Error(String(error))));
    worker.on('exit', (code) => this.fail(new Error(`a thread (${name}) ended with code ${code}`)));
    worker.unref();
    return worker;
  }

  private dispatch(): void {
    while (this.queue.length > 0 && this.idle.length > 0) {
      const worker = this.idle.shift() as Worker;
      const queued = this.queue.shift() as QueuedJob<Job, Result>;
      this.busy.set(worker, queued);
      worker.ref();
      worker.postMessage(queued.job);
    }
  }

  private settle(worker: Worker, reply: Reply<Result>): void {
    const queued = this.busy.get(worker);
    if (queued === undefined) return; // the pool has failed meanwhile, and with it this job
    this.busy.delete(worker);
    worker.unref();
    this.idle.push(worker);
    if ('error' in reply) queued.reject(rebuildError(reply.error));
    else queued.resolve(reply.result);
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

function rebuildError({ message, stack, exitCode }: Extract<Reply<unknown>, { error: unknown }>['error']): Error {
  if (exitCode !== undefined) return new UserError(message, exitCode);
  const error = new Error(message);
  if (stack !== undefined) error.stack = stack;
  return error;
}

/**
 * The body of a thread of a {@link WorkerPool}: a job in, a result out, one after the other.
 *
 * @param transfer the buffers of a result that are handed over without a copy
 */
export function answerJobs<Job, Result>(
  run: (job: Job) => Result | Promise<Result>,
  transfer: (result: Result) => ArrayBuffer[] = () => [],
): void {
  const port = parentPort;
  if (port === null)
    throw new Error('answerJobs: there is no thread to answer for; only the body of a worker calls it');
  port.on('message', async (job: Job) => {
    let reply: Reply<Result>;
    try {
      reply = { result: await run(job) };
    } catch (error) {
      const { message, stack } = error instanceof Error ? error : new Error(String(error));
      reply = { error: { message, stack, exitCode: error instanceof UserError ? error.exitCode : undefined } };
    }
    port.postMessage(reply, 'result' in reply ? transfer(reply.result) : []);
  });
}
