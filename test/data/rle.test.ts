import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import { removeOverlaps, rleDecode, rleEncode } from '../../src/data/rle.ts';
import { seeded } from '../support/random.ts';
import { dataGoldens, hasGoldens } from './goldenData.ts';

const sum = (mask: Uint8Array): number => mask.reduce((total, value) => total + value, 0);

describe('run-length encoding', () => {
  it('decodes what it encoded', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9 }), fc.array(fc.boolean(), { maxLength: 60 }), (width, bits) => {
        const height = Math.ceil(bits.length / width);
        const mask = new Uint8Array(width * height);
        bits.forEach((bit, i) => {
          mask[i] = Number(bit);
        });
        expect(rleDecode(rleEncode(mask), width, height, 'here')).toEqual(mask);
      }),
    );
  });

  it('takes any white space, runs in any order, and a colour', () => {
    expect([...rleDecode(' 5\t2\n1 1 ', 3, 2, 'here', 7)]).toEqual([7, 0, 0, 0, 7, 7]);
    expect([...rleDecode('', 2, 1, 'here')]).toEqual([0, 0]);
  });

  it.each([
    ['1 2 3', '3 numbers'],
    ['1 x', '"x"'],
    ['1.5 2', '"1.5"'],
    ['-1 2', '"-1"'],
    ['0 1', 'starts at 0'],
    ['7 1', 'starts at 7'],
    ['3 0', 'length 0'],
    ['5 3', 'beyond'],
    ['99999999999999999999 1', 'starts at'],
    ['1 99999999999', 'beyond'],
  ])('refuses "%s", naming the row', (text, part) => {
    expect(() => rleDecode(text, 3, 2, 'train.csv, line 8')).toThrow(UserError);
    expect(() => rleDecode(text, 3, 2, 'train.csv, line 8')).toThrow(/^train\.csv, line 8: /);
    expect(() => rleDecode(text, 3, 2, 'train.csv, line 8')).toThrow(part);
  });
});

describe('removeOverlaps', () => {
  it('leaves each pixel with the first mask, whatever the alignment of the memory', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 23 }),
        fc.integer({ min: 0, max: 6 }),
        fc.integer({ min: 0, max: 3 }),
        fc.integer(),
        (pixels, count, offset, seed) => {
          const next = seeded(seed);
          const masks = Array.from({ length: count }, () =>
            new Uint8Array(new ArrayBuffer(pixels + offset), offset).map(() => Number(next() < 0.5)),
          );
          const shifted = masks.map((mask) => {
            const view = new Uint8Array(new ArrayBuffer(pixels + offset), offset);
            view.set(mask);
            return view;
          });
          const expected = masks.map((mask, m) =>
            Array.from(mask, (value, i) => (masks.slice(0, m).some((before) => before[i] === 1) ? 0 : value)),
          );
          expect(removeOverlaps(shifted).map((mask) => [...mask])).toEqual(expected);
        },
      ),
    );
  });

  it('takes 500 instances of 704 × 520 in well under a second', () => {
    const one = new Uint8Array(704 * 520).map((_, i) => Number(i % 1000 < 300));
    const masks = Array.from({ length: 500 }, () => one.slice());
    const start = performance.now();
    removeOverlaps(masks);
    expect(performance.now() - start).toBeLessThan(1000);
    expect(sum(masks[0])).toBe(sum(one));
    expect(sum(masks[499])).toBe(0);
  });

  it('refuses masks of different sizes', () => {
    expect(() => removeOverlaps([new Uint8Array(4), new Uint8Array(5)])).toThrow(RangeError);
  });
});

describe.skipIf(!hasGoldens)('golden masks', () => {
  it('decodes and encodes as the notebook', () => {
    const { rle, rleSmall } = dataGoldens();
    const [height, width] = rle.shape;
    for (const { rle: text, area } of rle.masks) {
      const mask = rleDecode(text, width, height, 'golden');
      expect(sum(mask)).toBe(area);
      expect(rleEncode(mask)).toBe(text);
    }
    for (const { mask, rle: text } of rleSmall) {
      const flat = Uint8Array.from(mask.flat());
      expect(rleEncode(flat)).toBe(text);
      expect(rleDecode(text, mask[0].length, mask.length, 'golden')).toEqual(flat);
    }
  });

  it('removes overlaps as the notebook', () => {
    const { removeOverlaps: golden } = dataGoldens();
    const [height, width] = golden.shape;
    const masks = golden.in.map((text) => rleDecode(text, width, height, 'golden'));
    expect(removeOverlaps(masks).map(rleEncode)).toEqual(golden.out);
  });
});
