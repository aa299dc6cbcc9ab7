import { Random } from '../src/data/random.ts';
import { add } from '../src/kernels/arithmetic.ts';
import { batchNorm2d } from '../src/kernels/batchNorm.ts';
import { matmul } from '../src/kernels/matmul.ts';
import { sgdStep } from '../src/kernels/sgd.ts';
import { FlatParameters } from '../src/tensor/flatParameters.ts';
import { type BenchCase, type BenchGroup, caseName, type Size } from './cases.ts';
import { ladderCases, noise, relativeError } from './check.ts';
import { naiveAdd, naiveBatchNorm, naiveMatmul } from './naive.ts';
import { rungsOf } from './rungs.ts';

function matmulGroup(n: number): BenchGroup {
  const group = `matmul ${n}³`;
  return {
    table: 'matmul',
    name: group,
    variants: ['naive', 'tile from buffers', 'tile from textures', 'matmul'],
    open(device) {
      const random = new Random(1);
      const [left, right] = [noise(n * n, random), noise(n * n, random)];
      const [a, b] = [device.tensor(left, [n, n]), device.tensor(right, [n, n])];
      return {
        cases: ladderCases({
          group,
          flops: 2 * n ** 3,
          rungs: {
            naive: () => naiveMatmul(a, b),
            ...rungsOf(device, ['tile from buffers', 'tile from textures', 'matmul'], () => matmul(a, b)),
          },
          expected(index) {
            let sum = 0;
            for (let k = 0; k < n; k++) sum += left[Math.floor(index / n) * n + k] * right[k * n + (index % n)];
            return sum;
          },
        }),
      };
    },
  };
}

function batchNormGroup(height: number, width: number, channels: number): BenchGroup {
  const shape = [2, height, width, channels];
  const group = `batchNorm2d, batch statistics, ${shape.join('×')}`;
  const eps = 1e-5;
  return {
    table: 'Batch normalisation',
    name: group,
    variants: ['naive', 'batchNorm2d'],
    open(device) {
      const random = new Random(2);
      const rows = 2 * height * width;
      const values = noise(rows * channels, random);
      const [scales, shifts] = [noise(channels, random), noise(channels, random)];
      const x = device.tensor(values, shape);
      const [weight, bias] = [device.tensor(scales, [channels]), device.tensor(shifts, [channels])];
      const running = { runningMean: device.zeros([channels]), runningVar: device.full([channels], 1) };
      const options = { training: true, updateRunning: false, eps };
      return {
        cases: ladderCases({
          group,
          // The statistics must have been seen before the first value is written, so x is read twice.
          bytes: 3 * 4 * values.length,
          rungs: {
            naive: () => naiveBatchNorm(x, weight, bias, eps),
            batchNorm2d: () => batchNorm2d(x, { weight, bias }, running, options),
          },
          tolerance: 1e-4,
          expected(index) {
            const c = index % channels;
            let mean = 0;
            for (let r = 0; r < rows; r++) mean += values[r * channels + c] / rows;
            let variance = 0;
            for (let r = 0; r < rows; r++) variance += (values[r * channels + c] - mean) ** 2 / rows;
            return ((values[index] - mean) / Math.sqrt(variance + eps)) * scales[c] + shifts[c];
          },
        }),
      };
    },
  };
}

function addGroup(count: number): BenchGroup {
  const group = `add, ${count / 2 ** 20} M floats`;
  return {
    table: 'Elementwise',
    name: group,
    variants: ['naive', 'add'],
    open(device) {
      const random = new Random(3);
      const [left, right] = [noise(count, random), noise(count, random)];
      const [a, b] = [device.tensor(left, [count]), device.tensor(right, [count])];
      return {
        cases: ladderCases({
          group,
          bytes: 3 * 4 * count,
          rungs: { naive: () => naiveAdd(a, b), add: () => add(a, b) },
          expected: (index) => left[index] + right[index],
        }),
      };
    },
  };
}

/** A stack of equal layers with biases, as the optimizer sees it. */
function sgdGroup(layers: number, side: number): BenchGroup {
  const count = layers * (side * side + side);
  const group = `sgd, ${layers * 2} parameters, ${(count / 1e6).toFixed(1)} M floats`;
  const variants = ['one dispatch each', 'one dispatch for all'];
  const step = { lr: 0.01, momentum: 0.9, weightDecay: 0.01 };
  return {
    table: 'Optimizer',
    name: group,
    variants,
    open(device) {
      const random = new Random(4);
      const named = Array.from({ length: layers }, (_, layer) => [
        { name: `${layer}.weight`, shape: [side, side], data: noise(side * side, random) },
        { name: `${layer}.bias`, shape: [side], data: noise(side, random) },
      ]).flat();
      const slopes = new Map(named.map(({ name, data }) => [name, noise(data.length, random)]));
      const rungs = [
        named.map((parameter) => new FlatParameters(device, [parameter])),
        [new FlatParameters(device, named)],
      ];
      const cases = rungs.map((sets, rung): BenchCase => {
        for (const set of sets) {
          for (const name of set.names) {
            const parameter = set.tensor(name);
            const slope = slopes.get(name) as Float32Array;
            parameter.grad = device.detached(() => device.tensor(slope, parameter.shape));
          }
        }
        const run = (): void => {
          for (const set of sets) sgdStep(set, step);
        };
        return {
          group,
          variant: variants[rung],
          name: caseName(group, variants[rung]),
          // Values and momenta are read and written, gradients read.
          bytes: 5 * 4 * count,
          run,
          async check() {
            // Two steps: the second has a momentum.
            run();
            run();
            let error = 0;
            for (const set of sets) {
              for (const name of set.names) {
                const start = named.find((parameter) => parameter.name === name)?.data as Float32Array;
                const slope = slopes.get(name) as Float32Array;
                const expected = Array.from(start, (value, i) => {
                  const first = slope[i] + step.weightDecay * value;
                  const moved = value - step.lr * first;
                  return moved - step.lr * (step.momentum * first + slope[i] + step.weightDecay * moved);
                });
                error = Math.max(error, relativeError(await set.tensor(name).floats(), expected));
              }
            }
            return { error, tolerance: 1e-5 };
          },
        };
      });
      const close = (): void => {
        for (const set of rungs.flat()) set.dispose();
      };
      return { cases, close };
    },
  };
}

export function operatorGroups(size: Size): BenchGroup[] {
  const full = size === 'full';
  return [
    matmulGroup(full ? 512 : 128),
    matmulGroup(full ? 1024 : 256),
    batchNormGroup(64, 88, full ? 256 : 64),
    addGroup((full ? 16 : 4) * 2 ** 20),
    full ? sgdGroup(64, 800) : sgdGroup(32, 128),
  ];
}
