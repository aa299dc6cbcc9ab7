import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { maskBox } from '../../src/data/dataset.ts';
import { Random } from '../../src/data/random.ts';
import { makeTarget } from '../../src/data/target.ts';
import { compose, horizontalFlip, verticalFlip } from '../../src/data/transforms.ts';
import type { Sample } from '../../src/data/types.ts';
import { seeded } from '../support/random.ts';

function sampleOf(width: number, height: number, count: number, seed: number): Sample {
  const next = seeded(seed);
  const masks = Uint8Array.from({ length: count * width * height }, () => Number(next() < 0.3));
  const boxes = new Float32Array(count * 4);
  for (let i = 0; i < count; i++) {
    masks[i * width * height] = 1; // never empty
    boxes.set(maskBox(masks.subarray(i * width * height, (i + 1) * width * height), width, height) ?? [], i * 4);
  }
  const data = Float32Array.from({ length: width * height * 3 }, () => Math.fround(next()));
  return { image: { id: 's', width, height, data }, target: makeTarget(boxes, new Int32Array(count).fill(2), masks) };
}

const side = fc.integer({ min: 1, max: 9 });
const samples = fc.tuple(side, side, fc.integer({ min: 0, max: 4 }), fc.integer()).map((args) => sampleOf(...args));
const always = new Random(1);

describe('flips', () => {
  it('mirror every pixel of image and masks, and boxes by side - corner', () => {
    fc.assert(
      fc.property(samples, fc.boolean(), (sample, horizontal) => {
        const { width, height } = sample.image;
        const flipped = (horizontal ? horizontalFlip(1) : verticalFlip(1))(sample, always);
        const source = (x: number, y: number): number =>
          horizontal ? y * width + (width - 1 - x) : (height - 1 - y) * width + x;
        for (let y = 0; y < height; y++) {
          for (let x = 0; x < width; x++) {
            for (let c = 0; c < 3; c++) {
              expect(flipped.image.data[(y * width + x) * 3 + c]).toBe(sample.image.data[source(x, y) * 3 + c]);
            }
            for (let plane = 0; plane < sample.target.masks.length; plane += width * height) {
              expect(flipped.target.masks[plane + y * width + x]).toBe(sample.target.masks[plane + source(x, y)]);
            }
          }
        }
        const [axis, size] = horizontal ? [0, width] : [1, height];
        for (let i = 0; i < sample.target.boxes.length; i += 4) {
          const plane = flipped.target.masks.subarray((i / 4) * width * height, (i / 4 + 1) * width * height);
          const box = flipped.target.boxes.subarray(i, i + 4);
          expect(box[axis]).toBe(size - sample.target.boxes[i + axis + 2]);
          expect(box[axis + 2]).toBe(size - sample.target.boxes[i + axis]);
          expect(box[1 - axis]).toBe(sample.target.boxes[i + 1 - axis]);
          // The notebook's rule for inclusive corners: one pixel further than the flipped mask's own box.
          expect(box[axis] - (maskBox(plane, width, height) ?? [])[axis]).toBe(1);
        }
      }),
    );
  });

  it('are undone by themselves and leave their input alone', () => {
    fc.assert(
      fc.property(samples, (sample) => {
        const before = structuredClone(sample);
        for (const flip of [horizontalFlip(1), verticalFlip(1)]) {
          expect(compose(flip, flip)(sample, always)).toEqual(before);
          expect(sample).toEqual(before);
        }
      }),
    );
  });

  it('happen with their probability, drawing one number each', () => {
    const sample = sampleOf(3, 2, 1, 1);
    expect(horizontalFlip(0)(sample, always)).toBe(sample);
    const random = new Random(5);
    const both = compose(horizontalFlip(0.25), verticalFlip(0));
    let flipped = 0;
    for (let i = 0; i < 2000; i++) flipped += Number(both(sample, random) !== sample);
    expect(Math.abs(flipped / 2000 - 0.25)).toBeLessThan(5 * Math.sqrt((0.25 * 0.75) / 2000));
    const expected = new Random(5);
    for (let i = 0; i < 4000; i++) expected.next();
    expect(random.save()).toEqual(expected.save());
  });

  it('keep other fields of a sample', () => {
    expect(horizontalFlip(1)({ ...sampleOf(2, 2, 1, 1), dropped: 3 }, always).dropped).toBe(3);
  });
});
