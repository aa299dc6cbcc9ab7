import { beforeAll, describe, expect, test } from 'vitest';
import { mul } from '../../src/kernels/arithmetic.ts';
import { batchNorm2d, frozenBatchNorm2d } from '../../src/kernels/batchNorm.ts';
import { sum } from '../../src/kernels/reduce.ts';
import type { Device } from '../../src/tensor/device.ts';
import { sizeOf, type Tensor } from '../../src/tensor/tensor.ts';
import { channelStatistics, batchNorm as reference } from '../reference/batchNorm.ts';
import type { RefTensor } from '../reference/index.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { type GoldenTensor, haveGoldens, opsCases, permuted } from '../support/goldens.ts';
import { uniform } from '../support/random.ts';

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

interface Setting {
  shape: number[];
  training: boolean;
  relu?: boolean;
  residual?: boolean;
}

/** Gradients by the chain rule through mean and variance, one channel at a time, in float64. */
function gradients(
  inputs: Record<string, RefTensor>,
  dy: Float32Array,
  setting: Setting,
  eps: number,
): Record<string, Float64Array> {
  const { x, weight, runningMean, runningVar } = inputs;
  const channels = x.shape[3];
  const y = reference(inputs, { training: setting.training, relu: setting.relu, eps }).data;
  const g = Float64Array.from(dy, (value, i) => (setting.relu && y[i] <= 0 ? 0 : value));
  const statistics = setting.training ? channelStatistics(x) : { mean: runningMean.data, variance: runningVar.data };
  const result = {
    x: new Float64Array(x.data.length),
    weight: new Float64Array(channels),
    bias: new Float64Array(channels),
    residual: g,
  };
  for (let c = 0; c < channels; c++) {
    const places: number[] = [];
    for (let i = c; i < x.data.length; i += channels) places.push(i);
    const n = places.length;
    const mean = statistics.mean[c];
    const std = Math.sqrt(statistics.variance[c] + eps);
    let dMean = 0;
    let dVariance = 0;
    for (const i of places) {
      const d = x.data[i] - mean;
      result.weight[c] += (g[i] * d) / std;
      result.bias[c] += g[i];
      dMean -= (g[i] * weight.data[c]) / std;
      dVariance -= (g[i] * weight.data[c] * d) / (2 * std ** 3);
    }
    for (const i of places) {
      result.x[i] = (g[i] * weight.data[c]) / std;
      if (setting.training) result.x[i] += dMean / n + (dVariance * 2 * (x.data[i] - mean)) / n;
    }
  }
  return result;
}

/** Forward, running statistics and every gradient (added to what is there already) of one setting. */
async function check(setting: Setting): Promise<void> {
  const { shape, training, relu = false } = setting;
  const channels = shape[3];
  const eps = 1e-4;
  const momentum = 0.3;
  const values: Record<string, { data: Float32Array; shape: number[] }> = {
    x: { data: uniform(sizeOf(shape), 1, -1, 2), shape },
    weight: { data: uniform(channels, 2, 0.5, 1.5), shape: [channels] },
    bias: { data: uniform(channels, 3), shape: [channels] },
    runningMean: { data: uniform(channels, 4), shape: [channels] },
    runningVar: { data: uniform(channels, 5, 0.5, 2), shape: [channels] },
  };
  if (setting.residual) values.residual = { data: uniform(sizeOf(shape), 6), shape };
  const expected = Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, { shape: value.shape, data: Float64Array.from(value.data) }]),
  );
  await device.scope(async () => {
    const t = Object.fromEntries(
      Object.entries(values).map(([name, value]) => [name, device.tensor(value.data, value.shape)]),
    );
    const wanted = ['x', 'weight', 'bias', ...(setting.residual ? ['residual'] : [])] as const;
    for (const name of wanted) t[name].requiresGrad = true;
    const run = (updateRunning?: boolean): Tensor =>
      batchNorm2d(
        t.x,
        { weight: t.weight, bias: t.bias },
        { runningMean: t.runningMean, runningVar: t.runningVar },
        {
          training,
          momentum,
          eps,
          relu,
          residual: t.residual,
          updateRunning,
        },
      );
    const y = run();
    const right = reference(expected, { training, eps, relu });
    expect(y.shape).toEqual(shape);
    expectClose(await y.floats(), right.data, 1e-5, 'y');

    const { mean, variance } = channelStatistics(expected.x);
    const rows = sizeOf(shape) / channels;
    const moved = (old: Float64Array, batch: number[]): Float64Array =>
      old.map((value, c) => (training ? (1 - momentum) * value + momentum * batch[c] : value));
    const unbiased = variance.map((value) => (value * rows) / (rows - 1));
    expectClose(await t.runningMean.floats(), moved(expected.runningMean.data, mean), 1e-6, 'running mean');
    expectClose(await t.runningVar.floats(), moved(expected.runningVar.data, unbiased), 1e-5, 'running variance');

    const dy = uniform(y.size, 7);
    const right1 = gradients(expected, dy, setting, eps);
    for (let round = 1; round <= 2; round++) {
      device.backward(round === 1 ? y : run(false), device.tensor(dy, shape));
      for (const name of wanted) {
        const gradient = await (t[name].grad as Tensor).floats();
        expectClose(
          gradient,
          right1[name].map((value) => value * round),
          2e-5,
          `gradient of ${name}, round ${round}`,
        );
      }
    }
    for (const name of wanted) t[name].grad?.dispose();
  });
}

describe('batchNorm2d', () => {
  const shapes = [
    [2, 13, 11, 4],
    [3, 9, 7, 3],
    [1, 1, 2, 8],
    [3, 1, 1, 1],
    [1, 67, 1, 5],
  ];
  const settings = shapes.flatMap((shape) => [
    { shape, training: true },
    { shape, training: true, relu: true, residual: true },
    { shape, training: false, relu: true },
  ]);
  test.each(settings)('%j', (setting) => check(setting));
  test.each([
    { shape: [2, 3, 4, 4], training: true, relu: true },
    { shape: [2, 3, 4, 4], training: true, residual: true },
    { shape: [2, 3, 4, 4], training: false, relu: true, residual: true },
    { shape: [2, 3, 4, 4], training: false },
  ])('%j', (setting) => check(setting));

  test('statistics merged twice, more than 4096 values a channel', () =>
    check({ shape: [2, 97, 61, 2], training: true }));

  test('a spread far below the mean does not cancel', () =>
    device.scope(async () => {
      // Multiples of 1/64 around 1000 are exact in float32; Σx² would lose all of their variance.
      const data = uniform(6000 * 4, 8).map((value) => 1000 + Math.round(value * 8) / 64);
      const shape = [1, 60, 100, 4];
      const x = device.tensor(data, shape);
      const [weight, bias] = [device.full([4], 1), device.zeros([4])];
      const [runningMean, runningVar] = [device.zeros([4]), device.zeros([4])];
      const options = { training: true, momentum: 1, updateRunning: true };
      const y = batchNorm2d(x, { weight, bias }, { runningMean, runningVar }, options);
      const ones = { shape: [4], data: new Float64Array(4).fill(1) };
      const zeros = { shape: [4], data: new Float64Array(4) };
      const input = { shape, data: Float64Array.from(data) };
      const { mean, variance } = channelStatistics(input);
      expectClose(await runningMean.floats(), mean, 1e-7, 'mean');
      expectClose(
        await runningVar.floats(),
        variance.map((value) => (value * 6000) / 5999),
        2e-5,
        'variance',
      );
      // The mean itself is a float32 near 1000: half its last place over the deviation, .07, is 4e-4.
      expectClose(
        await y.floats(),
        reference({ x: input, weight: ones, bias: zeros }, { training: true }).data,
        5e-4,
        'y',
      );
    }));

  test('running statistics stay without gradients, unless told otherwise, and outside of training', () =>
    device.scope(async () => {
      const x = device.tensor([1, 2, 3, 6], [1, 2, 2, 1]);
      const affine = { weight: device.full([1], 1), bias: device.zeros([1]) };
      const running = { runningMean: device.zeros([1]), runningVar: device.full([1], 1) };
      const state = async (): Promise<number[]> => [await running.runningMean.item(), await running.runningVar.item()];
      batchNorm2d(x, affine, running, { training: false });
      batchNorm2d(x, affine, running, { training: true, updateRunning: false });
      device.noGrad(() => batchNorm2d(x, affine, running, { training: true }));
      expect(await state()).toEqual([0, 1]);
      // Mean 3, unbiased variance 14/3.
      device.noGrad(() => batchNorm2d(x, affine, running, { training: true, momentum: 0.5, updateRunning: true }));
      expectClose(await state(), [1.5, 0.5 + 7 / 3], 1e-6);
      batchNorm2d(x, affine, running, { training: true, momentum: 0.5 });
      expectClose(await state(), [2.25, 0.25 + 7 / 6 + 7 / 3], 1e-6);
      expect(() => batchNorm2d(x, affine, running, { training: false, updateRunning: true })).toThrow(
        'in training only',
      );
    }));

  test('the same bits in every run', () =>
    device.scope(async () => {
      const shape = [2, 70, 50, 4];
      const data = uniform(sizeOf(shape), 3);
      const once = async (): Promise<Float32Array> => {
        const x = device.tensor(data, shape);
        x.requiresGrad = true;
        const affine = { weight: device.full([4], 1), bias: device.zeros([4]) };
        const y = batchNorm2d(
          x,
          affine,
          { runningMean: device.zeros([4]), runningVar: device.zeros([4]) },
          { training: true, relu: true },
        );
        device.backward(y, device.tensor(data, shape));
        const gradient = (await x.grad?.floats()) as Float32Array;
        x.grad?.dispose();
        return gradient;
      };
      expect(await once()).toEqual(await once());
    }));

  test('adds to gradients of weight and bias that are there already', () =>
    device.scope(async () => {
      const values = (seed: number, size: number) => uniform(size, seed);
      const x = device.tensor(values(1, 2 * 40 * 9 * 6), [2, 40, 9, 6]);
      const affine = { weight: device.tensor(values(2, 6), [6]), bias: device.tensor(values(3, 6), [6]) };
      const running = { runningMean: device.zeros([6]), runningVar: device.full([6], 1) };
      const leaves = [x, affine.weight, affine.bias];
      for (const tensor of leaves) tensor.requiresGrad = true;
      const pass = async (): Promise<Float32Array[]> => {
        device.backward(sum(mul(x, batchNorm2d(x, affine, running, { training: true, relu: true }))));
        return Promise.all(leaves.map(({ grad }) => grad!.floats()));
      };
      const once = await pass();
      const twice = await pass();
      for (const [i, gradient] of once.entries()) {
        expect(gradient.some((value) => value !== 0)).toBe(true);
        expectClose(
          twice[i],
          Float64Array.from(gradient, (value) => 2 * value),
          1e-4,
        );
      }
      for (const { grad } of leaves) grad?.dispose();
    }));

  test('an empty batch leaves everything as it is', () =>
    device.scope(async () => {
      const x = device.tensor([], [0, 4, 4, 4]);
      const affine = { weight: device.full([4], 1), bias: device.zeros([4]) };
      const running = { runningMean: device.full([4], 2), runningVar: device.full([4], 3) };
      for (const tensor of [x, affine.weight, affine.bias]) tensor.requiresGrad = true;
      const y = batchNorm2d(x, affine, running, { training: true, relu: true });
      expect(y.shape).toEqual(x.shape);
      device.backward(y, device.tensor([], y.shape));
      expect(await affine.weight.grad?.floats()).toEqual(new Float32Array(4));
      expect(await affine.bias.grad?.floats()).toEqual(new Float32Array(4));
      expect(await running.runningVar.floats()).toEqual(new Float32Array(4).fill(3));
      for (const tensor of [x, affine.weight, affine.bias]) tensor.grad?.dispose();
    }));

  test('says what is wrong', () =>
    device.scope(() => {
      const x = device.zeros([1, 1, 1, 3]);
      const three = device.zeros([3]);
      const affine = { weight: three, bias: three };
      const running = { runningMean: three, runningVar: three };
      expect(() => batchNorm2d(x, affine, running, { training: true })).toThrow(
        'batch_norm2d: x: expected more than 1 value per channel in training, got f32[1, 1, 1, 3].',
      );
      const narrow = { weight: device.zeros([2]), bias: three };
      expect(() => batchNorm2d(x, narrow, running, { training: false })).toThrow(
        'batch_norm2d: weight: expected [C] = [3], got',
      );
      const residual = device.zeros([1, 1, 2, 3]);
      expect(() => batchNorm2d(x, affine, running, { training: false, residual })).toThrow(
        "residual: expected x's shape",
      );
    }));
});

describe.skipIf(!haveGoldens)('as torch', () => {
  const nhwc = [0, 2, 3, 1];
  for (const { index, op, params, inputs, output, upstream, grads } of opsCases(
    'batch_norm2d',
    'frozen_batch_norm2d',
  )) {
    test(`case ${index} ${op} ${JSON.stringify(params)}`, () =>
      device.scope(async () => {
        const put = (golden: GoldenTensor): Tensor => device.tensor(golden.data as Float32Array, golden.shape);
        const { weight, bias } = { weight: put(inputs.weight), bias: put(inputs.bias) };
        const x = put(permuted(inputs.x, nhwc));
        const leaves: Record<string, Tensor> = { x, weight, bias };
        for (const name of Object.keys(grads)) leaves[name].requiresGrad = true;
        const { eps, momentum } = params as { eps: number; momentum: number };
        const y =
          op === 'batch_norm2d'
            ? batchNorm2d(
                x,
                { weight, bias },
                { runningMean: device.zeros([x.shape[3]]), runningVar: device.zeros([x.shape[3]]) },
                { training: true, eps, momentum },
              )
            : frozenBatchNorm2d(x, weight, bias, put(inputs.running_mean), put(inputs.running_var), eps);
        expectClose(await y.floats(), permuted(output, nhwc).data, 1e-5, 'y');
        if (!upstream) throw new Error('The case has no upstream gradient.');
        device.backward(y, put(permuted(upstream, nhwc)));
        for (const [name, golden] of Object.entries(grads)) {
          const right = golden.shape.length === 4 ? permuted(golden, nhwc) : golden;
          expectClose(await (leaves[name].grad as Tensor).floats(), right.data, 1e-5, `gradient of ${name}`);
          leaves[name].grad?.dispose();
        }
      }));
  }
});

describe('a padded list', () => {
  const shape = [7, 5, 6, 8];
  const [images, perImage, channels] = [7, 30 * 8, 8];
  const x = uniform(images * perImage, 31, -1, 3);
  const dy = uniform(images * perImage, 32, -1, 1);
  const vectors = [33, 34, 35].map((seed) => uniform(channels, seed, 0.5, 2));

  /** y, its gradients and the running statistics. */
  const computed = async (length: number, count: number | null): Promise<Record<string, Float32Array>> => {
    const head = (values: Float32Array): Tensor => {
      const own = values.slice(0, length * perImage);
      if (count !== null) own.fill(Number.NaN, count * perImage);
      return device.tensor(own, [length, ...shape.slice(1)]);
    };
    return device.scope(async () => {
      const input = head(x);
      input.requiresGrad = true;
      const [weight, bias] = [0, 1].map((i) => device.parameter(vectors[i], [channels], 'parameter'));
      const [runningMean, runningVar] = [1, 2].map((i) => device.tensor(vectors[i], [channels]));
      const y = batchNorm2d(
        input,
        { weight, bias },
        { runningMean, runningVar },
        { training: true, relu: true, count: count === null ? undefined : device.tensor(Uint32Array.of(count), [1]) },
      );
      const read = { y: await y.floats(), mean: await runningMean.floats(), variance: await runningVar.floats() };
      const upstream = head(dy);
      device.backward(y, upstream);
      const gradients = await Promise.all([input, weight, bias].map(({ grad }) => (grad as Tensor).floats()));
      for (const tensor of [input.grad, weight.grad, bias.grad, weight, bias]) tensor?.dispose();
      return { ...read, dx: gradients[0], dweight: gradients[1], dbias: gradients[2] };
    });
  };

  test.each([1, 3, 7])('is normalised as its first %i images alone', async (count) => {
    const alone = await computed(count, null);
    const padded = await computed(images, count);
    for (const [name, values] of Object.entries(padded)) {
      const expected = new Float32Array(values.length);
      expected.set(alone[name]);
      expectClose(values, expected, 1e-6, name);
    }
  });

  test('of nothing moves nothing', async () => {
    const padded = await computed(images, 0);
    expect(padded.mean).toEqual(vectors[1]);
    expect(padded.variance).toEqual(vectors[2]);
    for (const name of ['y', 'dx', 'dweight', 'dbias'])
      expect(
        padded[name].every((value) => value === 0),
        name,
      ).toBe(true);
  });

  test('has no residual, and is for training', () => {
    device.scope(() => {
      const tensor = device.zeros(shape);
      const [one, other] = [device.zeros([channels]), device.zeros([channels])];
      const run = (options: { training: boolean; residual?: Tensor }): Tensor =>
        batchNorm2d(
          tensor,
          { weight: one, bias: other },
          { runningMean: one, runningVar: other },
          { ...options, count: device.tensor(Uint32Array.of(1), [1]) },
        );
      expect(() => run({ training: true, residual: tensor })).toThrow(
        'batch_norm2d: residual: expected none beside a count',
      );
      expect(() => run({ training: false })).toThrow('batch_norm2d: count: in training only');
    });
  });
});
