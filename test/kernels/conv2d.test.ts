import { beforeAll, describe, expect, it } from 'vitest';
import { type Conv2dOptions, conv2d } from '../../src/kernels/conv2d.ts';
import { conv2dNaive } from '../../src/kernels/conv2dNaive.ts';
import type { Device } from '../../src/tensor/device.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { conv2d as reference } from '../reference/conv2d.ts';
import type { RefTensor } from '../reference/index.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { expectGolden, type GoldenTensor, haveGoldens, opsCases, permuted } from '../support/goldens.ts';
import { uniform } from '../support/random.ts';

const host = (shape: number[], seed: number): RefTensor => ({
  shape,
  data: Float64Array.from(
    uniform(
      shape.reduce((a, b) => a * b, 1),
      seed,
    ),
  ),
});

/** Convolves on the device and by the reference; both gradients are checked by inner products: <conv(x, w), g> = <x, dx> = <w, dw>. */
async function check(device: Device, x: RefTensor, weight: RefTensor, params: Conv2dOptions): Promise<void> {
  const expected = reference({ x, weight }, params as Record<string, unknown>);
  await device.scope(async () => {
    const [input, w] = [device.tensor([...x.data], x.shape), device.tensor([...weight.data], weight.shape)];
    input.requiresGrad = true;
    w.requiresGrad = true;
    const y = conv2d(input, w, params);
    expect(y.shape).toEqual(expected.shape);
    expectClose(await y.floats(), expected.data, 1e-5, 'output');
    const g = uniform(y.size, 99);
    device.backward(y, device.tensor(g, y.shape));
    const inner = g.reduce((sum, value, i) => sum + value * expected.data[i], 0);
    const scale = g.reduce((sum, value, i) => sum + Math.abs(value * expected.data[i]), 0);
    for (const [leaf, values] of [
      [input, x.data],
      [w, weight.data],
    ] as const) {
      const gradient = await leaf.grad!.floats();
      const product = gradient.reduce((sum, value, i) => sum + value * values[i], 0);
      expect(Math.abs(product - inner) / scale).toBeLessThan(1e-5);
      leaf.grad!.dispose();
    }
  });
}

describe('conv2d', () => {
  let device: Device;
  beforeAll(async () => {
    device = await testDevice();
  });

  const cases: [string, number[], number[], Conv2dOptions][] = [
    ['one pixel, one channel', [1, 1, 1, 1], [1, 1, 1, 1], {}],
    ['a kernel larger than the image', [1, 2, 3, 4], [5, 5, 4, 4], { padding: 2 }],
    ['an image narrower than a step of the weight gradient', [9, 3, 2, 8], [3, 3, 8, 8], { padding: 1 }],
    ['a kernel that is not square', [2, 9, 5, 3], [1, 4, 3, 6], {}],
    ['stride 3 with rows that no window meets', [1, 11, 10, 4], [2, 2, 4, 4], { stride: 3 }],
    ['stride 2 and dilation 2', [1, 12, 13, 5], [3, 3, 5, 8], { stride: 2, dilation: 2, padding: 2 }],
    ['stride 2 and dilation 3', [1, 12, 13, 4], [3, 3, 4, 4], { stride: 2, dilation: 3, padding: 1 }],
    ['stride 4 and dilation 2', [1, 13, 14, 4], [3, 3, 4, 4], { stride: 4, dilation: 2, padding: 3 }],
    ['padding wider than the kernel', [1, 3, 3, 4], [2, 2, 4, 4], { padding: 4 }],
    ['more channels than a tile has columns', [1, 6, 5, 20], [3, 3, 20, 68], { padding: 1 }],
    ['a sum long enough to be split', [2, 40, 37, 3], [3, 3, 3, 5], { padding: 1 }],
  ];
  for (const [name, x, weight, params] of cases) {
    it(name, () => check(device, host(x, 1), host(weight, 2), params));
  }

  it('fuses scale, bias, residual and ReLU, forward and backward', async () => {
    const [x, weight] = [host([2, 5, 4, 6], 3), host([3, 3, 6, 8], 4)];
    const [scale, bias, residual] = [host([8], 5), host([8], 6), host([2, 5, 4, 8], 7)];
    await device.scope(async () => {
      const make = (from: RefTensor): Tensor => {
        const tensor = device.tensor([...from.data], from.shape);
        tensor.requiresGrad = true;
        return tensor;
      };
      const [input, w, b, r] = [x, weight, bias, residual].map(make);
      const s = device.tensor([...scale.data], [8]);
      const options = { bias: b, residual: r, scale: s, padding: 1 };
      const y = conv2d(input, w, { ...options, relu: true });
      const expected = reference({ x, weight, scale, bias, residual }, { padding: 1, relu: true });
      expectClose(await y.floats(), expected.data, 1e-5, 'output');
      const g = uniform(y.size, 8);
      device.backward(y, device.tensor(g, y.shape));
      const fused = await Promise.all([input, w, b, r].map((leaf) => leaf.grad!.floats()));
      for (const leaf of [input, w, b, r]) {
        leaf.grad!.dispose();
        leaf.grad = null;
      }
      // The same without the ReLU, with the upstream masked here, whose gradients the gradient check has verified.
      const masked = g.map((value, i) => (expected.data[i] > 0 ? value : 0));
      expect(masked.some((value) => value === 0)).toBe(true);
      device.backward(conv2d(input, w, options), device.tensor(masked, y.shape));
      for (const [i, leaf] of [input, w, b, r].entries()) {
        expectClose(fused[i], await leaf.grad!.floats(), 1e-6, `gradient ${i}`);
        leaf.grad!.dispose();
      }
    });
  });

  it('leaves out channels of zeros, as an image of three channels in four has them', async () => {
    const x = host([2, 13, 22, 4], 1);
    for (let i = 3; i < x.data.length; i += 4) x.data[i] = 0;
    await check(device, x, host([7, 7, 4, 12], 2), { stride: 2, padding: 3, zeroChannels: 1 });
  });

  it('adds to gradients that are already there, by every path', async () => {
    const [x, weight] = [host([1, 20, 21, 4], 9), host([3, 3, 4, 4], 10)];
    const grouped = host([3, 3, 2, 4], 11);
    for (const [kernel, groups] of [
      [weight, 1],
      [grouped, 2],
    ] as const) {
      for (const stride of [1, 2]) {
        await device.scope(async () => {
          const leaves = [x, kernel, host([4], 12)].map(({ data, shape }) => device.tensor([...data], shape));
          for (const leaf of leaves) leaf.requiresGrad = true;
          const [input, w, bias] = leaves;
          const run = () => {
            const y = conv2d(input, w, { bias, stride, groups, padding: 1 });
            device.backward(y, device.full(y.shape, 1));
          };
          run();
          const once = await Promise.all(leaves.map((leaf) => leaf.grad!.floats()));
          run();
          for (const [i, leaf] of leaves.entries()) {
            expectClose(
              await leaf.grad!.floats(),
              once[i].map((value) => 2 * value),
              1e-6,
              `gradient ${i}`,
            );
            leaf.grad!.dispose();
          }
        });
      }
    }
  });

  it('gives an empty batch an empty output and zero gradients', async () => {
    await device.scope(async () => {
      const weight = device.tensor(uniform(144, 1), [3, 3, 4, 4]);
      const bias = device.tensor([1, 2, 3, 4], [4]);
      weight.requiresGrad = true;
      bias.requiresGrad = true;
      const y = conv2d(device.tensor([], [0, 7, 7, 4]), weight, { bias, padding: 1, relu: true });
      expect(y.shape).toEqual([0, 7, 7, 4]);
      device.backward(y, device.tensor([], y.shape));
      expect(await weight.grad!.floats()).toEqual(new Float32Array(144));
      expect(await bias.grad!.floats()).toEqual(new Float32Array(4));
      weight.grad!.dispose();
      bias.grad!.dispose();
    });
  });

  it('agrees with the naive kernel', async () => {
    await device.scope(async () => {
      const x = device.tensor(uniform(2 * 17 * 15 * 12, 1), [2, 17, 15, 12]);
      const weight = device.tensor(uniform(3 * 3 * 12 * 36, 2), [3, 3, 12, 36]);
      const bias = device.tensor(uniform(36, 3), [36]);
      const options = { bias, stride: 2, padding: 1 };
      expectClose(await conv2d(x, weight, options).floats(), await conv2dNaive(x, weight, options).floats(), 1e-5);
    });
  });

  it('names what does not fit', () => {
    device.scope(() => {
      const x = device.zeros([1, 4, 4, 6]);
      const weight = device.zeros([3, 3, 6, 8]);
      expect(() => conv2d(x, device.zeros([3, 3, 5, 8]))).toThrow('conv2d: weight: expected [kh, kw, 6,');
      expect(() => conv2d(x, weight, { bias: device.zeros([7]) })).toThrow('conv2d: bias: expected [8]');
      expect(() => conv2d(x, weight, { residual: device.zeros([1, 4, 4, 8]) })).toThrow(
        'conv2d: residual: expected [1, 2, 2, 8]',
      );
      expect(() => conv2d(x, weight, { dilation: 3 })).toThrow('a 3×3 kernel fits into');
      expect(() => conv2d(x, weight, { stride: 0 })).toThrow('stride');
    });
  });

  describe.skipIf(!haveGoldens)('torch', () => {
    const nhwc = (tensor: GoldenTensor) => permuted(tensor, [0, 2, 3, 1]);
    const hwio = (tensor: GoldenTensor) => permuted(tensor, [2, 3, 1, 0]);
    const convert = (tensors: Record<string, GoldenTensor>) => ({
      ...tensors,
      x: nhwc(tensors.x),
      weight: hwio(tensors.weight),
    });
    for (const golden of opsCases('conv2d')) {
      it(`case ${golden.index} ${JSON.stringify(golden.params)}`, () =>
        expectGolden(
          device,
          {
            ...golden,
            inputs: convert(golden.inputs),
            grads: convert(golden.grads),
            output: nhwc(golden.output),
            upstream: nhwc(golden.upstream!),
          },
          ({ x, weight, bias }) => conv2d(x, weight, { bias, ...(golden.params as Conv2dOptions) }),
          1e-5,
        ));
    }
  });
});
