import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Prepared, Ran, Ready, Request, Stored, Work } from './work.ts';

export type Values = Float32Array | Int32Array;

export interface Tensor {
  shape: number[];
  values: Values;
}

/** Work that an engine is ready to do. */
export interface Job {
  /** Computes once and waits until it is done; nothing is read back. */
  run(): Promise<void>;
  /** Computes once and reads the results, in this program's layouts. */
  results(): Promise<Record<string, Tensor>>;
  release(): void | Promise<void>;
}

export interface Engine extends Ready {
  /** @throws with a sentence where the engine cannot do it */
  prepare(work: Work, inputs: Record<string, Tensor>): Promise<Job>;
}

function readTensor({ file, shape, dtype }: Stored): Tensor {
  const { buffer, byteOffset, byteLength } = readFileSync(file);
  const bytes = buffer.slice(byteOffset, byteOffset + byteLength);
  return { shape, values: dtype === 'int32' ? new Int32Array(bytes) : new Float32Array(bytes) };
}

function store(folder: string, results: Record<string, Tensor>): Record<string, Stored> {
  const stored = Object.entries(results).map(([name, { shape, values }]): [string, Stored] => {
    const file = join(folder, `${name}.bin`);
    writeFileSync(file, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    return [name, { file, shape, dtype: values instanceof Int32Array ? 'int32' : 'float32' }];
  });
  return Object.fromEntries(stored);
}

/** A run longer than this is not made again before it is measured. */
const LONG_MS = 3000;

async function timed(job: Job): Promise<number> {
  const start = performance.now();
  await job.run();
  return performance.now() - start;
}

/** The first line of an error: engines add whole shaders. */
function reason(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.trim().split('\n')[0].slice(0, 300) || 'it gives no reason';
}

/** Answers requests until stdin ends; whatever the engine prints goes to stderr. Ends the process. */
export async function serve(open: () => Promise<Engine>): Promise<void> {
  for (const method of ['log', 'info', 'debug', 'warn'] as const) console[method] = console.error;
  const answer = (line: Ready | Prepared | Ran | { error: string } | object): void => {
    process.stdout.write(`${JSON.stringify(line)}\n`);
  };
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  try {
    const engine = await open();
    answer({ adapter: engine.adapter, versions: engine.versions });
    let job: Job | undefined;
    for (let line = await lines.next(); !line.done; line = await lines.next()) {
      const request = JSON.parse(line.value) as Request;
      try {
        if (request.do === 'run') {
          if (!job) throw new Error('nothing was prepared');
          answer({ ms: await timed(job) });
          continue;
        }
        await job?.release();
        job = undefined;
        if (request.do === 'release') {
          answer({});
          continue;
        }
        const inputs = Object.entries(request.inputs).map(([name, stored]) => [name, readTensor(stored)] as const);
        job = await engine.prepare(request.work, Object.fromEntries(inputs));
        const start = performance.now();
        const results = store(request.folder, await job.results());
        const first = performance.now() - start;
        // Some work takes up to a minute: then the first run's time, with the compilation and the readback, has to do.
        answer({ results, ms: first > LONG_MS ? first : await timed(job) });
      } catch (error) {
        answer({ error: reason(error) });
      }
    }
  } catch (error) {
    answer({ error: reason(error) });
  }
  // Dawn keeps Node alive.
  process.exit();
}

/** Loads a package of `bench/peers`, which TypeScript does not know where it is not installed; `T` is the part of it that is used. */
export async function load<T>(name: string): Promise<T> {
  return (await import(name)) as T;
}

/** Versions of packages in `bench/peers/node_modules`. */
export function versionsOf(...names: string[]): Record<string, string> {
  const require = createRequire(import.meta.url);
  return Object.fromEntries(
    names.map((name) => {
      const folder = require.resolve.paths(name)?.map((path) => join(path, name, 'package.json')) ?? [];
      for (const file of folder) {
        try {
          return [name, (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version];
        } catch {
          // The next folder of Node's own search may have it.
        }
      }
      throw new Error(`${name} is not installed`);
    }),
  );
}

/** An engine's refusal of work that it has no operator for. */
export function cannot(work: Work): never {
  throw new Error(`it has no ${work.op}`);
}

/** Copies a tensor with its axes in another order: axis `i` of the result is axis `order[i]` of the source. */
export function permute({ shape, values }: Tensor, order: readonly number[]): Tensor & { values: Float32Array } {
  const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((product, extent) => product * extent, 1));
  const to = order.map((axis) => shape[axis]);
  const steps = order.map((axis) => strides[axis]);
  const out = new Float32Array(values.length);
  const place = to.map(() => 0);
  let from = 0;
  for (let i = 0; i < out.length; i++) {
    out[i] = values[from];
    for (let axis = to.length - 1; axis >= 0; axis--) {
      from += steps[axis];
      if (++place[axis] < to[axis]) break;
      from -= place[axis] * steps[axis];
      place[axis] = 0;
    }
  }
  return { shape: to, values: out };
}

/** Orders of axes between this program's layouts and those of engines that think in PyTorch's. */
export const toNchw = [0, 3, 1, 2];
export const toNhwc = [0, 2, 3, 1];
export const toOihw = [3, 2, 0, 1];
export const toHwio = [2, 3, 1, 0];
