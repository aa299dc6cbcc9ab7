import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import type { ImageRecord } from '../../src/data/dataset.ts';
import { Random } from '../../src/data/random.ts';
import { stratifiedSplit } from '../../src/data/split.ts';
import { checkSplitClasses } from '../../src/data/splitClasses.ts';

function record(id: string, labels: number[], crowds: number[] = []): ImageRecord {
  const annotations = [
    ...labels.map((label) => ({ rle: '1 1', label, line: 1 })),
    ...crowds.map((label) => ({ rle: '1 1', label, line: 1, iscrowd: true as const })),
  ];
  return { id, path: `${id}.png`, width: 1, height: 1, annotations };
}

describe('checkSplitClasses', () => {
  const classes = ['round', 'spindle'];

  it('accepts validation classes that were trained, and classes that no image shows', () => {
    checkSplitClasses([record('a', [1]), record('b', [2])], [record('c', [2, 1]), record('d', [])], classes);
    checkSplitClasses([record('a', [1])], [record('b', [1])], classes);
    checkSplitClasses([record('a', [1])], [], classes);
  });

  it('names the class and the image of one that was not, crowds being no training', () => {
    const train = [record('a', [1], [2])];
    const check = () => checkSplitClasses(train, [record('b', [1]), record('c', [1, 2])], classes);
    expect(check).toThrow(UserError);
    expect(check).toThrow('validation image "c" shows "spindle", which no training image does');
    checkSplitClasses(train, [record('c', [1], [2])], classes);
  });

  it('finds nothing to say against stratifiedSplit, whatever classes its images share', () => {
    const images = fc.array(fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 4 }), {
      minLength: 2,
      maxLength: 12,
    });
    fc.assert(
      fc.property(images, fc.double({ min: 0.05, max: 0.9, noNaN: true }), fc.integer(), (labels, share, seed) => {
        const records = labels.map((own, i) => record(`image${i}`, own));
        const { train, validation } = stratifiedSplit(records, share, new Random(seed));
        expect(train.length + validation.length).toBe(records.length);
        checkSplitClasses(train, validation, ['a', 'b', 'c', 'd', 'e']);
      }),
      { numRuns: 500 },
    );
  });
});
