import { beforeAll, describe, expect, it } from 'vitest';
import { mean, reduceToShape, sum } from '../../src/kernels/reduce.ts';
import type { Device } from '../../src/tensor/device.ts';
import { sizeOf } from '../../src/tensor/tensor.ts';
import { references } from '../reference/index.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { expectGolden, haveGoldens, opsCases } from '../support/goldens.ts';
import { uniform } from '../support/random.ts';

describe('reductions', () => {
  let device: Device;
  beforeAll(async () => {
    device = await testDevice();
  });

  const cases: [number[], { dim?: number | number[]; keepdim?: boolean }][] = [
    [[], {}],
    [[1], { dim: 0 }],
    [[3, 4, 5], { dim: [] }],
    [[3, 4, 5], { dim: -1 }],
    [[3, 4, 5], { dim: [0, 1], keepdim: true }],
    // Long sums in every position: all, leading, trailing, in the middle, two that do not merge.
    [[100_003], {}],
    [[5001, 3], { dim: 0 }],
    [[3, 5001], { dim: 1 }],
    [[2, 5001, 3], { dim: 1 }],
    [[7, 3, 701, 2], { dim: [0, 2] }],
    [[701, 3, 7, 2], { dim: [0, 2] }],
    [[2, 3, 2, 3, 2, 3], { dim: [0, 2, 4] }],
    [[2, 3, 2, 3, 2, 3], { dim: [1, 3, 5], keepdim: true }],
    [[0, 3], { dim: 0 }],
    [[3, 0], { dim: 0 }],
    [[0], {}],
  ];
  for (const [shape, params] of cases) {
    it(`sum and mean of [${shape}] over ${JSON.stringify(params)}`, async () => {
      const host = uniform(sizeOf(shape), 3, -0.2, 1);
      for (const [name, operator] of Object.entries({ sum, mean })) {
        const expected = references[name]({ x: { shape, data: Float64Array.from(host) } }, params);
        await device.scope(async () => {
          const x = device.tensor(host, shape);
          x.requiresGrad = true;
          const y = operator(x, params);
          expect([...y.shape]).toEqual(expected.shape);
          expectClose(await y.floats(), expected.data, 1e-5, name);
          device.backward(y, device.full(y.shape, 2));
          const slope = name === 'mean' && x.size > 0 ? (2 * y.size) / x.size : 2;
          expectClose(await x.grad!.floats(), new Float32Array(x.size).fill(slope), 1e-6, `gradient of ${name}`);
          x.grad!.dispose();
        });
      }
    });
  }

  it('gives the same bits every time', async () => {
    await device.scope(async () => {
      const x = device.tensor(uniform(70_001 * 3, 4), [70_001, 3]);
      const first = await sum(x, { dim: 0 }).floats();
      for (let i = 0; i < 3; i++) expect(await sum(x, { dim: 0 }).floats()).toEqual(first);
    });
  });

  it('sums back to a broadcast shape, scaled, and adds to what is there', async () => {
    await device.scope(async () => {
      const x = device.tensor([1, 2, 3, 4, 5, 6], [2, 3]);
      const into = device.tensor([100, 200, 300], [1, 3]);
      expect(reduceToShape(x, [1, 3], { scale: -1, into })).toBe(into);
      expect([...(await into.floats())]).toEqual([95, 193, 291]);
      expect([...(await reduceToShape(x, []).floats())]).toEqual([21]);
    });
  });

  it('refuses dimensions that are not there or given twice', () => {
    device.scope(() => {
      const x = device.zeros([2, 3]);
      expect(() => sum(x, { dim: 2 })).toThrow('sum: dim: expected a dimension of a tensor of rank 2, got 2.');
      expect(() => mean(x, { dim: [1, -1] })).toThrow('mean: dim: expected distinct dimensions, got [1,-1].');
    });
  });

  describe.skipIf(!haveGoldens)('goldens', () => {
    for (const golden of opsCases('sum', 'mean')) {
      const operator = golden.op === 'sum' ? sum : mean;
      it(`${golden.index} ${golden.op}`, () => expectGolden(device, golden, ({ x }) => operator(x, golden.params)));
    }
  });
});
