import { beforeAll, describe, expect, it } from 'vitest';
import {
  binaryCrossEntropyWithLogits,
  crossEntropy,
  type SmoothL1Options,
  smoothL1Loss,
} from '../../src/kernels/losses.ts';
import type { Device } from '../../src/tensor/device.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { references } from '../reference/index.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { expectGolden, haveGoldens, opsCases } from '../support/goldens.ts';
import { uniform } from '../support/random.ts';

describe('losses', () => {
  let device: Device;
  beforeAll(async () => {
    device = await testDevice();
  });

  async function valueAndGradient(x: Tensor, loss: (x: Tensor) => Tensor): Promise<[number, Float32Array]> {
    x.requiresGrad = true;
    const value = loss(x);
    expect([...value.shape]).toEqual([]);
    device.backward(value);
    const gradient = await x.grad!.floats();
    x.grad!.dispose();
    x.grad = null;
    return [await value.item(), gradient];
  }

  it('cross entropy does not overflow and is exact where the answer is plain', async () => {
    await device.scope(async () => {
      const labels = device.tensor(Int32Array.of(0, 1), [2], 'i32');
      const logits = device.tensor([1000, 0, 1000, 0], [2, 2]);
      const [value, gradient] = await valueAndGradient(logits, (x) => crossEntropy(x, labels));
      expect(value).toBe(500);
      expectClose(gradient, [0, 0, 0.5, -0.5], 1e-6);
    });
  });

  it('cross entropy over many rows agrees with float64', async () => {
    const rows = 2500;
    const classes = 7;
    const logits = uniform(rows * classes, 1, -5, 5);
    const labels = Int32Array.from(uniform(rows, 2, 0, classes), Math.floor);
    const expected = references.cross_entropy(
      {
        logits: { shape: [rows, classes], data: Float64Array.from(logits) },
        labels: { shape: [rows], data: Float64Array.from(labels) },
      },
      {},
    );
    await device.scope(async () => {
      const loss = crossEntropy(device.tensor(logits, [rows, classes]), device.tensor(labels, [rows], 'i32'));
      expectClose(await loss.floats(), expected.data, 1e-5);
    });
  });

  it('a label outside the classes makes cross entropy NaN', async () => {
    await device.scope(async () => {
      for (const wrong of [-1, 3]) {
        const labels = device.tensor(Int32Array.of(0, wrong), [2], 'i32');
        expect(await crossEntropy(device.zeros([2, 3]), labels).item()).toBeNaN();
      }
    });
  });

  it('binary cross entropy holds at large logits', async () => {
    await device.scope(async () => {
      const targets = device.tensor([1, 0, 1, 0], [4]);
      const logits = device.tensor([200, 200, -200, -200], [4]);
      const [value, gradient] = await valueAndGradient(logits, (x) => binaryCrossEntropyWithLogits(x, targets));
      expect(value).toBe(100);
      expectClose(gradient, [0, 0.25, -0.25, 0], 1e-6);
    });
  });

  it('what is to be ignored adds nothing, is not counted and has no gradient, be it infinite', async () => {
    await device.scope(async () => {
      const labels = device.tensor(Int32Array.of(-100, 1, -100), [3], 'i32');
      const logits = device.tensor([Number.POSITIVE_INFINITY, 0, 0, 0, Number.NaN, 1], [3, 2]);
      const [value, gradient] = await valueAndGradient(logits, (x) => crossEntropy(x, labels));
      expect(value).toBeCloseTo(Math.log(2), 6);
      expectClose(gradient, [0, 0, 0.5, -0.5, 0, 0], 1e-6);
      const targets = device.tensor([-1, 1, 0, -1], [4]);
      const inputs = device.tensor([Number.NaN, 0, 0, Number.NEGATIVE_INFINITY], [4]);
      const [mean, slopes] = await valueAndGradient(inputs, (x) => binaryCrossEntropyWithLogits(x, targets));
      expect(mean).toBeCloseTo(Math.log(2), 6);
      expectClose(slopes, [0, -0.25, 0.25, 0], 1e-6);
      expect(await binaryCrossEntropyWithLogits(inputs, device.full([4], -1)).item()).toBe(0);
    });
  });

  it('smooth L1 of both inputs, at the joint too', async () => {
    await device.scope(async () => {
      const target = device.tensor([0, 0, 0, 0, 0], [5]);
      target.requiresGrad = true;
      const input = device.tensor([0, 0.25, 0.5, -2, 3], [5]);
      const [value, gradient] = await valueAndGradient(input, (x) =>
        smoothL1Loss(x, target, { beta: 0.5, reduction: 'sum' }),
      );
      expect(value).toBeCloseTo(0 + 0.0625 + 0.25 + 1.75 + 2.75, 6);
      expectClose(gradient, [0, 0.5, 1, -1, 1], 1e-6);
      expectClose(await target.grad!.floats(), [0, -0.5, -1, 1, -1], 1e-6);
      target.grad!.dispose();
      expect(() => smoothL1Loss(input, target, { beta: 0 })).toThrow('smooth_l1_loss: beta: expected a number above 0');
    });
  });

  it('a loss of nothing is 0 and has a graph', async () => {
    await device.scope(async () => {
      const labels = device.zeros([0], 'i32');
      const cases: [number[], (x: Tensor) => Tensor][] = [
        [[0, 4], (x) => crossEntropy(x, labels)],
        [[0, 28, 28], (x) => binaryCrossEntropyWithLogits(x, device.zeros([0, 28, 28]))],
        [[0, 4], (x) => smoothL1Loss(x, device.zeros([0, 4]), { beta: 1 / 9, reduction: 'sum' })],
        [[0, 4], (x) => smoothL1Loss(x, device.zeros([0, 4]))],
      ];
      for (const [shape, loss] of cases) {
        const [value, gradient] = await valueAndGradient(device.zeros(shape), loss);
        expect(value).toBe(0);
        expect(gradient.length).toBe(0);
      }
    });
  });

  it('refuses shapes that do not fit', () => {
    device.scope(() => {
      const logits = device.zeros([3, 4]);
      expect(() => crossEntropy(logits, device.zeros([2], 'i32'))).toThrow(
        'cross_entropy: labels: expected i32[3], got i32[2].',
      );
      expect(() => crossEntropy(logits, device.zeros([3]))).toThrow('labels: expected i32[3], got f32[3].');
      expect(() => binaryCrossEntropyWithLogits(logits, device.zeros([4, 3]))).toThrow(
        'targets: expected [3,4], got f32[4, 3].',
      );
      expect(() => smoothL1Loss(logits, device.zeros([12]))).toThrow('target: expected [3,4], got f32[12].');
    });
  });

  describe.skipIf(!haveGoldens)('goldens', () => {
    const apply: Record<string, (inputs: Record<string, Tensor>, params: SmoothL1Options) => Tensor> = {
      cross_entropy: ({ logits, labels }) => crossEntropy(logits, labels),
      binary_cross_entropy_with_logits: ({ logits, targets }) => binaryCrossEntropyWithLogits(logits, targets),
      smooth_l1_loss: ({ input, target }, params) => smoothL1Loss(input, target, params),
    };
    for (const golden of opsCases('cross_entropy', 'binary_cross_entropy_with_logits', 'smooth_l1_loss')) {
      it(`${golden.index} ${golden.op}`, () =>
        expectGolden(device, golden, (inputs) => apply[golden.op](inputs, golden.params as SmoothL1Options)));
    }
  });
});
