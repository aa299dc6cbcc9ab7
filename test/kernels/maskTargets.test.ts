import { beforeAll, describe, expect, it } from 'vitest';
import { projectMasksOnBoxes, uploadTruthMasks } from '../../src/kernels/maskTargets.ts';
import type { Device } from '../../src/tensor/device.ts';
import { roiAlign } from '../reference/roiAlign.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { opsCases } from '../support/goldens.ts';
import { uniform } from '../support/random.ts';

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

/** Rows (image 0, box) of boxes [K, 4]. */
function roisOf(boxes: ArrayLike<number>) {
  const rows = Array.from({ length: boxes.length / 4 }, (_, k) => [
    0,
    ...Array.from({ length: 4 }, (__, c) => boxes[k * 4 + c]),
  ]);
  return device.tensor(rows.flat(), [rows.length, 5]);
}

const binary = (size: number, seed: number, above = 0): Uint8Array =>
  Uint8Array.from(uniform(size, seed), (value) => (value > above ? 1 : 0));

describe('projectMasksOnBoxes', () => {
  for (const { index, inputs, params, output } of opsCases('project_masks_on_boxes')) {
    it(`agrees with torchvision's case ${index}`, () =>
      device.scope(async () => {
        const { gt_masks, boxes, matched } = inputs;
        const size = [gt_masks.shape[1], gt_masks.shape[2]] as const;
        const masks = uploadTruthMasks(device, [{ masks: Uint8Array.from(gt_masks.data), size, networkSize: size }]);
        const targets = projectMasksOnBoxes(
          masks,
          roisOf(boxes.data),
          device.tensor(matched.data as Int32Array, matched.shape, 'i32'),
          params.M as number,
        );
        expect(targets.shape).toEqual(output.shape);
        expectClose(await targets.floats(), output.data, 1e-5);
      }));
  }

  it('agrees with ROIAlign by definition on masks resized by nearest, of several images', () =>
    device.scope(async () => {
      // The first image keeps its size, the second grows by 5 / 3 and 1.52, the third shrinks. One mask is empty, one small.
      const images = [
        { size: [40, 50], networkSize: [40, 50], n: 2 },
        { size: [24, 33], networkSize: [40, 50], n: 3 },
        { size: [90, 70], networkSize: [40, 50], n: 1 },
      ] as const;
      const loaded = images.map(({ size, networkSize, n }, image) => {
        const masks = binary(n * size[0] * size[1], image + 4);
        if (image === 1) {
          const pixels = size[0] * size[1];
          masks.fill(0, 0, 2 * pixels);
          for (let y = 7; y < 12; y++) masks.fill(1, pixels + y * size[1] + 5, pixels + y * size[1] + 17);
        }
        return { masks, size, networkSize };
      });
      const resized = images.flatMap(({ size, networkSize, n }, image) =>
        Array.from({ length: n * networkSize[0] * networkSize[1] }, (_, i) => {
          const x = i % networkSize[1];
          const y = Math.floor(i / networkSize[1]) % networkSize[0];
          const mask = Math.floor(i / (networkSize[0] * networkSize[1]));
          const row = Math.min(Math.floor((y * size[0]) / networkSize[0]), size[0] - 1);
          const column = Math.min(Math.floor((x * size[1]) / networkSize[1]), size[1] - 1);
          return loaded[image].masks[(mask * size[0] + row) * size[1] + column];
        }),
      );
      const boxes = [0, 0, 49, 39, 3, 4, 31, 32, 10, 5, 24, 33, 7, 7, 7, 8, 45.5, 20.25, 60, 50, 2, 3, 37, 29.5];
      const matched = [1, 0, 3, 4, 2, 5];
      const rois = matched.flatMap((mask, k) => [mask, ...boxes.slice(k * 4, k * 4 + 4)]);
      const expected = roiAlign(
        {
          x: { shape: [6, 40, 50, 1], data: Float64Array.from(resized) },
          rois: { shape: [6, 5], data: Float64Array.from(rois) },
        },
        { outputSize: 14, spatialScale: 1, samplingRatio: -1 },
      );
      const masks = uploadTruthMasks(device, loaded);
      const targets = projectMasksOnBoxes(masks, roisOf(boxes), device.tensor(matched, [6], 'i32'), 14);
      expectClose(await targets.floats(), expected.data, 1e-5);
    }));

  it('gives nothing for no boxes, and -1, which losses ignore, for a box without a mask', () =>
    device.scope(async () => {
      const size = [8, 8] as const;
      const masks = uploadTruthMasks(device, [{ masks: new Uint8Array(64).fill(1), size, networkSize: size }]);
      expect(projectMasksOnBoxes(masks, roisOf([]), device.tensor([], [0], 'i32'), 28).shape).toEqual([0, 28, 28]);
      const rois = roisOf([1, 1, 6, 6, 1, 1, 6, 6]);
      const matched = device.tensor([-3, 0], [2], 'i32');
      expect([...(await projectMasksOnBoxes(masks, rois, matched, 2).floats())]).toEqual([-1, -1, -1, -1, 1, 1, 1, 1]);
      const none = uploadTruthMasks(device, [{ masks: new Uint8Array(0), size, networkSize: size }]);
      const absent = device.tensor([-1, -1], [2], 'i32');
      expect([...(await projectMasksOnBoxes(none, rois, absent, 2).floats())]).toEqual(new Array(8).fill(-1));
    }));

  it('takes a bit a pixel of what the masks cover', () =>
    device.scope(() => {
      const masks = new Uint8Array(3 * 100 * 100);
      for (let y = 20; y < 30; y++) masks.fill(1, 10_000 + y * 100 + 60, 10_000 + y * 100 + 70);
      const { bits, table } = uploadTruthMasks(device, [{ masks, size: [100, 100], networkSize: [200, 200] }]);
      expect([bits.shape, table.shape]).toEqual([[4], [3, 11]]);
    }));

  it('names what does not fit', () =>
    device.scope(() => {
      const size = [8, 8] as const;
      const masks = uploadTruthMasks(device, [{ masks: new Uint8Array(64), size, networkSize: size }]);
      const rois = device.zeros([2, 5]);
      expect(() => projectMasksOnBoxes(masks, rois, device.zeros([2]), 28)).toThrow('matched: expected i32[2]');
      expect(() => projectMasksOnBoxes(masks, rois, device.zeros([3], 'i32'), 28)).toThrow('matched: expected i32[2]');
    }));
});
