import { beforeAll, describe, expect, it } from 'vitest';
import { denseMasks, maskRegions, pasteMasks } from '../../src/kernels/masks.ts';
import type { Device } from '../../src/tensor/device.ts';
import { grownBox, pasteMask } from '../reference/masks.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { opsCases } from '../support/goldens.ts';
import { seeded, uniform } from '../support/random.ts';

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

describe('pasteMasks', () => {
  for (const { index, inputs, params, output } of opsCases('paste_masks_in_image')) {
    it(`agrees with torchvision's case ${index}`, () =>
      device.scope(async () => {
        const { masks, boxes } = inputs;
        const [n, , side] = masks.shape;
        const size = params.size as [number, number];
        const crops = await pasteMasks(
          device.tensor(masks.data as Float32Array, [n, side, side]),
          boxes.data as Float32Array,
          size,
        );
        expect([n, 1, ...size]).toEqual(output.shape);
        expectClose(denseMasks(crops, size), output.data, 1e-5);
      }));
  }

  /** Boxes of quarter pixels, so that float32 and float64 cut them alike; some reach over or lie beside the image. */
  function randomBoxes(count: number, [height, width]: readonly [number, number], seed: number): Float32Array {
    const next = seeded(seed);
    const quarter = (value: number) => Math.round(value * 4) / 4;
    return Float32Array.from(
      Array.from({ length: count }, () => {
        const [x, y] = [quarter((next() * 1.2 - 0.2) * width), quarter((next() * 1.2 - 0.2) * height)];
        return [x, y, x + quarter(next() * 30), y + quarter(next() * 30)];
      }).flat(),
    );
  }

  it.each([
    { n: 9, side: 28, size: [45, 61] as const, chunkBytes: undefined },
    { n: 30, side: 14, size: [33, 20] as const, chunkBytes: 1024 },
    { n: 3, side: 1, size: [10, 10] as const, chunkBytes: 1 },
  ])('agrees with the definition: $n masks of $side², chunks of $chunkBytes bytes', ({ n, side, size, chunkBytes }) =>
    device.scope(async () => {
      const masks = uniform(n * side * side, n, 0, 1);
      const boxes = randomBoxes(n, size, side);
      boxes.set([-90, -90, -50, -50], 0);
      const readbacks = device.gpu.counters().readbacks;
      const crops = await pasteMasks(device.tensor(masks, [n, side, side]), boxes, size, chunkBytes);
      const blocks = crops.reduce((sum, { data }) => sum + Math.ceil(data.length / 64), 0);
      const expectedReadbacks = Math.ceil(blocks / Math.max(1, Math.floor((chunkBytes ?? 2 ** 25) / 256)));
      expect(device.gpu.counters().readbacks - readbacks).toBe(expectedReadbacks);
      expect(crops[0].data.length).toBe(0);
      const regions = maskRegions(boxes, side, size);
      expect(crops.map(({ x, y, width, height }) => ({ x, y, width, height }))).toEqual(regions);
      const dense = denseMasks(crops, size);
      const area = size[0] * size[1];
      for (let i = 0; i < n; i++) {
        const box = grownBox([...boxes.subarray(i * 4, i * 4 + 4)], side);
        const expected = pasteMask(masks.subarray(i * side * side, (i + 1) * side * side), side, box, size);
        expectClose(dense.subarray(i * area, (i + 1) * area), expected, 1e-5, `instance ${i}`);
      }
    }),
  );

  it('makes nothing of nothing', () =>
    device.scope(async () => {
      expect(await pasteMasks(device.tensor([], [0, 28, 28]), new Float32Array(0), [10, 10])).toEqual([]);
      expect(denseMasks([], [10, 10]).length).toBe(0);
    }));

  it('names what does not fit', () =>
    device.scope(async () => {
      await expect(pasteMasks(device.zeros([2, 28, 28]), new Float32Array(4), [10, 10])).rejects.toThrow(
        'masks: expected [1, M, M] for 1 boxes',
      );
    }));
});

describe('maskRegions', () => {
  it('cuts the grown box towards zero and keeps what lies in the image', () => {
    const boxes = Float32Array.from([10, 20, 38, 34, -14, 0, 14, 14, 95, 95, 99, 99]);
    expect(maskRegions(boxes, 28, [100, 50])).toEqual([
      { x: 9, y: 19, width: 31, height: 16 },
      // -15 … 15 and -0.5 … 14.5, the latter cut to 0 … 14.
      { x: 0, y: 0, width: 16, height: 15 },
      { x: 50, y: 94, width: 0, height: 6 },
    ]);
  });
});
