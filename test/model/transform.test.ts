import { describe, expect, it } from 'vitest';
import { makeTarget } from '../../src/data/target.ts';
import type { LoadedImage } from '../../src/data/types.ts';
import { networkSize, resizeBoxes, transformImages, transformTargets } from '../../src/model/transform.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { uniform } from '../support/random.ts';

const coco = { minSize: 800, maxSize: 1333 };
const config = { ...coco, imageMean: [0.4, 0.5, 0.6], imageStd: [0.2, 0.25, 0.5], sizeDivisible: 32 };
const image = (width: number, height: number, seed = 1): LoadedImage => ({
  id: 'x',
  width,
  height,
  data: uniform(width * height * 3, seed, 0, 1),
});

describe('networkSize', () => {
  it.each([
    // The competition's images: the shorter side becomes 800, 704 · 800 / 520 = 1083.07… is rounded down.
    [520, 704, 800, 1083],
    [704, 520, 1083, 800],
    // Too long: 480 × 800 at 1333 / 800 is 799.8 × 1333.
    [480, 800, 799, 1333],
    [400, 1333, 400, 1333],
    [800, 1333, 800, 1333],
    [100, 100, 800, 800],
    [1600, 1600, 800, 800],
  ])('%i × %i (height × width) becomes %i × %i', (height, width, expectedHeight, expectedWidth) => {
    expect(networkSize(height, width, { ...config, ...coco })).toEqual([expectedHeight, expectedWidth]);
  });

  it('rounds down where the product in double precision falls just below a whole number', () => {
    // torchvision's scale_factor is a double: side · (800 / side) is 799.99… for some sides and becomes 799.
    const sides = Array.from({ length: 1500 }, (_, i) => i + 1);
    const floored = sides.filter((side) => networkSize(side, side, { ...config, ...coco })[0] === 799);
    expect(floored.length).toBeGreaterThan(0);
    for (const side of floored) expect(side * (800 / side)).toBeLessThan(800);
    for (const side of sides) {
      expect(networkSize(side, side, { ...config, ...coco })[0]).toBeGreaterThanOrEqual(799);
    }
  });

  it('leaves images as they are without minSize', () => {
    expect(networkSize(33, 65, { ...config, minSize: null, maxSize: null })).toEqual([33, 65]);
  });
});

describe('transformImages', () => {
  it('normalises per channel and pads with zeros: to a multiple on the right and below, and to a fourth channel', async () => {
    const device = await testDevice();
    const images = [image(10, 6, 1), image(7, 33, 2)];
    await device.scope(async () => {
      const { tensors, imageSizes } = transformImages(device, images, { ...config, minSize: null, maxSize: null });
      expect(tensors.shape).toEqual([2, 64, 32, 4]);
      expect(imageSizes).toEqual([
        [6, 10],
        [33, 7],
      ]);
      const expected = new Float32Array(2 * 64 * 32 * 4);
      images.forEach(({ width, height, data }, n) => {
        for (let y = 0; y < height; y++)
          for (let x = 0; x < width; x++)
            for (let c = 0; c < 3; c++) {
              const value = (data[(y * width + x) * 3 + c] - config.imageMean[c]) / config.imageStd[c];
              expected[((n * 64 + y) * 32 + x) * 4 + c] = value;
            }
      });
      expectClose(await tensors.floats(), expected, 1e-6);
    });
  });

  it('resizes bilinearly without aligned corners', async () => {
    const device = await testDevice();
    const source = image(8, 6, 3);
    await device.scope(async () => {
      const { tensors, imageSizes } = transformImages(device, [source], { ...config, minSize: 9, maxSize: 100 });
      expect(imageSizes).toEqual([[9, 12]]);
      const got = await tensors.floats();
      // torch hands `interpolate` the scale factor 1.5 and lets it be recomputed from the sizes: 8 / 12.
      const axis = (to: number, scale: number, limit: number): [number, number, number] => {
        const at = Math.max((to + 0.5) * scale - 0.5, 0);
        const low = Math.min(Math.floor(at), limit - 1);
        return [low, Math.min(low + 1, limit - 1), at - low];
      };
      for (let y = 0; y < 9; y++)
        for (let x = 0; x < 12; x++) {
          const [y0, y1, fy] = axis(y, 6 / 9, 6);
          const [x0, x1, fx] = axis(x, 8 / 12, 8);
          const p = (row: number, column: number): number => source.data[(row * 8 + column) * 3];
          const top = p(y0, x0) * (1 - fx) + p(y0, x1) * fx;
          const bottom = p(y1, x0) * (1 - fx) + p(y1, x1) * fx;
          const expected = (top * (1 - fy) + bottom * fy - 0.4) / 0.2;
          expect(got[(y * 32 + x) * 4]).toBeCloseTo(expected, 4);
        }
    });
  });
});

describe('targets', () => {
  it('boxes are scaled by new / old per axis', () => {
    expect([...resizeBoxes(Float32Array.of(1, 2, 3, 4), [10, 20], [20, 60])]).toEqual([3, 4, 9, 8]);
  });

  it('of a batch stand one after another, scaled to the network’s size', async () => {
    const device = await testDevice();
    const masks = Uint8Array.of(1, 1, 0, 1, 0, 0, 0, 1, 1, 0, 0, 1);
    const target = makeTarget(Float32Array.of(0, 0, 1, 1, 1, 0, 2, 1), Int32Array.of(1, 2), masks);
    const none = makeTarget(new Float32Array(0), new Int32Array(0), new Uint8Array(0));
    const images = [image(3, 2), image(9, 9), image(3, 2)];
    await device.scope(async () => {
      const resized = { ...config, minSize: 4, maxSize: 100, masks: true };
      const truths = transformTargets(device, [target, none, target], images, resized);
      expect([...(await truths.boxes.floats())].slice(0, 8)).toEqual([0, 0, 2, 2, 2, 0, 4, 2]);
      expect([...(await truths.labels.ints())]).toEqual([1, 2, 1, 2]);
      expect([...(await truths.ranges.ints())]).toEqual([0, 2, 2, 4]);
      expect(truths.most).toBe(2);
      expect(truths.masks?.table.shape[0]).toBe(4);
      const boxOnly = transformTargets(device, [target], [images[0]], {
        ...config,
        minSize: null,
        maxSize: null,
        masks: false,
      });
      expect([...(await boxOnly.boxes.floats())]).toEqual([...target.boxes]);
      expect(boxOnly.masks).toBeNull();
    });
  });
});
