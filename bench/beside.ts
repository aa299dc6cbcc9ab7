import { Random } from '../src/data/random.ts';
import { matmul } from '../src/kernels/matmul.ts';
import type { BenchGroup, Goal } from './cases.ts';
import { ladderCases, noise, places, relativeError } from './check.ts';
import { type ConvShape, convolutionWork, describeConv } from './convolutions.ts';
import { IMAGE_CHANNELS } from './layers.ts';
import type { ConvResult } from './peers/work.ts';

/** Always in the sizes of the real model: what other engines are measured on, and what this program is held to beside them. */
const TABLE = 'Beside other engines';

function webgpuGoal(what: string, atLeast: number): Goal {
  return { what: `${what} against the fastest WebGPU engine`, against: 'webgpu', atLeast };
}

function product(n: number): BenchGroup {
  const name = `matmul ${n}³ beside others`;
  const variant = 'matmul';
  return {
    table: TABLE,
    name,
    variants: [variant],
    goal: webgpuGoal(`matmul ${n}³`, 4),
    open(device) {
      const random = new Random(1);
      const [left, right] = [noise(n * n, random), noise(n * n, random)];
      const [a, b] = [device.tensor(left, [n, n]), device.tensor(right, [n, n])];
      const expected = (index: number): number => {
        let sum = 0;
        for (let k = 0; k < n; k++) sum += left[Math.floor(index / n) * n + k] * right[k * n + (index % n)];
        return sum;
      };
      const compute = () => {
        // Copies of operands are made anew, as in a step of training.
        device.gpu.derived.clear();
        return matmul(a, b);
      };
      const where = places(n * n, 256);
      return {
        cases: ladderCases({ group: name, flops: 2 * n ** 3, rungs: { [variant]: compute }, expected, samples: 256 }),
        comparison: {
          work: () => ({ op: 'matmul', n }),
          inputs: { a: { shape: [n, n], data: left }, b: { shape: [n, n], data: right } },
          check: ({ y }) => ({
            error:
              y?.data.length === n * n
                ? relativeError(
                    where.map((i) => y.data[i]),
                    where.map(expected),
                  )
                : Number.POSITIVE_INFINITY,
            tolerance: 1e-4,
          }),
        },
      };
    },
  };
}

const titles: Record<string, string> = {
  y: 'forward',
  dx: 'input gradient',
  dw: 'weight gradient',
  'y,dx,dw': 'forward and both gradients',
};

function convolution(
  shape: ConvShape,
  results: readonly ConvResult[],
  atLeast?: number,
  channels?: number,
): BenchGroup {
  const name = `${describeConv({ ...shape, in: channels ?? shape.in })}, ${titles[results.join()]}`;
  const goal = atLeast === undefined ? undefined : webgpuGoal(name, atLeast);
  return convolutionWork({ table: TABLE, name, shape, results, channels, goal });
}

/** Of forward passes, and of forward passes with both gradients. */
const LEAST = { forward: 5, training: 6 };

export function besideGroups(): BenchGroup[] {
  const one = { images: 1, kernel: 3, stride: 1, padding: 1 };
  const small: ConvShape = { ...one, height: 64, width: 64, in: 64, out: 64 };
  const wide: ConvShape = { ...one, height: 64, width: 88, in: 256, out: 256 };
  const point: ConvShape = { ...wide, kernel: 1, padding: 0, out: 64 };
  const stem: ConvShape = { images: 1, height: 256, width: 352, in: 4, out: 64, kernel: 7, stride: 2, padding: 3 };
  const rois: ConvShape = { ...one, images: 64, height: 14, width: 14, in: 256, out: 256 };
  const training = ['y', 'dx', 'dw'] as const;
  return [
    product(1024),
    convolution(small, ['y'], LEAST.forward),
    convolution(small, training, LEAST.training),
    convolution(wide, ['y'], LEAST.forward),
    convolution(wide, ['dx']),
    convolution(wide, ['dw']),
    convolution(wide, training, LEAST.training),
    convolution(point, ['y'], LEAST.forward),
    convolution(point, training, LEAST.training),
    convolution(stem, ['y'], LEAST.forward, IMAGE_CHANNELS),
    convolution(rois, ['y'], LEAST.forward),
  ];
}
