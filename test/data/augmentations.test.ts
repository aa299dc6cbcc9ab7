import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  augment,
  colorJitter,
  NO_AUGMENTATION,
  randomCrop,
  randomRotate90,
  scaleJitter,
} from '../../src/data/augmentations.ts';
import { maskBox } from '../../src/data/dataset.ts';
import { Random } from '../../src/data/random.ts';
import { makeTarget } from '../../src/data/target.ts';
import { horizontalFlip, normalize, type Transform, verticalFlip } from '../../src/data/transforms.ts';
import type { Sample } from '../../src/data/types.ts';

interface Rectangle {
  x: number;
  y: number;
  w: number;
  h: number;
}

/** An image whose pixels tell their place, with rectangular cells of two pixels or more on each side. */
function sampleOf(width: number, height: number, cells: Rectangle[]): Sample {
  const inside = cells.map(({ x, y, w, h }) => {
    const left = x % (width - 1);
    const top = y % (height - 1);
    return [left, top, Math.min(width - 1, left + w), Math.min(height - 1, top + h)] as const;
  });
  const masks = new Uint8Array(cells.length * width * height);
  for (const [n, [x1, y1, x2, y2]] of inside.entries()) {
    for (let y = y1; y <= y2; y++) masks.fill(1, (n * height + y) * width + x1, (n * height + y) * width + x2 + 1);
  }
  const data = Float32Array.from({ length: width * height * 3 }, (_, i) => i / (width * height * 3));
  const target = makeTarget(
    Float32Array.from(inside.flat()),
    Int32Array.from(cells, (_, n) => n + 1),
    masks,
    {
      imageId: 7,
      iscrowd: Uint8Array.from(cells, (_, n) => n % 2),
    },
  );
  return { image: { id: 's', width, height, data }, target };
}

const rectangle = fc.record({
  x: fc.nat(40),
  y: fc.nat(40),
  w: fc.integer({ min: 1, max: 9 }),
  h: fc.integer({ min: 1, max: 9 }),
});
const samples = fc
  .tuple(fc.integer({ min: 3, max: 20 }), fc.integer({ min: 3, max: 20 }), fc.array(rectangle, { maxLength: 4 }))
  .map((args) => sampleOf(...args));

function planes({ image, target }: Sample): Uint8Array[] {
  const pixels = image.width * image.height;
  return Array.from(target.labels, (_, n) => target.masks.subarray(n * pixels, (n + 1) * pixels));
}

const area = (mask: Uint8Array): number => mask.reduce((sum, value) => sum + value, 0);

describe('every transform', () => {
  const transforms: Record<string, Transform> = {
    horizontalFlip: horizontalFlip(1),
    verticalFlip: verticalFlip(1),
    scaleJitter: scaleJitter(0.4, 2.5),
    randomCrop: randomCrop(7, 5),
    randomRotate90: randomRotate90(1),
    colorJitter: colorJitter(0.5, 0.5),
    all: augment({
      hflip: 0.5,
      vflip: 0.5,
      rotate90: 0.5,
      scaleJitter: [0.5, 2],
      crop: [9, 8],
      brightness: 0.2,
      contrast: 0.2,
    }),
  };

  it.each(Object.keys(transforms))('%s keeps image, boxes and masks together and its input as it was', (name) => {
    fc.assert(
      fc.property(samples, fc.nat(), (sample, seed) => {
        const before = structuredClone(sample);
        const after = transforms[name](sample, new Random(seed));
        expect(sample).toEqual(before);
        expect(transforms[name](sample, new Random(seed))).toEqual(after);
        const { image, target } = after;
        const count = target.labels.length;
        expect(image.data).toHaveLength(image.width * image.height * 3);
        expect(target.masks).toHaveLength(count * image.width * image.height);
        expect([target.boxes.length / 4, target.iscrowd.length, target.area.length]).toEqual([count, count, count]);
        expect(target.imageId).toBe(7);
        for (const [n, mask] of planes(after).entries()) {
          // The notebook's flips move inclusive corners by one pixel; all others keep the box of the mask.
          const box = maskBox(mask, image.width, image.height) ?? [];
          const bound = /Flip|all/.test(name) ? 1 : 0;
          for (const corner of [0, 1, 2, 3]) {
            expect(Math.abs(target.boxes[4 * n + corner] - (box[corner] ?? Number.NaN))).toBeLessThanOrEqual(bound);
          }
          // Labels tell which cell it was.
          expect(target.iscrowd[n]).toBe((target.labels[n] - 1) % 2);
          const [x1, y1, x2, y2] = target.boxes.subarray(4 * n, 4 * n + 4);
          expect(target.area[n]).toBe((x2 - x1) * (y2 - y1));
        }
        if (/Flip|Rotate|color/.test(name)) expect(planes(after).map(area)).toEqual(planes(before).map(area));
      }),
      { numRuns: 60 },
    );
  });
});

describe('randomRotate90', () => {
  it('turns counter-clockwise by one, two or three quarters', () => {
    const { image, target } = sampleOf(3, 2, [{ x: 0, y: 0, w: 1, h: 1 }]);
    const sample = {
      image: { ...image, data: Float32Array.from({ length: 18 }, (_, i) => Math.floor(i / 3)) },
      target,
    };
    const seen = new Map<string, number>();
    const random = new Random(4);
    for (let i = 0; i < 300; i++) {
      const turned = randomRotate90(1)(sample, random).image;
      const rows = Array.from({ length: turned.height }, (_, y) =>
        Array.from({ length: turned.width }, (_, x) => turned.data[(y * turned.width + x) * 3]).join(''),
      ).join('/');
      seen.set(rows, (seen.get(rows) ?? 0) + 1);
    }
    // 012/345 turned: columns become rows from the right.
    expect([...seen.keys()].sort()).toEqual(['25/14/03', '30/41/52', '543/210']);
    for (const count of seen.values()) expect(count).toBeGreaterThan(60);
  });

  it('happens with its probability', () => {
    const sample = sampleOf(4, 4, []);
    const random = new Random(8);
    let turned = 0;
    for (let i = 0; i < 1000; i++) turned += Number(randomRotate90(0.3)(sample, random) !== sample);
    expect(Math.abs(turned / 1000 - 0.3)).toBeLessThan(0.08);
  });
});

describe('randomCrop', () => {
  it('shows a window of the image and cuts its cells', () => {
    fc.assert(
      fc.property(samples, fc.nat(), (sample, seed) => {
        const { image, target } = randomCrop(6, 4)(sample, new Random(seed));
        const whole = sample.image;
        expect([image.width, image.height]).toEqual([Math.min(6, whole.width), Math.min(4, whole.height)]);
        // Pixels tell their place.
        const first = Math.round((image.data[0] * whole.data.length) / 3);
        const [left, top] = [first % whole.width, Math.floor(first / whole.width)];
        for (let y = 0; y < image.height; y++) {
          for (let x = 0; x < image.width; x++) {
            const at = (top + y) * whole.width + left + x;
            expect(image.data[(y * image.width + x) * 3]).toBe(whole.data[at * 3]);
            for (const [n, label] of target.labels.entries()) {
              const source = sample.target.masks[(label - 1) * whole.width * whole.height + at];
              expect(target.masks[(n * image.height + y) * image.width + x]).toBe(source);
            }
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  it('reaches every place', () => {
    const random = new Random(2);
    const corners = new Set<number>();
    for (let i = 0; i < 200; i++) corners.add(randomCrop(3, 3)(sampleOf(5, 4, []), random).image.data[0]);
    expect(corners.size).toBe(3 * 2);
  });
});

describe('scaleJitter', () => {
  it('draws factors of its range and leaves an image of factor 1 alone', () => {
    const sample = sampleOf(20, 10, []);
    const random = new Random(6);
    expect(scaleJitter(1, 1)(sample, random)).toBe(sample);
    const widths = Array.from({ length: 200 }, () => scaleJitter(0.5, 2)(sample, random).image.width);
    expect(Math.min(...widths)).toBeLessThan(13);
    expect(Math.max(...widths)).toBeGreaterThan(37);
    for (const width of widths) expect(width >= 10 && width < 40).toBe(true);
  });

  it('keeps a plane of grey values, cut at the outer half pixels', () => {
    const sample = sampleOf(8, 6, [{ x: 2, y: 1, w: 3, h: 3 }]);
    const data = sample.image.data.map((_, i) => Math.floor(i / 3) % 8);
    const { image, target } = scaleJitter(2, 2)({ ...sample, image: { ...sample.image, data } }, new Random(1));
    expect([image.width, image.height]).toEqual([16, 12]);
    const row = Array.from({ length: 16 }, (_, x) => image.data[3 * x]);
    expect(row).toEqual(row.map((_, x) => Math.min(7, Math.max(0, (x + 0.5) / 2 - 0.5))));
    expect(area(target.masks)).toBe(4 * area(sample.target.masks));
  });

  it('leaves out cells without extent', () => {
    const sample = sampleOf(20, 20, [
      { x: 1, y: 1, w: 1, h: 1 },
      { x: 5, y: 5, w: 9, h: 9 },
    ]);
    expect([...scaleJitter(0.25, 0.25)(sample, new Random(1)).target.labels]).toEqual([2]);
  });
});

describe('colorJitter', () => {
  it('multiplies, then stretches about the grey mean, and stays within 0…1', () => {
    const sample = sampleOf(5, 4, []);
    const random = new Random(3);
    const { data } = colorJitter(0.4, 0.3)(sample, random).image;
    const again = new Random(3);
    const b = 0.6 + 0.8 * again.next();
    const c = 0.7 + 0.6 * again.next();
    const cut = (value: number): number => Math.min(1, Math.max(0, value));
    const bright = Array.from(sample.image.data, (value) => cut(value * b));
    const weights = [0.2989, 0.587, 0.114];
    const grey = bright.reduce((sum, value, i) => sum + value * weights[i % 3], 0) / 20;
    bright.forEach((value, i) => {
      expect(data[i]).toBeCloseTo(cut(grey + c * (value - grey)), 6);
    });
  });
});

describe('normalize', () => {
  it('works channel by channel', () => {
    const sample = sampleOf(2, 1, []);
    const at = (value: number, c: number): number => Math.fround((value - [0.1, 0.2, 0.3][c]) / [1, 2, 4][c]);
    const { data } = normalize([0.1, 0.2, 0.3], [1, 2, 4])(sample, new Random(1)).image;
    expect([...data]).toEqual(Array.from(sample.image.data, (value, i) => at(value, i % 3)));
  });
});

describe('augment', () => {
  it('draws nothing for what is off, except one number for each flip', () => {
    const random = new Random(5);
    const sample = sampleOf(4, 4, []);
    expect(augment(NO_AUGMENTATION)(sample, random)).toBe(sample);
    const expected = new Random(5);
    expected.next();
    expected.next();
    expect(random.save()).toEqual(expected.save());
  });
});
