import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { sortDescending, topK } from '../../src/kernels/topK.ts';
import type { Device } from '../../src/tensor/device.ts';
import { topIndices } from '../reference/topK.ts';
import { testDevice } from '../support/device.ts';
import { uniform } from '../support/random.ts';

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

/** Few distinct values, so that most of the order is decided by the index. */
function withTies(count: number, seed: number): Float32Array {
  return uniform(count, seed, -8, 8).map((value) => Math.round(value) / 4);
}

function check(values: Float32Array, k: number) {
  return device.scope(async () => {
    const top = topK(device.tensor(values, [values.length]), k);
    const expected = topIndices(values, k);
    expect(top.values.shape).toEqual([expected.length]);
    expect(await top.indices.ints()).toEqual(Int32Array.from(expected));
    // Float32Array.from keeps -0, and toEqual tells it from +0: values come out as they went in.
    expect(await top.values.floats()).toEqual(Float32Array.from(expected, (index) => values[index]));
  });
}

describe('sortDescending', () => {
  test.each([0, 1, 2, 3, 63, 64, 65, 255, 256, 257, 512, 513, 1000, 1023, 1024, 1025, 2000, 4096, 4097, 5000])(
    '%i values',
    async (n) => {
      await check(uniform(n, n), n);
      await check(withTies(n, n), n);
    },
  );

  test('is the stable order of any values', () =>
    fc.assert(
      fc.asyncProperty(fc.array(fc.float({ noNaN: true }), { maxLength: 300 }), (values) =>
        check(Float32Array.from(values), values.length),
      ),
      { numRuns: 30, seed: 1 },
    ));

  test('infinities, zeros of both signs, and NaN first', () =>
    device.scope(async () => {
      const values = [0, -0, Number.NEGATIVE_INFINITY, 1e-40, Number.POSITIVE_INFINITY, Number.NaN, -0, 0, -1e-40];
      const { indices } = sortDescending(device.tensor(values, [values.length]));
      expect([...(await indices.ints())]).toEqual([5, 4, 3, 0, 1, 6, 7, 8, 2]);
    }));

  test('40,000 values', () => check(withTies(40_000, 3), 40_000));
});

describe('topK', () => {
  test.each([
    [10, 0],
    [10, 1],
    [10, 20],
    [1000, 999],
    [5000, 1],
    [5000, 1023],
    [5000, 1025],
    [5000, 2000],
    [70_001, 2000],
  ])('of %i the best %i', async (n, k) => {
    await check(uniform(n, n + k), k);
    await check(withTies(n, n + k), k);
  });

  test.each([
    [3, 7, 4],
    [5, 3000, 1500],
    [2, 5001, 5001],
    [0, 10, 3],
    [4, 0, 3],
  ])('%i rows of %i, the best %i of each', (rows, n, k) =>
    device.scope(async () => {
      const values = withTies(rows * n, rows + n);
      const top = topK(device.tensor(values, [rows, n]), k);
      const expected = Array.from({ length: rows }, (_, row) => topIndices(values.subarray(row * n, (row + 1) * n), k));
      expect(top.indices.shape).toEqual([rows, Math.min(n, k)]);
      expect(await top.indices.ints()).toEqual(Int32Array.from(expected.flat()));
      expect(await top.values.floats()).toEqual(
        Float32Array.from(expected.flatMap((indices, row) => indices.map((index) => values[row * n + index]))),
      );
    }),
  );

  test('beyond 65535 workgroups', () =>
    device.scope(async () => {
      const values = uniform(2 * 66_000, 4);
      const { indices } = topK(device.tensor(values, [66_000, 2]), 1);
      const expected = Int32Array.from({ length: 66_000 }, (_, row) =>
        values[2 * row] >= values[2 * row + 1] ? 0 : 1,
      );
      expect(await indices.ints()).toEqual(expected);
    }));

  test('wrong arguments are named', () =>
    device.scope(() => {
      expect(() => topK(device.zeros([3], 'i32'), 1)).toThrow(/topK: values: expected f32/);
      expect(() => topK(device.zeros([3]), 1.5)).toThrow(/topK: k: expected a whole number/);
    }));
});
