import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { samplePositiveNegative } from '../../src/model/sampler.ts';

const identity = (n: number): Int32Array => Int32Array.from({ length: n }, (_, i) => i);
const reversed = (n: number): Int32Array => identity(n).reverse();

describe('samplePositiveNegative', () => {
  const labels = Int32Array.of(0, 2, -1, 1, 0, 3, -2, 0, 1, 0);

  it('takes at most the share of positives and fills up with negatives, rows ascending', () => {
    const { positive, negative } = samplePositiveNegative(labels, 6, 0.5, identity);
    expect([...positive]).toEqual([1, 3, 5]);
    expect([...negative]).toEqual([0, 4, 7]);
  });

  it('takes the first entries of the permutation', () => {
    const { positive, negative } = samplePositiveNegative(labels, 4, 0.25, reversed);
    expect([...positive]).toEqual([8]);
    expect([...negative]).toEqual([4, 7, 9]);
  });

  it('asks for the positives first, then for the negatives, once each', () => {
    const asked: number[] = [];
    samplePositiveNegative(labels, 6, 0.5, (n) => {
      asked.push(n);
      return identity(n);
    });
    expect(asked).toEqual([4, 4]);
  });

  it('rounds the number of positives down and does not fill up with positives', () => {
    const { positive, negative } = samplePositiveNegative(Int32Array.of(1, 1, 1, 1, 0), 5, 0.5, identity);
    expect([...positive]).toEqual([0, 1]);
    expect([...negative]).toEqual([4]);
  });

  it('takes no row twice and none that is ignored, whatever the labels', () => {
    const property = fc.property(
      fc.array(fc.integer({ min: -2, max: 3 }), { maxLength: 60 }),
      fc.integer({ min: 1, max: 40 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.nat(),
      (values, size, fraction, seed) => {
        const all = Int32Array.from(values);
        const random = new Random(seed);
        const { positive, negative } = samplePositiveNegative(all, size, fraction, (n) => random.permutation(n));
        expect(positive.every((row) => all[row] >= 1)).toBe(true);
        expect(negative.every((row) => all[row] === 0)).toBe(true);
        for (const rows of [positive, negative]) expect([...new Set(rows)].sort((a, b) => a - b)).toEqual([...rows]);
        const positives = values.filter((value) => value >= 1).length;
        const negatives = values.filter((value) => value === 0).length;
        expect(positive.length).toBe(Math.min(positives, Math.trunc(size * fraction)));
        expect(negative.length).toBe(Math.min(negatives, size - positive.length));
      },
    );
    fc.assert(property, { seed: 3, numRuns: 200 });
  });
});
