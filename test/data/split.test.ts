import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import type { ImageRecord } from '../../src/data/dataset.ts';
import { Random } from '../../src/data/random.ts';
import { stratifiedSplit, trainTestSplit } from '../../src/data/split.ts';
import { dataGoldens, hasGoldens } from './goldenData.ts';

function recordsOf(labels: number[][]): ImageRecord[] {
  return labels.map((own, i) => ({
    id: `image${i}`,
    path: `image${i}.png`,
    width: 1,
    height: 1,
    annotations: own.map((label) => ({ rle: '1 1', label, line: i + 2 })),
  }));
}

const labelsOf = (records: ImageRecord[]): Set<number> =>
  new Set(records.flatMap(({ annotations }) => annotations.map(({ label }) => label)));

describe('stratifiedSplit', () => {
  const records = recordsOf(Array.from({ length: 60 }, (_, i) => [i < 30 ? 1 : i < 50 ? 2 : 3]));

  it('takes the same share of each type, keeps the order, and follows the seed', () => {
    const { train, validation } = stratifiedSplit(records, 0.2, new Random(1));
    const count = (side: ImageRecord[], label: number): number => side.filter((r) => labelsOf([r]).has(label)).length;
    expect([1, 2, 3].map((label) => count(validation, label))).toEqual([6, 4, 2]);
    expect(train).toHaveLength(48);
    expect(train).toEqual(records.filter((record) => !validation.includes(record)));
    expect(validation).toEqual(records.filter((record) => validation.includes(record)));
    expect(stratifiedSplit(records, 0.2, new Random(1)).validation).toEqual(validation);
    expect(stratifiedSplit(records, 0.2, new Random(2)).validation).not.toEqual(validation);
  });

  it('gives rare types one image each, and images without cells their share', () => {
    const rare = recordsOf([...Array.from({ length: 20 }, () => [1]), [2], [2], [3], [], [], [], []]);
    const { train, validation } = stratifiedSplit(rare, 0.1, new Random(4));
    expect([...labelsOf(validation)].sort()).toEqual([1, 2]);
    expect([...labelsOf(train)].sort()).toEqual([1, 2, 3]);
    expect(validation.some(({ annotations }) => annotations.length === 0)).toBe(true);
  });

  it('brings a class that is never the commonest of an image to both sides', () => {
    const mixed = recordsOf([...Array.from({ length: 30 }, () => [1, 1]), [1, 1, 2], [1, 1, 2]]);
    for (let seed = 0; seed < 20; seed++) {
      const { train, validation } = stratifiedSplit(mixed, 0.1, new Random(seed));
      expect([...labelsOf(train)].sort(), `seed ${seed}`).toEqual([1, 2]);
      expect([...labelsOf(validation)].sort(), `seed ${seed}`).toEqual([1, 2]);
    }
  });

  it('is a partition that covers each single-type class of two or more images, whatever the images', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 30 }),
        fc.double({ min: 0.01, max: 0.9, noNaN: true }),
        fc.integer(),
        (labels, fraction, seed) => {
          const all = recordsOf(labels.map((label) => [label]));
          const { train, validation } = stratifiedSplit(all, fraction, new Random(seed));
          expect([...train, ...validation].map(({ id }) => id).sort()).toEqual(all.map(({ id }) => id).sort());
          for (const label of new Set(labels)) {
            expect(labelsOf(train).has(label)).toBe(true);
            const several = labels.filter((other) => other === label).length >= 2;
            expect(labelsOf(validation).has(label)).toBe(several);
          }
        },
      ),
    );
  });

  it('lets training see every class of images with several types, whatever the images', () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 4 }), { minLength: 2, maxLength: 14 }),
        fc.double({ min: 0.01, max: 0.9, noNaN: true }),
        fc.integer(),
        (labels, fraction, seed) => {
          const all = recordsOf(labels);
          const { train, validation } = stratifiedSplit(all, fraction, new Random(seed));
          expect([...train, ...validation].map(({ id }) => id).sort()).toEqual(all.map(({ id }) => id).sort());
          expect([...labelsOf(train)].sort()).toEqual([...labelsOf(all)].sort());
        },
      ),
    );
  });

  it('keeps the only image of a class for training, and another for validation in its place', () => {
    for (let seed = 0; seed < 20; seed++) {
      const { train, validation } = stratifiedSplit(recordsOf([[1], [1, 1, 2]]), 0.1, new Random(seed));
      expect([...labelsOf(train)].sort(), `seed ${seed}`).toEqual([1, 2]);
      expect(
        validation.map(({ id }) => id),
        `seed ${seed}`,
      ).toEqual(['image0']);
    }
  });

  it('takes no validation image at 0, and refuses a share out of range', () => {
    expect(stratifiedSplit(records, 0, new Random(1))).toEqual({ train: records, validation: [] });
    for (const fraction of [1, -0.1, Number.NaN]) {
      expect(() => stratifiedSplit(records, fraction, new Random(1))).toThrow(UserError);
    }
  });
});

describe('trainTestSplit', () => {
  it('refuses what scikit-learn refuses', () => {
    expect(() => trainTestSplit(['a', 'a', 'b'], 0.5, 1)).toThrow('"b" has one image only');
    expect(() => trainTestSplit(['a', 'a', 'a', 'a', 'b', 'b'], 0.1, 1)).toThrow(UserError);
    expect(() => trainTestSplit(['a', 'a', 'b', 'b'], 0.5, -1)).toThrow('seed');
  });

  // scikit-learn 1.9: several classes tie for the last place on each side.
  it('breaks ties as scikit-learn', () => {
    const types = [...'abcdeabcdeabcdeabcdeabcde'];
    for (const { seed, train, test } of TIES) expect(trainTestSplit(types, 0.3, seed)).toEqual({ train, test });
  });

  it.skipIf(!hasGoldens)('equals scikit-learn on the golden splits', () => {
    const { split, splitTypes } = dataGoldens();
    expect(split.length).toBeGreaterThan(0);
    for (const { testSize, randomState, train, test } of split) {
      expect(trainTestSplit(splitTypes, testSize, randomState)).toEqual({ train, test });
    }
  });
});

const TIES = [
  {
    seed: 0,
    train: [6, 13, 17, 12, 18, 21, 22, 14, 23, 10, 7, 19, 5, 0, 16, 20, 24],
    test: [9, 1, 3, 2, 8, 11, 15, 4],
  },
  {
    seed: 1234,
    train: [7, 8, 11, 10, 18, 22, 0, 24, 19, 14, 1, 3, 15, 5, 21, 9, 2],
    test: [20, 23, 4, 13, 16, 17, 12, 6],
  },
  {
    seed: 4294967295,
    train: [21, 10, 9, 5, 2, 1, 11, 15, 22, 19, 14, 16, 4, 3, 7, 13, 18],
    test: [12, 8, 17, 0, 20, 6, 23, 24],
  },
];
