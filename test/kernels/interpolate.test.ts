import { beforeAll, describe, expect, test } from 'vitest';
import { type InterpolateParams, interpolateBilinear, interpolateNearest } from '../../src/kernels/interpolate.ts';
import type { Device } from '../../src/tensor/device.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import * as reference from '../reference/interpolate.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { haveGoldens, opsCases, permuted } from '../support/goldens.ts';
import { uniform } from '../support/random.ts';

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

const kinds = {
  interpolate_nearest: { apply: interpolateNearest, expected: reference.interpolateNearest },
  interpolate_bilinear: { apply: interpolateBilinear, expected: reference.interpolateBilinear },
};
type Kind = keyof typeof kinds;

/**
 * The map is linear, so its gradient is its transpose: column by column from the reference at unit vectors of one image and
 * one channel, applied to every image and channel.
 */
function transposed(kind: Kind, shape: number[], params: InterpolateParams, dy: Float32Array): Float64Array {
  const [images, height, width, channels] = shape;
  const dx = new Float64Array(images * height * width * channels);
  for (let pixel = 0; pixel < height * width; pixel++) {
    const data = new Float64Array(height * width);
    data[pixel] = 1;
    const column = kinds[kind].expected({ x: { shape: [1, height, width, 1], data } }, { ...params }).data;
    for (let i = 0; i < dy.length; i++) {
      const c = i % channels;
      const at = Math.floor(i / channels);
      const n = Math.floor(at / column.length);
      dx[(n * height * width + pixel) * channels + c] += column[at % column.length] * dy[i];
    }
  }
  return dx;
}

const cases: { shape: number[]; params: InterpolateParams }[] = [
  { shape: [2, 4, 5, 4], params: { size: [8, 10] } },
  { shape: [1, 5, 7, 3], params: { size: [9, 13] } },
  { shape: [1, 9, 12, 4], params: { size: [4, 5] } },
  { shape: [1, 7, 3, 1], params: { size: [3, 29] } },
  { shape: [2, 1, 1, 2], params: { size: [5, 3] } },
  { shape: [1, 6, 5, 4], params: { size: [1, 1] } },
  { shape: [1, 6, 5, 4], params: { size: [6, 5] } },
];

describe.each(Object.keys(kinds) as Kind[])('%s', (kind) => {
  const { apply, expected } = kinds[kind];

  async function check(shape: number[], params: InterpolateParams): Promise<void> {
    await device.scope(async () => {
      const values = uniform(
        shape.reduce((a, b) => a * b, 1),
        shape[1],
      );
      const x = device.tensor(values, shape);
      x.requiresGrad = true;
      const y = apply(x, params);
      const right = expected({ x: { shape, data: Float64Array.from(values) } }, { ...params });
      expect(y.shape).toEqual(right.shape);
      expectClose(await y.floats(), right.data, 2e-6, 'y');
      const dy = uniform(y.size, 9);
      const dx = transposed(kind, shape, params, dy);
      // Twice, so that the second gradient is added to the first.
      device.backward(y, device.tensor(dy, y.shape));
      expectClose((await x.grad?.floats()) as Float32Array, dx, 1e-5, 'dx');
      device.backward(apply(x, params), device.tensor(dy, y.shape));
      const twice = dx.map((value) => 2 * value);
      expectClose((await x.grad?.floats()) as Float32Array, twice, 1e-5, 'dx twice');
      x.grad?.dispose();
    });
  }

  test.each(cases)('$shape to $params.size', ({ shape, params }) => check(shape, params));

  test('more than 65535 workgroups', () =>
    device.scope(async () => {
      const side = 2050;
      const x = device.tensor([1, 1, 1, 1], [1, 2, 2, 1]);
      x.requiresGrad = true;
      const y = apply(x, { size: [side, side] });
      expect((await y.floats()).every((value) => value === 1)).toBe(true);
    }));

  test('an empty batch', () =>
    device.scope(() => {
      const x = device.tensor([], [0, 2, 3, 4]);
      x.requiresGrad = true;
      const y = apply(x, { size: [4, 5] });
      expect(y.shape).toEqual([0, 4, 5, 4]);
      device.backward(y, device.tensor([], y.shape));
      expect(x.grad?.shape).toEqual(x.shape);
      x.grad?.dispose();
    }));

  test('refuses an impossible size', () =>
    device.scope(() => {
      expect(() => apply(device.zeros([1, 2, 2, 1]), { size: [0, 3] })).toThrow(
        `${kind}: size: expected [height, width]`,
      );
      expect(() => apply(device.zeros([1, 0, 2, 1]), { size: [2, 3] })).toThrow('at least one pixel');
      expect(() => apply(device.zeros([2, 2, 1]), { size: [2, 3] })).toThrow('expected [N, H, W, C]');
    }));

  describe.skipIf(!haveGoldens)('as torch', () => {
    for (const { index, params, inputs, output, upstream, grads } of opsCases(kind)) {
      test(`case ${index} ${JSON.stringify(params)}`, () =>
        device.scope(async () => {
          const nhwc = [0, 2, 3, 1];
          const input = permuted(inputs.x, nhwc);
          const x = device.tensor(input.data as Float32Array, input.shape);
          x.requiresGrad = true;
          const y = apply(x, { size: params.size as number[] });
          const right = permuted(output, nhwc);
          expect(y.shape).toEqual(right.shape);
          expectClose(await y.floats(), right.data, 1e-5, 'y');
          if (!upstream) throw new Error('The case has no upstream gradient.');
          device.backward(y, device.tensor(permuted(upstream, nhwc).data as Float32Array, y.shape));
          expectClose((await x.grad?.floats()) as Float32Array, permuted(grads.x, nhwc).data, 1e-5, 'dx');
          x.grad?.dispose();
        }));
    }
  });
});

describe('interpolateNearest', () => {
  test.each([
    [100, 333],
    [333, 100],
    [199, 800],
    [1000, 1333],
    [41, 42],
  ])('%i pixels to %i choose those of float32 arithmetic', (from, to) =>
    device.scope(async () => {
      const x = device.tensor(
        Float32Array.from({ length: from }, (_, i) => i),
        [1, 1, from, 1],
      );
      const y = interpolateNearest(x, { size: [1, to] });
      const step = Math.fround(from / to);
      const source = Float32Array.from({ length: to }, (_, d) => Math.min(Math.floor(Math.fround(d * step)), from - 1));
      expect(await y.floats()).toEqual(source);
    }),
  );
});

test.each(Object.keys(kinds) as Kind[])('%s: no output is lost or counted twice, whatever the ratio', (kind) =>
  device.scope(async () => {
    const pairs = [2, 3, 7, 41, 50, 100, 199, 333, 800, 1333].flatMap((from, _, all) => all.map((to) => [from, to]));
    const sums: Tensor[] = [];
    for (const [from, to] of pairs) {
      const x = device.zeros([1, 1, from, 1]);
      x.requiresGrad = true;
      device.backward(kinds[kind].apply(x, { size: [1, to] }), device.full([1, 1, to, 1], 1));
      sums.push(x.grad as Tensor);
    }
    const gradients = await device.readAll(sums);
    pairs.forEach(([from, to], index) => {
      const expected = new Float64Array(from);
      const step = Math.fround(from / to);
      for (let d = 0; d < to; d++) {
        if (kind === 'interpolate_nearest') {
          expected[Math.min(Math.floor(Math.fround(d * step)), from - 1)] += 1;
        } else {
          const at = Math.min(Math.max((d + 0.5) * step - 0.5, 0), from - 1);
          const low = Math.floor(at);
          expected[low] += 1 - (at - low);
          expected[Math.min(low + 1, from - 1)] += at - low;
        }
      }
      // Positions near 1000 are known to half a float32's last place, 3e-5 of a pixel.
      expectClose(
        gradients[index] as Float32Array,
        expected,
        kind === 'interpolate_nearest' ? 0 : 2e-4,
        `${from} to ${to}`,
      );
      sums[index].dispose();
    });
  }),
);

describe('interpolateBilinear', () => {
  test('a given step samples at (d + ½)·step - ½, past the edge too', () =>
    device.scope(async () => {
      const ramp = Float32Array.from({ length: 6 }, (_, i) => i);
      const x = device.tensor(ramp, [1, 1, 6, 1]);
      const y = interpolateBilinear(x, { size: [1, 7], scale: [1, 0.9] });
      const at = (d: number): number => Math.min(Math.max((d + 0.5) * 0.9 - 0.5, 0), 5);
      expectClose(
        await y.floats(),
        Float32Array.from({ length: 7 }, (_, d) => at(d)),
        1e-6,
      );
      expect(() => interpolateBilinear(x, { size: [1, 7], scale: [1, 0] })).toThrow(
        'scale: expected two steps above 0',
      );
    }));
});
