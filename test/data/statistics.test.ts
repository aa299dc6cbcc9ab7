import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  DESCRIPTION_ROWS,
  describe as describeColumn,
  quantileBins,
  quantileEdges,
} from '../../src/data/statistics.ts';
import { formulaValue } from './formula.ts';
import { dataGoldens, hasGoldens } from './goldenData.ts';

// pandas 3.1 on the columns 1 + formulaValue(i, seed, limit): describe(), and qcut(5, duplicates='drop') with its sizes.
const COLUMNS = [
  {
    n: 1,
    seed: 1,
    limit: 50,
    description: [1, 17, Number.NaN, 17, 17, 17, 17, 17],
    labels: undefined,
    sizes: undefined,
  },
  {
    ...{ n: 2, seed: 2, limit: 50, description: [2, 23, 14.142135623730951, 13, 18, 23, 28, 33] },
    labels: ['(12.999, 17.0]', '(17.0, 21.0]', '(21.0, 25.0]', '(25.0, 29.0]', '(29.0, 33.0]'],
    sizes: [1, 0, 0, 0, 1],
  },
  {
    ...{ n: 7, seed: 3, limit: 50, description: [7, 20.857142857142858, 18.123912118419423, 1, 4.5, 27, 29.5, 50] },
    labels: ['(0.999, 3.6]', '(3.6, 14.4]', '(14.4, 28.2]', '(28.2, 29.8]', '(29.8, 50.0]'],
    sizes: [2, 1, 1, 1, 2],
  },
  {
    ...{ n: 13, seed: 3, limit: 4, description: [13, 2.3846153846153846, 1.192927878405448, 1, 1, 2, 3, 4] },
    labels: ['(0.999, 2.0]', '(2.0, 3.0]', '(3.0, 3.6]', '(3.6, 4.0]'],
    sizes: [7, 3, 0, 3],
  },
  {
    ...{ n: 606, seed: 5, limit: 700 },
    description: [606, 349.8399339933993, 202.0833617107708, 2, 175.25, 346, 521.75, 700],
    labels: ['(1.999, 141.0]', '(141.0, 282.0]', '(282.0, 417.0]', '(417.0, 560.0]', '(560.0, 700.0]'],
    sizes: [123, 120, 121, 121, 121],
  },
  {
    ...{ n: 1000, seed: 6, limit: 9, description: [1000, 5.009, 2.5763455817410357, 1, 3, 5, 7, 9] },
    labels: ['(0.999, 2.0]', '(2.0, 4.0]', '(4.0, 6.0]', '(6.0, 8.0]', '(8.0, 9.0]'],
    sizes: [221, 225, 216, 230, 108],
  },
];

describe('columns of numbers', () => {
  it.each(COLUMNS)('are described as by pandas: $n values', ({ n, seed, limit, description, labels, sizes }) => {
    const values = Array.from({ length: n }, (_, i) => 1 + formulaValue(i, seed, limit));
    const own = describeColumn(values);
    expect(DESCRIPTION_ROWS.map((row) => own[row])).toEqual(description);
    if (labels === undefined) return;
    const bins = quantileBins(values, 5);
    expect(bins.map(({ label }) => label)).toEqual(labels);
    expect(bins.map(({ members }) => members.length)).toEqual(sizes);
  });

  it('give one part where all values are equal, and names of more digits where edges are near', () => {
    expect(quantileBins([4, 4, 4], 5)).toEqual([{ label: '(3.999, 4.0]', members: [0, 1, 2] }]);
    expect(quantileBins([0.5, 0.50001, 0.50002], 2).map(({ label }) => label)).toEqual([
      '(0.49999, 0.50001]',
      '(0.50001, 0.50002]',
    ]);
    expect(describeColumn([]).count).toBe(0);
    expect(describeColumn([]).max).toBeNaN();
  });

  it('fall into parts that hold each value once, between edges that never fall', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 30 }), { minLength: 1, maxLength: 80 }),
        fc.integer({ min: 1, max: 7 }),
        (values, parts) => {
          const edges = quantileEdges(values, parts);
          expect(edges).toHaveLength(parts + 1);
          expect(edges[0]).toBe(Math.min(...values));
          expect(edges[parts]).toBe(Math.max(...values));
          for (let i = 0; i < parts; i++) expect(edges[i + 1]).toBeGreaterThanOrEqual(edges[i]);
          const members = quantileBins(values, parts).flatMap((bin) => bin.members);
          expect(members.sort((a, b) => a - b)).toEqual(values.map((_, i) => i));
        },
      ),
    );
  });

  it.skipIf(!hasGoldens)('equal the goldens to the last bit', () => {
    const { describe: golden, splitTypes } = dataGoldens();
    for (const [type, expected] of Object.entries(golden.byType)) {
      const values = golden.counts.filter((_, i) => splitTypes[i] === type);
      expect(describeColumn(values), type).toEqual(expected);
      expect(quantileEdges(values, 5), type).toEqual(golden.qcut5Edges[type]);
    }
    expect(Object.keys(golden.byType)).toHaveLength(3);
  });
});
