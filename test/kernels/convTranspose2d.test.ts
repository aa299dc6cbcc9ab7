import { beforeAll, describe, expect, it } from 'vitest';
import { convTranspose2d } from '../../src/kernels/convTranspose2d.ts';
import type { Device } from '../../src/tensor/device.ts';
import { convTranspose2d as reference } from '../reference/convTranspose2d.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { expectGolden, type GoldenTensor, haveGoldens, opsCases, permuted } from '../support/goldens.ts';
import { uniform } from '../support/random.ts';

describe('convTranspose2d', () => {
  let device: Device;
  beforeAll(async () => {
    device = await testDevice();
  });

  for (const [shape, kernel, stride] of [
    [[1, 1, 1, 1], [1, 1, 1, 1], 1],
    [[3, 14, 14, 8], [2, 2, 8, 36], 2],
    [[1, 5, 4, 7], [4, 3, 7, 5], 2],
    [[1, 3, 5, 4], [5, 5, 4, 4], 3],
    [[2, 3, 3, 4], [1, 1, 4, 4], 2],
  ] as const) {
    it(`[${shape}] by [${kernel}], stride ${stride}`, async () => {
      const size = (extents: readonly number[]) => extents.reduce((a, b) => a * b, 1);
      const [x, weight, bias] = [uniform(size(shape), 1), uniform(size(kernel), 2), uniform(kernel[3], 3)];
      const expected = reference(
        {
          x: { shape: [...shape], data: Float64Array.from(x) },
          weight: { shape: [...kernel], data: Float64Array.from(weight) },
          bias: { shape: [kernel[3]], data: Float64Array.from(bias) },
        },
        { stride, relu: true },
      );
      await device.scope(async () => {
        const y = convTranspose2d(
          device.tensor(x, shape),
          device.tensor(weight, kernel),
          device.tensor(bias, [kernel[3]]),
          { stride, relu: true },
        );
        expect(y.shape).toEqual(expected.shape);
        expectClose(await y.floats(), expected.data, 1e-5);
      });
    });
  }

  it('adds to gradients that are already there', async () => {
    await device.scope(async () => {
      const leaves = [
        device.tensor(uniform(4 * 5 * 4, 1), [1, 4, 5, 4]),
        device.tensor(uniform(2 * 2 * 4 * 3, 2), [2, 2, 4, 3]),
        device.tensor(uniform(3, 3), [3]),
      ];
      for (const leaf of leaves) leaf.requiresGrad = true;
      const run = () => {
        const y = convTranspose2d(leaves[0], leaves[1], leaves[2], { stride: 2 });
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
  });

  it('gives an empty batch an empty output and zero gradients', async () => {
    await device.scope(async () => {
      const weight = device.tensor(uniform(64, 1), [2, 2, 4, 4]);
      weight.requiresGrad = true;
      const y = convTranspose2d(device.tensor([], [0, 14, 14, 4]), weight, undefined, { stride: 2, relu: true });
      expect(y.shape).toEqual([0, 28, 28, 4]);
      device.backward(y, device.tensor([], y.shape));
      expect(await weight.grad!.floats()).toEqual(new Float32Array(64));
      weight.grad!.dispose();
    });
  });

  it('names what does not fit', () => {
    device.scope(() => {
      const x = device.zeros([1, 2, 2, 4]);
      expect(() => convTranspose2d(x, device.zeros([2, 2, 3, 4]), undefined, { stride: 2 })).toThrow(
        'convTranspose2d: weight: expected [kh, kw, 4, Co]',
      );
    });
  });

  describe.skipIf(!haveGoldens)('torch', () => {
    const nhwc = (tensor: GoldenTensor) => permuted(tensor, [0, 2, 3, 1]);
    // torch keeps [in, out, kh, kw].
    const convert = (tensors: Record<string, GoldenTensor>) => ({
      ...tensors,
      x: nhwc(tensors.x),
      weight: permuted(tensors.weight, [2, 3, 0, 1]),
    });
    for (const golden of opsCases('conv_transpose2d')) {
      it(`case ${golden.index}`, () =>
        expectGolden(
          device,
          {
            ...golden,
            inputs: convert(golden.inputs),
            grads: convert(golden.grads),
            output: nhwc(golden.output),
            upstream: nhwc(golden.upstream!),
          },
          ({ x, weight, bias }) => convTranspose2d(x, weight, bias, { stride: Number(golden.params.stride) }),
          1e-5,
        ));
    }
  });
});
