import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { numpyArgsort, sortValuesOrder } from '../../src/data/numpySort.ts';
import { fnv, formulaValue } from './formula.ts';

const column = (n: number, seed: number, limit: number): number[] =>
  Array.from({ length: n }, (_, i) => formulaValue(i, seed, limit));

/** Musser's sequence (1997) that makes the median of three a bad pivot, so that heapsort must take over. */
const killer = (n: number): number[] =>
  Array.from({ length: n }, (_, i) => (i >= n / 2 ? 2 * (i - n / 2 + 1) : i % 2 === 0 ? i + 1 : n / 2 + i));

// NumPy 2.4 under NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX512_ICL": np.argsort(column), and the row order of pandas 3.1's
// sort_values(ascending=False), as FNV-1a over the indices.
const ORDERS = [
  { n: 17, seed: 1, limit: 3, rising: 1793426893, falling: 3141254079 },
  { n: 18, seed: 2, limit: 1, rising: 704026634, falling: 3448934682 },
  { n: 100, seed: 3, limit: 7, rising: 3542100201, falling: 4125258089 },
  { n: 606, seed: 4, limit: 700, rising: 208127432, falling: 2980274234 },
  { n: 606, seed: 5, limit: 12, rising: 3832708608, falling: 799493596 },
  { n: 5000, seed: 6, limit: 40, rising: 572527681, falling: 2895178191 },
  { n: 5000, seed: 7, limit: 1e9, rising: 2344269195, falling: 722991419 },
];

describe('numpyArgsort', () => {
  it.each(ORDERS)('orders $n values below $limit as NumPy, ties included', ({ n, seed, limit, rising, falling }) => {
    const values = column(n, seed, limit);
    expect(fnv(numpyArgsort(values))).toBe(rising);
    expect(fnv(sortValuesOrder(values))).toBe(rising);
    expect(fnv(sortValuesOrder(values, false))).toBe(falling);
  });

  it('moves equal values from the first length on that is split', () => {
    expect([...numpyArgsort(Array(16).fill(0))]).toEqual(Array.from({ length: 16 }, (_, i) => i));
    expect([...numpyArgsort(Array(17).fill(0))]).toEqual([0, 14, 13, 12, 11, 10, 9, 15, 8, 6, 5, 4, 3, 2, 1, 7, 16]);
  });

  it('falls back to heapsort as NumPy', () => {
    expect(fnv(numpyArgsort(killer(200)))).toBe(3822414285);
    expect(fnv(numpyArgsort(killer(2000)))).toBe(2744294233);
    expect(fnv(numpyArgsort(killer(2000).map((value) => Math.floor(value / 8))))).toBe(1973010537);
  });

  it('is a sorting permutation of any column', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -5, max: 5 }), { maxLength: 300 }), fc.boolean(), (values, ascending) => {
        const order = [...sortValuesOrder(values, ascending)];
        const sorted = [...values].sort((a, b) => (ascending ? a - b : b - a));
        expect(order.map((i) => values[i])).toEqual(sorted);
        expect([...order].sort((a, b) => a - b)).toEqual(values.map((_, i) => i));
      }),
    );
  });
});
