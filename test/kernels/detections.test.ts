import { beforeAll, describe, expect, it } from 'vitest';
import { proposalRois, selectDetections } from '../../src/kernels/detections.ts';
import type { Device } from '../../src/tensor/device.ts';
import { iou } from '../reference/boxes.ts';
import { testDevice } from '../support/device.ts';
import { seeded } from '../support/random.ts';

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

type Found = { box: number[]; score: number; label: number };

/** torchvision's `postprocess_detections` of one image, word by word. */
function reference(
  rows: { scores: number[]; boxes: number[][] }[],
  [height, width]: readonly number[],
  options: { scoreThresh: number; nmsThresh: number; detectionsPerImg: number; minSize: number },
): Found[] {
  const candidates: Found[] = rows.flatMap(({ scores, boxes }) =>
    scores.slice(1).map((score, i) => ({
      box: boxes[i + 1].map((value, c) => Math.min(Math.max(value, 0), c % 2 === 0 ? width : height)),
      score,
      label: i + 1,
    })),
  );
  const left = candidates
    .filter(({ score }) => score > Math.fround(options.scoreThresh))
    .filter(({ box }) => box[2] - box[0] >= options.minSize && box[3] - box[1] >= options.minSize)
    .sort((a, b) => b.score - a.score);
  const kept: Found[] = [];
  for (const one of left) {
    const rivals = kept.filter(({ label }) => label === one.label);
    const overlaps = rivals.some(
      ({ box }) =>
        iou(box as [number, number, number, number], one.box as [number, number, number, number], Math.fround) >
        options.nmsThresh,
    );
    if (!overlaps) kept.push(one);
  }
  return kept.slice(0, options.detectionsPerImg);
}

describe('selectDetections', () => {
  const perImage = 40;
  const classes = 4;
  const sizes = [
    [60, 80],
    [50, 50],
    [70, 64],
  ];

  it.each([
    [[40, 13, 0], { scoreThresh: 0.2, nmsThresh: 0.4, detectionsPerImg: 12, minSize: 0.01 }],
    [[5, 40, 40], { scoreThresh: 0.05, nmsThresh: 0.7, detectionsPerImg: 100, minSize: 9 }],
    [[1, 2, 3], { scoreThresh: 1, nmsThresh: 0.5, detectionsPerImg: 5, minSize: 0.01 }],
  ])('agrees with torchvision’s steps: %j proposals an image, %j', (counts, options) =>
    device.scope(async () => {
      const next = seeded(counts[0]);
      const images = counts.map((n) =>
        Array.from({ length: n }, () => {
          // Few values, so that there are ties, and boxes over every border.
          const scores = Array.from({ length: classes }, () => Math.fround(Math.round(next() * 20) / 20));
          const boxes = scores.map(() => {
            const [x, y] = [next() * 80 - 10, next() * 70 - 10];
            return [x, y, x + next() * 30, y + next() * 30].map(Math.fround);
          });
          return { scores, boxes };
        }),
      );
      const rows = images.flat();
      const padding = perImage * counts.length - rows.length;
      const filled = (values: number[], width: number): number[] => [
        ...values,
        ...new Array(padding * width).fill(0.9),
      ];
      const found = selectDetections(
        {
          scores: device.tensor(
            filled(
              rows.flatMap(({ scores }) => scores),
              classes,
            ),
            [120, classes],
          ),
          decoded: device.tensor(
            filled(
              rows.flatMap(({ boxes }) => boxes.flat()),
              classes * 4,
            ),
            [120, classes * 4],
          ),
          counts: device.tensor(Uint32Array.from(counts), [3]),
          sizes: device.tensor(sizes.flat(), [3, 2]),
        },
        perImage,
        options,
      );
      const [boxes, scores, labels, many] = await device.readAll([
        found.boxes,
        found.scores,
        found.labels,
        found.counts,
      ]);
      const most = found.labels.shape[1];
      expect(most).toBe(Math.min(options.detectionsPerImg, perImage * (classes - 1)));
      for (const [image, own] of images.entries()) {
        const expected = reference(own, sizes[image], options);
        const ours = Array.from({ length: many[image] }, (_, i) => ({
          box: [...boxes.subarray((image * most + i) * 4, (image * most + i + 1) * 4)],
          score: scores[image * most + i],
          label: labels[image * most + i],
        }));
        expect(ours).toEqual(expected);
      }
    }),
  );
});

describe('proposalRois', () => {
  it('puts the proposals of all images one after another, RoIs of no image last', () =>
    device.scope(async () => {
      const proposals = device.tensor(
        Array.from({ length: 3 * 2 * 4 }, (_, i) => i),
        [3, 2, 4],
      );
      const { rois, boxes } = proposalRois({ boxes: proposals, counts: device.tensor(Uint32Array.of(1, 0, 2), [3]) });
      expect([...(await rois.floats())]).toEqual([
        ...[0, 0, 1, 2, 3],
        ...[2, 16, 17, 18, 19],
        ...[2, 20, 21, 22, 23],
        ...[-1, 0, 0, 0, 0],
        ...[-1, 0, 0, 0, 0],
        ...[-1, 0, 0, 0, 0],
      ]);
      expect([...(await boxes.floats())].slice(0, 8)).toEqual([0, 1, 2, 3, 16, 17, 18, 19]);
    }));
});
