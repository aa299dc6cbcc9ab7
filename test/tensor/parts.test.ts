import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GpuError } from '../../src/gpu/gpu.ts';
import { add, mul } from '../../src/kernels/arithmetic.ts';
import { batchNorm2d } from '../../src/kernels/batchNorm.ts';
import { conv2d } from '../../src/kernels/conv2d.ts';
import { convTranspose2d } from '../../src/kernels/convTranspose2d.ts';
import { selectChannel } from '../../src/kernels/gather.ts';
import {
  interpolateBilinear,
  interpolateNearest,
  linear,
  maxPool2d,
  multiScaleRoiAlign,
  relu,
} from '../../src/kernels/index.ts';
import { familyChoice, kernelChoice, setKernelChoice } from '../../src/kernels/kernelChoice.ts';
import { matmul } from '../../src/kernels/matmul.ts';
import type { Device } from '../../src/tensor/device.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { uniform } from '../support/random.ts';

/** Shapes of the inputs (all with a gradient) and the operator. */
interface Case {
  inputs: Record<string, number[]>;
  apply: (inputs: Record<string, Tensor>, device: Device) => Tensor;
  /** Bytes of a binding; 2048 by default. */
  limit?: number;
  winograd?: boolean;
}

/** Sums over the parts are added part by part, so they differ in rounding; what is not summed has the same bits. */
const SUMMED = 2e-6;

const boxes = [
  [0, 1, 2, 39, 28],
  [1, -3, 0, 37, 30],
  [2, 5, 9, 26, 29],
  [0, 12, 3, 21, 17],
  // Of no image: zeros.
  [7, 0, 0, 20, 20],
  [-1, 3, 3, 30, 24],
  [2, 0, 0, 40, 40],
].flat();

const cases: Record<string, Case> = {
  'a 3×3 convolution with all that follows it, by images': {
    inputs: { x: [12, 6, 5, 8], weight: [3, 3, 8, 4], bias: [4], residual: [12, 6, 5, 4] },
    apply: ({ x, weight, bias, residual }, device) =>
      conv2d(x, weight, { bias, residual, scale: device.tensor([0.5, 2, -1, 1], [4]), padding: 1, relu: true }),
    limit: 4096,
  },
  'a convolution of stride 2 whose images do not begin aligned': {
    inputs: { x: [5, 7, 5, 3], weight: [3, 3, 3, 5] },
    apply: ({ x, weight }) => conv2d(x, weight, { stride: 2, padding: 1 }),
    limit: 1024,
  },
  'a 7×7 convolution by lines of its single image': {
    inputs: { x: [1, 43, 16, 4], weight: [7, 7, 4, 2], bias: [2] },
    apply: ({ x, weight, bias }) => conv2d(x, weight, { bias, stride: 2, padding: 3 }),
  },
  'a 3×3 convolution by lines of two images, with a residual': {
    inputs: { x: [2, 13, 9, 6], weight: [3, 3, 6, 3], residual: [2, 13, 9, 3] },
    apply: ({ x, weight, residual }) => conv2d(x, weight, { residual, padding: 1 }),
    limit: 1024,
  },
  'a dilated convolution by lines': {
    inputs: { x: [1, 19, 10, 4], weight: [3, 3, 4, 4] },
    apply: ({ x, weight }) => conv2d(x, weight, { padding: 2, dilation: 2 }),
    limit: 1280,
  },
  'a 1×1 convolution': {
    inputs: { x: [4, 6, 6, 8], weight: [1, 1, 8, 12] },
    apply: ({ x, weight }) => conv2d(x, weight),
    limit: 2048,
  },
  'a convolution in groups': {
    inputs: { x: [5, 6, 5, 8], weight: [3, 3, 4, 4] },
    apply: ({ x, weight }) => conv2d(x, weight, { groups: 2, padding: 1 }),
  },
  "Winograd's convolution": {
    inputs: { x: [14, 7, 6, 4], weight: [3, 3, 4, 8], bias: [8], residual: [14, 7, 6, 8] },
    apply: ({ x, weight, bias, residual }) => conv2d(x, weight, { bias, residual, padding: 1, relu: true }),
    limit: 8192,
    winograd: true,
  },
  'a transposed convolution': {
    inputs: { x: [12, 4, 4, 8], weight: [2, 2, 8, 8], bias: [8] },
    apply: ({ x, weight, bias }) => convTranspose2d(x, weight, bias, { stride: 2, relu: true }),
    limit: 8192,
  },
  'a transposed convolution by lines': {
    inputs: { x: [1, 17, 7, 8], weight: [2, 2, 8, 4], bias: [4] },
    apply: ({ x, weight, bias }) => convTranspose2d(x, weight, bias, { stride: 2, relu: true }),
    limit: 4096,
  },
  'a linear layer': {
    inputs: { x: [500, 12], weight: [12, 8], bias: [8] },
    apply: ({ x, weight, bias }) => linear(x, weight, bias, { relu: true }),
    limit: 8192,
  },
  'a matrix product of transposed matrices': {
    inputs: { a: [12, 90], b: [20, 12] },
    apply: ({ a, b }) => matmul(matmul(b, a), a, { transposeB: true }),
    limit: 4352,
  },
  'batch norm in training, with a residual': {
    inputs: { x: [4, 9, 7, 8], weight: [8], bias: [8], residual: [4, 9, 7, 8] },
    apply: ({ x, weight, bias, residual }, device) =>
      batchNorm2d(
        x,
        { weight, bias },
        { runningMean: device.zeros([8]), runningVar: device.full([8], 1) },
        { training: true, relu: true, residual },
      ),
    limit: 4096,
  },
  'batch norm of three channels': {
    inputs: { x: [3, 9, 8, 3], weight: [3], bias: [3] },
    apply: ({ x, weight, bias }, device) =>
      batchNorm2d(
        x,
        { weight, bias },
        { runningMean: device.zeros([3]), runningVar: device.full([3], 1) },
        { training: true, relu: true },
      ),
    limit: 1024,
  },
  'max pooling': {
    inputs: { x: [5, 9, 6, 8] },
    apply: ({ x }) => maxPool2d(x, { kernelSize: 3, stride: 2, padding: 1 }),
  },
  'nearest interpolation': {
    inputs: { x: [5, 4, 5, 3] },
    apply: ({ x }) => interpolateNearest(x, { size: [7, 11] }),
    limit: 1024,
  },
  'bilinear interpolation': {
    inputs: { x: [3, 5, 5, 4] },
    apply: ({ x }) => interpolateBilinear(x, { size: [9, 8] }),
  },
  'ROIAlign over levels, by images and RoIs': {
    inputs: { f0: [3, 10, 10, 4], f1: [3, 5, 5, 4] },
    apply: ({ f0, f1 }, device) =>
      multiScaleRoiAlign([f0, f1], device.tensor(boxes, [boxes.length / 5, 5]), {
        outputSize: 5,
        samplingRatio: 2,
        scales: [0.25, 0.125],
        canonicalScale: 16,
        canonicalLevel: 3,
      }),
  },
  'the class of each mask': {
    inputs: { x: [9, 7, 6, 5] },
    apply: ({ x }, device) => selectChannel(x, device.tensor(Int32Array.of(4, 0, -1, 2, 3, 1, 1, 0, 4), [9])),
  },
  'elementwise operators': {
    inputs: { a: [30, 40], b: [30, 40] },
    apply: ({ a, b }) => relu(add(mul(a, b), a)),
  },
};

describe('operators on tensors larger than one binding', () => {
  let device: Device;
  let whole: number;
  beforeAll(async () => {
    device = await testDevice();
    whole = device.gpu.bindingLimit;
  });
  afterAll(() => {
    device.gpu.bindingLimit = whole;
  });

  /** Output and gradients, and how many parts it took. */
  function run(
    { inputs, apply }: Case,
    limit: number,
  ): Promise<{ parts: number; values: Record<string, Float32Array> }> {
    return device.scope(async () => {
      const leaves = Object.fromEntries(
        Object.entries(inputs).map(([name, shape], index) => {
          const tensor = device.tensor(
            uniform(
              shape.reduce((a, b) => a * b, 1),
              index + 1,
            ),
            shape,
          );
          tensor.requiresGrad = true;
          return [name, tensor];
        }),
      );
      const before = device.gpu.counters().parts;
      device.gpu.bindingLimit = limit;
      try {
        const y = apply(leaves, device);
        device.backward(y, device.tensor(uniform(y.size, 99), y.shape));
        const read = async (tensor: Tensor) => (await tensor.data()) as Float32Array;
        const values: Record<string, Float32Array> = { output: await read(y) };
        for (const [name, { grad }] of Object.entries(leaves)) {
          if (!grad) continue;
          values[name] = await read(grad);
          grad.dispose();
        }
        return { parts: device.gpu.counters().parts - before, values };
      } finally {
        device.gpu.bindingLimit = whole;
      }
    });
  }

  for (const [name, example] of Object.entries(cases)) {
    it(`${name}: as unsplit`, async () => {
      const { limit = 2048, winograd = false } = example;
      const choice = kernelChoice(device);
      if (winograd) setKernelChoice(device, familyChoice(device, 'winograd'));
      try {
        const expected = await run(example, whole);
        const { parts, values } = await run(example, limit);
        expect(expected.parts).toBe(0);
        expect(parts).toBeGreaterThan(1);
        expect(Object.keys(values)).toEqual(Object.keys(expected.values));
        for (const [what, data] of Object.entries(values)) expectClose(data, expected.values[what], SUMMED, what);
        // A second time with cached bind groups: the same bits.
        expect((await run(example, limit)).values).toEqual(values);
      } finally {
        setKernelChoice(device, choice);
      }
    });
  }

  it('adds to gradients that are there, part by part', async () => {
    const twice: Case = {
      inputs: { x: [5, 7, 5, 3], weight: [3, 3, 3, 3] },
      apply: ({ x, weight }) => conv2d(conv2d(x, weight, { padding: 1 }), weight, { padding: 1, residual: x }),
    };
    const expected = await run(twice, whole);
    const { values } = await run(twice, 1024);
    for (const [what, data] of Object.entries(values)) expectClose(data, expected.values[what], SUMMED, what);
  });

  it('refuses by name what it cannot split', async () => {
    const attempt = run({ inputs: { x: [1, 40, 40, 4] }, apply: ({ x }) => maxPool2d(x, { kernelSize: 2 }) }, 4096);
    await expect(attempt).rejects.toThrow(GpuError);
    await expect(attempt).rejects.toThrow(
      'max_pool2d needs 25600 bytes of a tensor at once, but this adapter binds at most 4096; use smaller images.',
    );
  });
});
