import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { MaskCrop } from '../../src/data/types.ts';
import { iouOfClass, maskIou, packCrop, packMasks } from '../../src/eval/maskIou.ts';
import { pixelIou } from '../reference/iouMap.ts';

/** A seeded stream of floats in 0…1 (mulberry32). */
function stream(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function randomCrop(random: () => number, width: number, height: number, side: number): MaskCrop {
  const w = 1 + Math.floor(random() * side);
  const h = 1 + Math.floor(random() * side);
  // A quarter of the crops hang over an edge of the image.
  const x = Math.floor(random() * (width + w / 2)) - Math.floor(w / 4);
  const y = Math.floor(random() * (height + h / 2)) - Math.floor(h / 4);
  return { x, y, width: w, height: h, data: Float32Array.from({ length: w * h }, random) };
}

function paste(crop: MaskCrop, threshold: number, width: number, height: number): Uint8Array {
  const full = new Uint8Array(width * height);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const inside = column >= crop.x && column < crop.x + crop.width && row >= crop.y && row < crop.y + crop.height;
      if (inside && crop.data[(row - crop.y) * crop.width + column - crop.x] > threshold)
        full[row * width + column] = 1;
    }
  }
  return full;
}

describe('maskIou', () => {
  it('equals the pixel-by-pixel IoU for overlapping crops of any place and size', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 90 }),
        fc.integer({ min: 1, max: 40 }),
        fc.integer(),
        fc.constantFrom(0.1, 0.5, 0.9, 1),
        (width, height, seed, threshold) => {
          const random = stream(seed);
          const crops = Array.from({ length: 5 }, () => randomCrop(random, width, height, 50));
          const truth = Array.from({ length: 4 }, () =>
            paste(randomCrop(random, width, height, 50), 0.3, width, height),
          );
          const packed = crops.map((crop) => packCrop(crop, threshold, width, height));
          const packedTruth = packMasks(new Uint8Array(Buffer.concat(truth)), width, height);
          const full = crops.map((crop) => paste(crop, threshold, width, height));
          expect(packed.map((mask) => mask.area)).toEqual(full.map((mask) => mask.reduce((a, b) => a + b, 0)));
          const expected = full.flatMap((p) => truth.map((t) => pixelIou(p, t)));
          expect(Array.from(maskIou(packed, packedTruth))).toEqual(expected);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('keeps the sign bit of a word (column 31) and words side by side', () => {
    const row = Uint8Array.from({ length: 70 }, (_, x) => (x >= 31 && x <= 64 ? 1 : 0));
    const [mask] = packMasks(row, 70, 1);
    expect(mask).toMatchObject({ left: 31, right: 65, firstWord: 0, wordsPerRow: 3, area: 34 });
    expect(Array.from(maskIou([mask], [mask]))).toEqual([1]);
  });

  it('takes probability > threshold, not >=', () => {
    const crop: MaskCrop = { x: 0, y: 0, width: 3, height: 1, data: Float32Array.of(0.5, 0.75, 0.25) };
    expect(packCrop(crop, 0.5, 3, 1).area).toBe(1);
  });

  it('gives IoU 0 to empty masks and an empty matrix to empty sets', () => {
    const empty = packMasks(new Uint8Array(12), 4, 3);
    expect(empty).toHaveLength(1);
    expect(Array.from(maskIou(empty, empty))).toEqual([0]);
    expect(maskIou([], empty)).toHaveLength(0);
    expect(packMasks(new Uint8Array(0), 4, 3)).toEqual([]);
  });

  it('refuses masks that do not fit the image', () => {
    expect(() => packMasks(new Uint8Array(13), 4, 3)).toThrow('[n, 3, 4]');
    expect(() => packCrop({ x: 0, y: 0, width: 2, height: 2, data: new Float32Array(3) }, 0.5, 4, 3)).toThrow('2 × 2');
  });

  it('cuts a matrix to one class', () => {
    const iou = Float64Array.from([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
    const part = iouOfClass(iou, [1, 2], [2, 1, 2], 2);
    expect(part).toEqual({ iou: Float64Array.of(0.4, 0.6), predicted: [1], truth: [0, 2] });
  });

  it('compares 500 with 500 instances of a 704 × 520 image in seconds', () => {
    const [width, height, count] = [704, 520, 500];
    const random = stream(7);
    const crops: MaskCrop[] = [];
    const masks = new Uint8Array(count * width * height);
    for (let i = 0; i < count; i++) {
      const crop = randomCrop(random, width, height, 60);
      crops.push(crop);
      masks.set(paste(crop, 0.4, width, height), i * width * height);
    }
    const started = performance.now();
    const packed = crops.map((crop) => packCrop(crop, 0.4, width, height));
    const iou = maskIou(packed, packMasks(masks, width, height));
    const elapsed = performance.now() - started;
    expect(packed.filter((mask) => mask.area > 0).length).toBeGreaterThan(450);
    expect(packed.map((_, i) => iou[i * count + i])).toEqual(packed.map((mask) => (mask.area > 0 ? 1 : 0)));
    // About 0.2 s on an idle machine; the limit only tells a fast path from a pixel-by-pixel one (90 s).
    expect(elapsed).toBeLessThan(5000);
  });
});
