import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { joinSamples, type SampleOrder, samplePositiveNegative } from '../../src/kernels/sampler.ts';
import type { Device } from '../../src/tensor/device.ts';
import { samplePositiveNegative as reference } from '../reference/sampler.ts';
import { testDevice } from '../support/device.ts';
import { seeded } from '../support/random.ts';

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

const orders: SampleOrder[] = [
  { kind: 'identity' },
  { kind: 'reversed' },
  { kind: 'hashed', start: 0xdeadbeef },
  { kind: 'random', seed: 7 },
];

/** Rows of each set without padding, after a check of the padding. */
function sampled(
  sets: readonly ArrayLike<number>[],
  batchSize: number,
  positiveFraction: number,
  order: SampleOrder,
  firstSet = 0,
): Promise<number[][]> {
  return device.scope(async () => {
    const matches = device.tensor(Int32Array.from(sets.flatMap((set) => Array.from(set))), [
      sets.length,
      sets[0].length,
    ]);
    const found = samplePositiveNegative(matches, { batchSize, positiveFraction, order, firstSet });
    const [rows, counts] = await device.readAll([found.rows, found.counts]);
    expect(found.rows.shape).toEqual([sets.length, batchSize]);
    return Array.from(counts, (count, set) => {
      const own = [...rows.subarray(set * batchSize, (set + 1) * batchSize)];
      expect(own.slice(count).every((row) => row === -1)).toBe(true);
      return own.slice(0, count);
    });
  });
}

describe('samplePositiveNegative', () => {
  const matches = [-1, 2, -2, 1, -1, 3, -3, -1, 0, -1];

  it('takes at most the share of positives and fills up with negatives, rows ascending', async () => {
    expect(await sampled([matches], 6, 0.5, { kind: 'identity' })).toEqual([[0, 1, 3, 4, 5, 7]]);
    expect(await sampled([matches], 4, 0.25, { kind: 'reversed' })).toEqual([[4, 7, 8, 9]]);
  });

  it('rounds the number of positives down and does not fill up with positives', async () => {
    expect(await sampled([[0, 0, 0, 0, -1]], 5, 0.5, { kind: 'identity' })).toEqual([[0, 1, 4]]);
  });

  it.each([
    [1, 1],
    [63, 16],
    [64, 64],
    [1000, 256],
    [20_000, 256],
  ])('agrees with sorting by keys: %i rows, %i taken', async (n, size) => {
    const next = seeded(n);
    // Sets with few positives, with many, without any, and with nothing else.
    const sets = [0.02, 0.6, 0, 1].map((share) =>
      Int32Array.from({ length: n }, () => (next() < share ? Math.floor(next() * 5) : next() < 0.1 ? -2 : -1)),
    );
    for (const order of orders) {
      const expected = sets.map((set, index) => reference(set, size, 0.25, order, 3 + index));
      expect(await sampled(sets, size, 0.25, order, 3), order.kind).toEqual(expected);
    }
  });

  it('agrees whatever the matches', () => {
    const property = fc.asyncProperty(
      fc.array(fc.integer({ min: -3, max: 2 }), { minLength: 1, maxLength: 90 }),
      fc.integer({ min: 1, max: 40 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.constantFrom(...orders),
      async (values, size, fraction, order) => {
        expect(await sampled([values], size, fraction, order)).toEqual([reference(values, size, fraction, order)]);
      },
    );
    return fc.assert(property, { seed: 3, numRuns: 60 });
  });

  it('draws evenly: each of 50 candidates is taken about as often', async () => {
    const taken = new Float64Array(50);
    const sets = Array.from({ length: 400 }, () => new Int32Array(50).fill(-1));
    for (const rows of await sampled(sets, 10, 0.5, { kind: 'random', seed: 1 })) for (const row of rows) taken[row]++;
    // Binomial: 80 ± 8.
    expect(Math.min(...taken)).toBeGreaterThan(48);
    expect(Math.max(...taken)).toBeLessThan(112);
  });
});

describe('joinSamples', () => {
  it('puts sets together, padding last, with matches and the count', () =>
    device.scope(async () => {
      const values = [-1, 4, -2, 7, -2, -2, -2, -2, -2, 5, -1, -2];
      const matches = device.tensor(Int32Array.from(values), [3, 4]);
      const order: SampleOrder = { kind: 'identity' };
      const { rows, matched, total } = joinSamples(
        samplePositiveNegative(matches, { batchSize: 4, positiveFraction: 0.25, order }),
        matches,
      );
      expect([...(await rows.ints())]).toEqual([0, 1, 9, 10, -1, -1, -1, -1, -1, -1, -1, -1]);
      expect([...(await matched.ints())]).toEqual([-1, 4, 5, -1, -3, -3, -3, -3, -3, -3, -3, -3]);
      expect(await total.item()).toBe(4);
      const nothing = device.tensor(Int32Array.of(-2, -2), [1, 2]);
      const none = samplePositiveNegative(nothing, { batchSize: 2, positiveFraction: 0.5, order });
      expect(await joinSamples(none, nothing).total.item()).toBe(1);
    }));
});
