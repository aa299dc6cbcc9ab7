import { beforeAll, describe, expect, test } from 'vitest';
import { type MaxPool2dParams, maxPool2d } from '../../src/kernels/maxPool2d.ts';
import type { Device } from '../../src/tensor/device.ts';
import { maxPool2d as reference } from '../reference/maxPool2d.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { haveGoldens, opsCases, permuted } from '../support/goldens.ts';
import { seeded } from '../support/random.ts';

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

/** Gradient by its definition: each window sends dy to the first of its largest pixels. */
function scattered(
  x: Float32Array,
  shape: number[],
  dy: Float32Array,
  params: Required<MaxPool2dParams>,
): Float64Array {
  const [images, height, width, channels] = shape;
  const { kernelSize, stride, padding } = params;
  const outHeight = Math.floor((height + 2 * padding - kernelSize) / stride) + 1;
  const outWidth = Math.floor((width + 2 * padding - kernelSize) / stride) + 1;
  const dx = new Float64Array(x.length);
  for (let i = 0; i < images * outHeight * outWidth * channels; i++) {
    const c = i % channels;
    const ox = Math.floor(i / channels) % outWidth;
    const oy = Math.floor(i / channels / outWidth) % outHeight;
    const n = Math.floor(i / channels / outWidth / outHeight);
    let winner = -1;
    for (let iy = Math.max(0, oy * stride - padding); iy < Math.min(height, oy * stride - padding + kernelSize); iy++) {
      for (
        let ix = Math.max(0, ox * stride - padding);
        ix < Math.min(width, ox * stride - padding + kernelSize);
        ix++
      ) {
        const at = ((n * height + iy) * width + ix) * channels + c;
        if (winner < 0 || x[at] > x[winner]) winner = at;
      }
    }
    dx[winner] += dy[i];
  }
  return dx;
}

/** Few distinct values, so that most windows hold their largest value more than once. */
function withTies(count: number, seed: number): Float32Array {
  const next = seeded(seed);
  return Float32Array.from({ length: count }, () => Math.floor(next() * 4) - 5);
}

async function check(shape: number[], params: Required<MaxPool2dParams>): Promise<void> {
  await device.scope(async () => {
    const values = withTies(
      shape.reduce((a, b) => a * b, 1),
      shape[1] + shape[3],
    );
    const x = device.tensor(values, shape);
    x.requiresGrad = true;
    const y = maxPool2d(x, params);
    const expected = reference({ x: { shape, data: Float64Array.from(values) } }, params);
    expect(y.shape).toEqual(expected.shape);
    expect(await y.floats()).toEqual(Float32Array.from(expected.data));
    const dy = withTies(expected.data.length, 5);
    // Twice, so that the second gradient is added to the first.
    for (let round = 1; round <= 2; round++) {
      device.backward(maxPool2d(x, params), device.tensor(dy, y.shape));
      const dx = scattered(values, shape, dy, params).map((value) => value * round);
      expect(await x.grad?.floats()).toEqual(Float32Array.from(dx));
    }
    x.grad?.dispose();
  });
}

describe('maxPool2d', () => {
  test.each([
    [[2, 13, 16, 8], { kernelSize: 3, stride: 2, padding: 1 }],
    [[1, 9, 8, 3], { kernelSize: 1, stride: 2, padding: 0 }],
    [[2, 6, 7, 5], { kernelSize: 3, stride: 1, padding: 1 }],
    [[1, 11, 10, 4], { kernelSize: 2, stride: 4, padding: 1 }],
    [[1, 1, 1, 1], { kernelSize: 3, stride: 2, padding: 1 }],
    [[3, 5, 5, 4], { kernelSize: 5, stride: 5, padding: 2 }],
  ])('%j %j: values, and the first of equals takes the gradient', (shape, params) => check(shape, params));

  test('more than 65535 workgroups', () =>
    device.scope(async () => {
      // One channel, kernel 1: the output is the input.
      const side = 2050;
      const values = Float32Array.from({ length: side * side }, (_, i) => i % 1021);
      const x = device.tensor(values, [1, side, side, 1]);
      x.requiresGrad = true;
      const y = maxPool2d(x, { kernelSize: 1 });
      expect(Buffer.compare(Buffer.from((await y.floats()).buffer), Buffer.from(values.buffer))).toBe(0);
      device.backward(y, device.tensor(values, y.shape));
      const gradient = (await x.grad?.floats()) as Float32Array;
      expect(Buffer.compare(Buffer.from(gradient.buffer), Buffer.from(values.buffer))).toBe(0);
      x.grad?.dispose();
    }));

  test('an empty batch', () =>
    device.scope(async () => {
      const x = device.tensor([], [0, 6, 6, 4]);
      x.requiresGrad = true;
      const y = maxPool2d(x, { kernelSize: 2 });
      expect(y.shape).toEqual([0, 3, 3, 4]);
      device.backward(y, device.tensor([], y.shape));
      expect(x.grad?.shape).toEqual(x.shape);
      x.grad?.dispose();
    }));

  test('refuses what torch refuses', () =>
    device.scope(() => {
      const x = device.zeros([1, 4, 4, 1]);
      expect(() => maxPool2d(x, { kernelSize: 3, padding: 2 })).toThrow('padding: expected 0 to half');
      expect(() => maxPool2d(x, { kernelSize: 5 })).toThrow('expected a padded size of at least 5×5, got [1,4,4,1]');
      expect(() => maxPool2d(x, { kernelSize: 2, stride: 0 })).toThrow('expected whole numbers');
      expect(() => maxPool2d(device.zeros([4, 4, 1]), { kernelSize: 2 })).toThrow('expected [N, H, W, C]');
    }));

  describe.skipIf(!haveGoldens)('as torch', () => {
    for (const { index, params, inputs, output, upstream, grads } of opsCases('max_pool2d')) {
      test(`case ${index} ${JSON.stringify(params)}`, () =>
        device.scope(async () => {
          const nhwc = [0, 2, 3, 1];
          const input = permuted(inputs.x, nhwc);
          const x = device.tensor(input.data as Float32Array, input.shape);
          x.requiresGrad = true;
          const y = maxPool2d(x, params as MaxPool2dParams);
          const expected = permuted(output, nhwc);
          expect(y.shape).toEqual(expected.shape);
          expectClose(await y.floats(), expected.data, 1e-5, 'y');
          if (!upstream) throw new Error('The case has no upstream gradient.');
          device.backward(y, device.tensor(permuted(upstream, nhwc).data as Float32Array, y.shape));
          expectClose((await x.grad?.floats()) as Float32Array, permuted(grads.x, nhwc).data, 1e-5, 'dx');
          x.grad?.dispose();
        }));
    }
  });
});
