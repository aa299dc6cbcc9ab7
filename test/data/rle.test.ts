import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import { combineMasks } from '../../src/data/combineMasks.ts';
import { removeOverlaps, rleDecode, rleDecodeColour, rleEncode } from '../../src/data/rle.ts';
import { seeded } from '../support/random.ts';
import { byteGolden, dataGoldens, hasGoldens } from './goldenData.ts';

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

  it('encodes any mask as a plain scan does, whatever the alignment of the memory', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom(0, 0, 1, 255), fc.integer({ min: 1, max: 11 })), { maxLength: 20 }),
        fc.integer({ min: 0, max: 3 }),
        (runs, offset) => {
          const pixels = runs.flatMap(([value, length]) => Array<number>(length).fill(value));
          const mask = new Uint8Array(new ArrayBuffer(pixels.length + offset), offset);
          mask.set(pixels);
          const expected: number[] = [];
          pixels.forEach((value, i) => {
            if (value === 0) return;
            if (i > 0 && pixels[i - 1] !== 0) expected[expected.length - 1]++;
            else expected.push(i + 1, 1);
          });
          expect(rleEncode(mask)).toBe(expected.join(' '));
        },
      ),
    );
  });

  it('encodes and decodes 500 instances of 704 × 520 in well under a second', () => {
    const [width, height] = [704, 520];
    const masks = Array.from({ length: 500 }, (_, i) => disc(width, height, 40 + i, 30 + ((i * 37) % 440), 24));
    const start = performance.now();
    const texts = masks.map(rleEncode);
    const encoded = performance.now();
    const decoded = texts.map((text) => rleDecode(text, width, height, 'here'));
    expect(encoded - start).toBeLessThan(500);
    expect(performance.now() - encoded).toBeLessThan(500);
    expect(Buffer.compare(decoded[499], masks[499])).toBe(0);
    expect(texts[499].split(' ').length).toBe(2 * 49);
  });

  it('decodes into any shape and colour', () => {
    expect(rleDecodeColour('2 2', [2, 3], 'here')).toEqual(Float32Array.of(0, 1, 1, 0, 0, 0));
    expect(rleDecodeColour('2 2', [2, 3], 'here', 0.5)).toEqual(Float32Array.of(0, 0.5, 0.5, 0, 0, 0));
    expect(rleDecodeColour('2 1', [1, 3, 3], 'here', [7, 8, 9])).toEqual(Float32Array.of(0, 0, 0, 7, 8, 9, 0, 0, 0));
    expect(rleDecodeColour('3 1', [1, 3, 2], 'here', 4)).toEqual(Float32Array.of(0, 0, 0, 0, 4, 4));
    expect(() => rleDecodeColour('3 1', [1, 3, 2], 'here', [4])).toThrow(RangeError);
    expect(() => rleDecodeColour('4 1', [1, 3, 2], 'row 7')).toThrow(/^row 7: .*starts at 4/);
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

/** A mask of a disc, cut at the image's edge. */
function disc(width: number, height: number, cx: number, cy: number, radius: number): Uint8Array {
  const mask = new Uint8Array(width * height);
  for (let y = Math.max(0, cy - radius); y <= Math.min(height - 1, cy + radius); y++) {
    const half = Math.floor(Math.sqrt(radius ** 2 - (y - cy) ** 2));
    mask.fill(1, y * width + Math.max(0, cx - half), y * width + Math.min(width - 1, cx + half) + 1);
  }
  return mask;
}

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

describe('combineMasks', () => {
  it('numbers instances, later ones on top, above the threshold in single precision', () => {
    const masks = [Float32Array.of(0.61, 0.6, 0.9, 0.1), Float32Array.of(0.6, 0.85, 0.81, 0.2)];
    expect([...combineMasks(masks, 0.6)]).toEqual([1, 2, 2, 0]);
    expect([...combineMasks([Uint8Array.of(1, 0, 1), Uint8Array.of(0, 0, 1)], 0.6)]).toEqual([1, 0, 2]);
    expect(combineMasks([], 0.5)).toHaveLength(0);
    expect(() => combineMasks([Uint8Array.of(1), Uint8Array.of(1, 0)], 0.5)).toThrow(RangeError);
  });
});

describe.skipIf(!hasGoldens)('golden masks', () => {
  it('combines masks as the notebook', () => {
    const { shape, data } = byteGolden('combine.in');
    const pixels = shape[1] * shape[2];
    const masks = Array.from({ length: shape[0] }, (_, i) =>
      Float32Array.from(data.subarray(i * pixels, (i + 1) * pixels), (value) => value / 255),
    );
    const labels = combineMasks(masks, 0.605);
    expect(Buffer.compare(Uint8Array.from(labels), byteGolden('combine.out').data)).toBe(0);
  });

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
