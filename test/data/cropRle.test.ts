import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cocoRleEncode } from '../../src/data/cocoRle.ts';
import { cropFromCocoRle, cropToCocoRle } from '../../src/data/cropRle.ts';
import { maskBox } from '../../src/data/dataset.ts';
import { Random } from '../../src/data/random.ts';

describe('crops and COCO run lengths', () => {
  it('equal those of the full-size mask, there and back', () => {
    fc.assert(
      fc.property(
        fc.record({
          width: fc.integer({ min: 1, max: 9 }),
          height: fc.integer({ min: 1, max: 9 }),
          seed: fc.integer(),
          one: fc.integer({ min: 1, max: 10 }),
        }),
        ({ width, height, seed, one }) => {
          const random = new Random(seed);
          const full = Uint8Array.from({ length: width * height }, () => Number(random.int(10) < one));
          const rle = cocoRleEncode(full, width, height);
          const crop = { x: 0, y: 0, width, height, data: Float32Array.from(full) };
          expect(cropToCocoRle(crop, width, height)).toEqual(rle);
          const box = maskBox(full, width, height);
          if (box === undefined) {
            expect(() => cropFromCocoRle(rle, 'line 2')).toThrow('line 2: the mask covers no pixel');
            return;
          }
          const tight = cropFromCocoRle(rle, 'line 2');
          expect([tight.x, tight.y, tight.x + tight.width - 1, tight.y + tight.height - 1]).toEqual(box);
          expect(cropToCocoRle(tight, width, height)).toEqual(rle);
        },
      ),
      { numRuns: 300, seed: 3 },
    );
  });

  it('name what does not fit', () => {
    expect(() => cropFromCocoRle({ size: [2, 2], counts: '05' }, 'line 2')).toThrow(
      'line 2: the run lengths add up to 5',
    );
    expect(() => cropFromCocoRle({ size: [2, 2], counts: '~' }, 'line 2')).toThrow(
      'line 2: the compressed run lengths',
    );
  });
});
