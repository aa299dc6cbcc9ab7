import { beforeAll, describe, expect, it } from 'vitest';
import { kernelChoice } from '../../src/kernels/kernelChoice.ts';
import { linear } from '../../src/kernels/linear.ts';
import { matmul } from '../../src/kernels/matmul.ts';
import { tileRows } from '../../src/kernels/tile.ts';
import type { Device } from '../../src/tensor/device.ts';
import { linear as linearReference } from '../reference/linear.ts';
import { matmul as matmulReference } from '../reference/matmul.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { expectGolden, haveGoldens, opsCases, permuted } from '../support/goldens.ts';
import { uniform } from '../support/random.ts';

describe('matmul and linear', () => {
  let device: Device;
  beforeAll(async () => {
    device = await testDevice();
  });

  const host = (shape: number[], seed: number) => ({
    shape,
    data: Float64Array.from(uniform(shape[0] * shape[1], seed)),
  });

  for (const [m, k, n] of [
    [1, 1, 1],
    [1, 4, 4],
    [3, 5, 2],
    [16, 32, 32],
    [17, 33, 31],
    [70, 12, 65],
    [2, 300, 3],
    [129, 8, 36],
  ]) {
    for (const transposeA of [false, true]) {
      for (const transposeB of [false, true]) {
        it(`[${m}, ${k}] · [${k}, ${n}]${transposeA ? ', A transposed' : ''}${transposeB ? ', B transposed' : ''}`, async () => {
          const a = host(transposeA ? [k, m] : [m, k], 1);
          const b = host(transposeB ? [n, k] : [k, n], 2);
          await device.scope(async () => {
            const c = matmul(device.tensor([...a.data], a.shape), device.tensor([...b.data], b.shape), {
              transposeA,
              transposeB,
            });
            const expected = matmulReference({ a, b }, { transposeA, transposeB });
            expect(c.shape).toEqual(expected.shape);
            expectClose(await c.floats(), expected.data, 1e-5);
          });
        });
      }
    }
  }

  it('sums a long transposed product in splits, the same way every time', async () => {
    const a = host([5003, 6], 3);
    const b = host([5003, 10], 4);
    await device.scope(async () => {
      const left = device.tensor([...a.data], a.shape);
      const right = device.tensor([...b.data], b.shape);
      const first = await matmul(left, right, { transposeA: true }).floats();
      expectClose(first, matmulReference({ a, b }, { transposeA: true }).data, 1e-5);
      expect(await matmul(left, right, { transposeA: true }).floats()).toEqual(first);
    });
  });

  it('has zeros where the sums are empty, and nothing where the result is', async () => {
    await device.scope(async () => {
      const none = device.tensor([], [0, 8]);
      const weight = device.tensor(uniform(32, 1), [8, 4]);
      weight.requiresGrad = true;
      const bias = device.tensor([1, 2, 3, 4], [4]);
      bias.requiresGrad = true;
      const y = linear(none, weight, bias, { relu: true });
      expect(y.shape).toEqual([0, 4]);
      device.backward(y, device.tensor([], [0, 4]));
      expect(await weight.grad!.floats()).toEqual(new Float32Array(32));
      expect(await bias.grad!.floats()).toEqual(new Float32Array(4));
      weight.grad!.dispose();
      bias.grad!.dispose();
      const sums = matmul(device.tensor([], [3, 0]), device.tensor([], [0, 4]));
      expect(await sums.floats()).toEqual(new Float32Array(12));
    });
  });

  it('never lets garbage beyond the operands into a result', async () => {
    // The smallest buffers of the pool held infinities, which times zero make NaN, and are lent again.
    device.scope(
      () => [device.full([64], Number.POSITIVE_INFINITY), device.full([64], Number.NEGATIVE_INFINITY)].length,
    );
    await device.scope(async () => {
      const a = host([3, 5], 5);
      const b = host([5, 3], 6);
      const left = device.tensor([...a.data], a.shape);
      const right = device.tensor([...b.data], b.shape);
      expectClose(await matmul(left, right).floats(), matmulReference({ a, b }, {}).data, 1e-5);
      const transposed = matmul(left, left, { transposeA: true });
      expectClose(await transposed.floats(), matmulReference({ a, b: a }, { transposeA: true }).data, 1e-5);
    });
  });

  it('clamps by ReLU and passes no gradient where it clamped', async () => {
    await device.scope(async () => {
      const x = device.tensor([1, -1, 2, 3], [2, 2]);
      const weight = device.tensor([1, 0, 0, 1], [2, 2]);
      x.requiresGrad = true;
      const y = linear(x, weight, device.tensor([0, -2], [2]), { relu: true });
      expect([...(await y.floats())]).toEqual([1, 0, 2, 1]);
      device.backward(y, device.tensor([10, 20, 30, 40], [2, 2]));
      expect([...(await x.grad!.floats())]).toEqual([10, 0, 30, 40]);
      x.grad!.dispose();
    });
  });

  it('adds to gradients that are already there', async () => {
    const x = host([6, 5], 7);
    const weight = host([5, 3], 8);
    await device.scope(async () => {
      const [input, w, bias] = [
        device.tensor([...x.data], x.shape),
        device.tensor([...weight.data], weight.shape),
        device.tensor([1, 2, 3], [3]),
      ];
      for (const leaf of [input, w, bias]) leaf.requiresGrad = true;
      const upstream = device.full([6, 3], 1);
      device.backward(linear(input, w, bias), upstream);
      const once = await Promise.all([input, w, bias].map((leaf) => leaf.grad!.floats()));
      device.backward(linear(input, w, bias), upstream);
      const twice = await Promise.all([input, w, bias].map((leaf) => leaf.grad!.floats()));
      for (const [i, values] of once.entries()) {
        const doubled = values.map((value) => 2 * value);
        expectClose(twice[i], doubled, 1e-6);
      }
      for (const leaf of [input, w, bias]) leaf.grad!.dispose();
    });
  });

  it('covers more tiles than one dimension of a grid holds', async () => {
    const tile = kernelChoice(device).product({ direction: 'row', rows: 1e6, columns: 1, depth: 1 });
    const rows = (tile === 'naive' ? 64 : tileRows(tile)) * 65_535 + 100;
    await device.scope(async () => {
      const a = uniform(rows, 9);
      const c = matmul(device.tensor(a, [rows, 1]), device.tensor([2], [1, 1]));
      expectClose(
        await c.floats(),
        a.map((value) => 2 * value),
        1e-6,
      );
    });
  });

  it('names what does not fit', () => {
    device.scope(() => {
      const a = device.zeros([3, 4]);
      expect(() => matmul(a, a)).toThrow('matmul: b: expected [4, N]');
      expect(() => linear(a, device.zeros([4, 2]), device.zeros([3]))).toThrow('linear: bias: expected [2]');
    });
  });

  it('agrees with the float64 reference on a fused layer', async () => {
    const x = host([37, 21], 11);
    const weight = host([21, 40], 12);
    const bias = { shape: [40], data: Float64Array.from(uniform(40, 13)) };
    await device.scope(async () => {
      const y = linear(
        device.tensor([...x.data], x.shape),
        device.tensor([...weight.data], weight.shape),
        device.tensor([...bias.data], [40]),
        { relu: true },
      );
      expectClose(await y.floats(), linearReference({ x, weight, bias }, { relu: true }).data, 1e-5);
    });
  });

  describe.skipIf(!haveGoldens)('torch', () => {
    for (const golden of opsCases('matmul')) {
      it(`matmul ${JSON.stringify(golden.params)}`, () =>
        expectGolden(
          device,
          golden,
          ({ a, b }) =>
            matmul(a, b, {
              transposeA: Boolean(golden.params.transposeA),
              transposeB: Boolean(golden.params.transposeB),
            }),
          1e-5,
        ));
    }
    for (const golden of opsCases('linear')) {
      it(`linear case ${golden.index}`, () => {
        const { weight } = golden.inputs;
        const transposed = {
          ...golden,
          inputs: { ...golden.inputs, weight: permuted(weight, [1, 0]) },
          grads: { ...golden.grads, weight: permuted(golden.grads.weight, [1, 0]) },
        };
        return expectGolden(device, transposed, ({ x, weight: w, bias }) => linear(x, w, bias), 1e-5);
      });
    }
  });
});
