import { beforeAll, describe, expect, it } from 'vitest';
import { relu, sigmoid } from '../../src/kernels/activations.ts';
import { add, div, mul, sub } from '../../src/kernels/arithmetic.ts';
import { sum } from '../../src/kernels/reduce.ts';
import { softmax } from '../../src/kernels/softmax.ts';
import type { Device } from '../../src/tensor/device.ts';
import { sizeOf, type Tensor } from '../../src/tensor/tensor.ts';
import { references } from '../reference/index.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { expectGolden, haveGoldens, opsCases } from '../support/goldens.ts';
import { uniform } from '../support/random.ts';

const operators: Record<string, (a: Tensor, b: Tensor) => Tensor> = { add, sub, mul, div };

describe('arithmetic with broadcasting', () => {
  let device: Device;
  beforeAll(async () => {
    device = await testDevice();
  });

  const pairs: [number[], number[]][] = [
    [[], []],
    [[1], [1]],
    [[8], [8]],
    [[7], [7]],
    [[], [3, 2]],
    [
      [2, 3, 1, 5],
      [3, 4, 1],
    ],
    [
      [1, 3, 1, 2, 1, 3],
      [2, 1, 2, 1, 2, 1],
    ],
    [[5, 1000], [1000]],
    [
      [0, 3],
      [1, 3],
    ],
  ];
  for (const [name, operator] of Object.entries(operators)) {
    it(`${name} of many shapes, with its gradients`, async () => {
      for (const [i, [shapeA, shapeB]] of pairs.entries()) {
        const hostA = uniform(sizeOf(shapeA), i + 1);
        const hostB = uniform(sizeOf(shapeB), i + 50, 0.5, 2);
        const expected = references[name](
          {
            a: { shape: shapeA, data: Float64Array.from(hostA) },
            b: { shape: shapeB, data: Float64Array.from(hostB) },
          },
          {},
        );
        await device.scope(async () => {
          const a = device.tensor(hostA, shapeA);
          const b = device.tensor(hostB, shapeB);
          a.requiresGrad = true;
          b.requiresGrad = true;
          const y = operator(a, b);
          expect([...y.shape]).toEqual(expected.shape);
          expectClose(await y.floats(), expected.data, 1e-6, `${name} [${shapeA}] [${shapeB}]`);
          // Accumulated twice, so both the first gradient and the one added to it are right.
          const upstream = uniform(y.size, i + 90);
          device.backward(y, device.tensor(upstream, y.shape));
          const once = (await a.grad!.floats()).map((value) => 2 * value);
          const onceB = (await b.grad!.floats()).map((value) => 2 * value);
          device.backward(operator(a, b), device.tensor(upstream, y.shape));
          expect([...a.grad!.shape]).toEqual(shapeA);
          expect([...b.grad!.shape]).toEqual(shapeB);
          expectClose(await a.grad!.floats(), once, 1e-6, `${name}: accumulated gradient of a`);
          expectClose(await b.grad!.floats(), onceB, 1e-6, `${name}: accumulated gradient of b`);
          a.grad!.dispose();
          b.grad!.dispose();
        });
      }
    });
  }

  it('computes beyond 65535 workgroups, and sums that many in its gradient', async () => {
    const size = 65535 * 64 + 67;
    await device.scope(async () => {
      const host = uniform(size, 7);
      const a = device.tensor(host, [size]);
      const one = device.tensor([1], [1]);
      one.requiresGrad = true;
      const y = add(a, one);
      const tail = (await y.floats()).slice(-70);
      expectClose(
        tail,
        host.slice(-70).map((value) => value + 1),
        1e-6,
      );
      device.backward(y, a);
      const total = host.reduce((sumSoFar, value) => sumSoFar + value, 0);
      expect(Math.abs((await one.grad!.item()) - total)).toBeLessThan(0.01);
      one.grad!.dispose();
    });
  });

  it('names the operator, the argument and both shapes when they do not broadcast', () => {
    device.scope(() => {
      const a = device.zeros([2, 3]);
      expect(() => mul(a, device.zeros([2]))).toThrow('mul: b: expected a shape that broadcasts with [2,3], got [2].');
    });
  });

  it('x + x and x · x pass both gradients to x', async () => {
    await device.scope(async () => {
      const x = device.tensor([1, 2, 3], [3]);
      x.requiresGrad = true;
      device.backward(sum(add(mul(x, x), add(x, x))));
      expectClose(await x.grad!.floats(), [4, 6, 8], 1e-6);
      x.grad!.dispose();
    });
  });

  it('sigmoid and softmax hold at large arguments and in empty tensors', async () => {
    await device.scope(async () => {
      expect([...(await sigmoid(device.tensor([-200, -90, 0, 90, 200], [5])).floats())]).toEqual([
        0,
        expect.closeTo(0, 30),
        0.5,
        1,
        1,
      ]);
      expectClose(
        await softmax(device.tensor([1000, 999, -1000, -1000], [2, 2])).floats(),
        [1 / (1 + Math.exp(-1)), 1 / (1 + Math.E), 0.5, 0.5],
        1e-6,
      );
      for (const shape of [[0], [0, 4], [4, 0]]) {
        for (const operator of [sigmoid, relu, softmax]) {
          const x = device.zeros(shape);
          x.requiresGrad = true;
          const y = operator(x);
          expect([...y.shape]).toEqual(shape);
          device.backward(y, device.zeros(shape));
          expect([...x.grad!.shape]).toEqual(shape);
          x.grad!.dispose();
        }
      }
    });
  });

  describe.skipIf(!haveGoldens)('goldens', () => {
    for (const golden of opsCases('add', 'sub', 'mul', 'div')) {
      it(`${golden.index} ${golden.op}`, () => expectGolden(device, golden, ({ a, b }) => operators[golden.op](a, b)));
    }
    const unary: Record<string, (x: Tensor) => Tensor> = { relu, sigmoid, softmax };
    for (const golden of opsCases('relu', 'sigmoid', 'softmax')) {
      it(`${golden.index} ${golden.op}`, () => expectGolden(device, golden, ({ x }) => unary[golden.op](x)));
    }
  });
});
