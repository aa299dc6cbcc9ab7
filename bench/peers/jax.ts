import { openDawn, patiently } from './dawn.ts';
import {
  cannot,
  type Engine,
  type Job,
  load,
  permute,
  serve,
  type Tensor,
  toHwio,
  toNchw,
  toNhwc,
  toOihw,
  versionsOf,
} from './serve.ts';
import type { ConvShape, Work } from './work.ts';

/** What is used of jax-js. An array is consumed by whoever takes it, unless it is given as `.ref`. */
interface JaxArray {
  ref: JaxArray;
  shape: number[];
  data(): Promise<Float32Array>;
  dispose(): void;
  reshape(shape: number[]): JaxArray;
}
type Function = (...x: JaxArray[]) => JaxArray | JaxArray[];
interface Jax {
  init(device: string): Promise<string[]>;
  defaultDevice(device: string): void;
  blockUntilReady<T>(x: T): Promise<T>;
  jit(f: Function): Function & { dispose(): void };
  vjp(f: Function, x: JaxArray[]): [JaxArray, (dy: JaxArray) => JaxArray[]];
  numpy: {
    array(values: Float32Array, options: { shape: number[]; dtype: string }): JaxArray;
    matmul(a: JaxArray, b: JaxArray): JaxArray;
  };
  lax: {
    convGeneralDilated(x: JaxArray, weight: JaxArray, strides: number[], padding: [number, number][]): JaxArray;
  };
}

interface Plan {
  inputs: Tensor[];
  compute: Function;
  /** Names of what `compute` gives, with the order of axes that brings each into this program's layout. */
  results: { name: string; order?: readonly number[] }[];
}

async function open(): Promise<Engine> {
  const adapter = await openDawn();
  const jax = await load<Jax>('@jax-js/jax');
  const devices = await jax.init('webgpu');
  if (!devices.includes('webgpu')) throw new Error(`it finds no webgpu, only ${devices.join(', ')}`);
  jax.defaultDevice('webgpu');

  function convolution({ stride, padding }: ConvShape, wanted: readonly string[], given: Record<string, Tensor>): Plan {
    const forward = (x: JaxArray, weight: JaxArray): JaxArray =>
      jax.lax.convGeneralDilated(
        x,
        weight,
        [stride, stride],
        [
          [padding, padding],
          [padding, padding],
        ],
      );
    const inputs = [permute(given.x, toNchw), permute(given.weight, toOihw), permute(given.upstream, toNchw)];
    const orders: Record<string, readonly number[]> = { y: toNhwc, dx: toNhwc, dw: toHwio };
    // Traced into one program, in which what is not wanted is not computed.
    const compute: Function = (x, weight, upstream) => {
      const [y, back] = jax.vjp(forward as Function, [x, weight]);
      const [dx, dw] = back(upstream);
      const all: Record<string, JaxArray> = { y, dx, dw };
      for (const name of Object.keys(all)) if (!wanted.includes(name)) all[name].dispose();
      return wanted.map((name) => all[name]);
    };
    const results = wanted.map((name) => ({ name, order: orders[name] }));
    if (wanted.join() === 'y') return { inputs: inputs.slice(0, 2), compute: forward as Function, results };
    return { inputs, compute, results };
  }

  function planOf(work: Work, given: Record<string, Tensor>): Plan {
    if (work.op === 'matmul') {
      return {
        inputs: [given.a, given.b],
        compute: (a, b) => jax.numpy.matmul(a, b),
        results: [{ name: 'y' }],
      };
    }
    if (work.op === 'conv2d') return convolution(work.shape, work.results, given);
    return cannot(work);
  }

  return {
    adapter,
    versions: versionsOf('@jax-js/jax'),
    async prepare(work, given): Promise<Job> {
      const plan = planOf(work, given);
      const inputs = plan.inputs.map(({ values, shape }) =>
        jax.numpy.array(values as Float32Array, { shape, dtype: 'float32' }),
      );
      const compute = jax.jit(plan.compute);
      const once = async (): Promise<JaxArray[]> => {
        const results = [compute(...inputs.map((x) => x.ref))].flat();
        await patiently(jax.blockUntilReady(results));
        return results;
      };
      return {
        async run() {
          for (const array of await once()) array.dispose();
        },
        async results() {
          const found: Record<string, Tensor> = {};
          for (const [i, array] of (await once()).entries()) {
            const { name, order } = plan.results[i];
            const tensor = { shape: array.shape, values: await patiently(array.data()) };
            found[name] = order ? permute(tensor, order) : tensor;
          }
          return found;
        },
        release() {
          compute.dispose();
          for (const array of inputs) array.dispose();
        },
      };
    },
  };
}

await serve(open);
