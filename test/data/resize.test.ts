import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { maskBox } from '../../src/data/dataset.ts';
import { resizeImage, resizeMask } from '../../src/data/resize.ts';
import { rleDecode } from '../../src/data/rle.ts';
import { resizeReference } from '../reference/resize.ts';
import { noise } from './folders.ts';
import { byteGolden, dataGoldens, hasGoldens } from './goldenData.ts';

const side = fc.integer({ min: 1, max: 20 });

describe('resize', () => {
  it('is bilinear to within a grey level of the exact value', () => {
    fc.assert(
      fc.property(side, side, side, side, fc.integer(), (width, height, newWidth, newHeight, seed) => {
        const data = noise(width, height, seed);
        const expected = resizeReference(data, width, height, 3, newWidth, newHeight);
        const actual = resizeImage(data, width, height, newWidth, newHeight);
        expect(actual.length).toBe(expected.length);
        actual.forEach((value, i) => {
          // Rounding to a half, the weights' 11 bits and the products' 16 bits together stay below one level and a bit.
          expect(Math.abs(value - expected[i])).toBeLessThan(1.2);
        });
      }),
    );
  });

  it('covers a mask pixel wherever the bilinear value is above 0', () => {
    fc.assert(
      fc.property(side, side, side, side, fc.integer(), (width, height, newWidth, newHeight, seed) => {
        const mask = noise(width, height, seed)
          .subarray(0, width * height)
          .map((v) => Number(v < 40));
        const expected = resizeReference(mask, width, height, 1, newWidth, newHeight);
        const actual = resizeMask(mask, width, height, newWidth, newHeight);
        actual.forEach((value, i) => {
          // Between float32 and float64 positions, only a weight as small as their rounding may decide differently.
          if (expected[i] === 0 || expected[i] > 1e-5) expect(value).toBe(Number(expected[i] > 0));
        });
      }),
    );
  });

  it('halves by the mean of four, and returns the same image at its own size', () => {
    const data = Uint8Array.from([0, 10, 20, 3, 30, 40, 1, 50, 60, 0, 70, 80]);
    expect([...resizeImage(data, 2, 2, 1, 1)]).toEqual([1, 40, 50]);
    expect(resizeImage(data, 2, 2, 2, 2)).toBe(data);
  });

  // Values of OpenCV 5.0 (cv2.resize of the same bytes), at a size where truncated and rounded products differ.
  it('follows the fixed-point arithmetic', () => {
    const grey = [13, 250, 77, 4, 199, 31, 90, 128, 255, 66, 3, 240];
    const data = Uint8Array.from(grey.flatMap((v) => [v, 255 - v, v >> 1]));
    expect([...resizeImage(data, 4, 3, 3, 2)]).toEqual(FIXED_POINT);
  });
});

const FIXED_POINT = [82, 173, 41, 138, 117, 69, 42, 212, 21, 210, 44, 105, 41, 214, 20, 181, 74, 90];

describe.skipIf(!hasGoldens)('golden resizes', () => {
  it('equals cv2.resize on images', () => {
    const image = byteGolden('resize.image.in');
    const [height, width] = image.shape;
    for (const name of ['out', 'out_odd']) {
      const golden = byteGolden(`resize.image.${name}`);
      const actual = resizeImage(image.data, width, height, golden.shape[1], golden.shape[0]);
      expect(Buffer.compare(actual, golden.data), name).toBe(0);
    }
    const corner = Uint8Array.from(
      { length: 64 * 80 * 3 },
      (_, i) => image.data[Math.floor(i / 240) * width * 3 + (i % 240)],
    );
    const golden = byteGolden('resize.image.out_up');
    expect(Buffer.compare(resizeImage(corner, 80, 64, golden.shape[1], golden.shape[0]), golden.data)).toBe(0);
  });

  it('equals cv2.resize > 0 on masks, and the boxes of its masks', () => {
    const { resizeMask: masks, boxes, rle } = dataGoldens();
    const [height, width] = rle.shape;
    const golden = byteGolden('resize.mask.out');
    const [, newHeight, newWidth] = golden.shape;
    masks.in.forEach((text, i) => {
      const resized = resizeMask(rleDecode(text, width, height, 'golden'), width, height, newWidth, newHeight);
      const expected = golden.data.subarray(i * newHeight * newWidth, (i + 1) * newHeight * newWidth);
      expect(Buffer.compare(resized, expected), `mask ${i}`).toBe(0);
      expect(maskBox(resized, newWidth, newHeight)).toEqual(boxes[i]);
    });
  });
});
