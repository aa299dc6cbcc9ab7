import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Random } from '../../src/data/random.ts';
import type { Detections } from '../../src/data/types.ts';
import { boxInstances, selectBoxes } from '../../src/eval/boxView.ts';
import { referenceNms } from '../reference/averagePrecision.ts';

const thresholds = { minScore: [0, 0.25, 0.5], maskThreshold: [0, 0.5, 0.5] };

function randomDetections(seed: number, count: number): { detections: Detections; boxes: number[][] } {
  const random = new Random(seed);
  // No whole numbers: an IoU of just .6 is above the threshold in float32, as in torchvision, and not in float64.
  const side = (least: number): number => Math.fround(least + 6 * random.next());
  const boxes = Array.from({ length: count }, () => {
    const [x, y] = [side(0), side(0)];
    return [x, y, Math.fround(x + side(4)), Math.fround(y + side(4))];
  });
  return {
    boxes,
    detections: {
      boxes: Float32Array.from(boxes.flat()),
      labels: Int32Array.from({ length: count }, () => 1 + random.int(2)),
      // Few values, so that some are equal to a threshold and to each other.
      scores: Float32Array.from({ length: count }, () => random.int(9) / 8),
    },
  };
}

describe('selectBoxes', () => {
  it('equals the greedy suppression within each class of what scores above its threshold', () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 0, max: 25 }), (seed, count) => {
        const { detections, boxes } = randomDetections(seed, count);
        const expected = [1, 2].flatMap((label) => {
          const members = boxes.flatMap((_, i) =>
            detections.labels[i] === label && detections.scores[i] > thresholds.minScore[label] ? [i] : [],
          );
          const kept = referenceNms(
            members.map((i) => boxes[i]),
            members.map((i) => detections.scores[i]),
            0.6,
          );
          return kept.map((k) => members[k]);
        });
        expect(selectBoxes(detections, thresholds)).toEqual(expected);
      }),
    );
  });
});

describe('boxInstances', () => {
  it('are frames of one pixel, cut to the image', () => {
    const detections = {
      boxes: Float32Array.of(1.2, 2.7, 4.1, 5.9, -3, -2, 40, 30),
      labels: Int32Array.of(1, 2),
      scores: Float32Array.of(0.5, 0.75),
    };
    const [small, large] = boxInstances(detections, thresholds, 10, 8);
    expect(small).toMatchObject({ label: 1, score: 0.5, mask: { x: 1, y: 2, width: 4, height: 4 } });
    expect([...(small.mask as { data: Float32Array }).data]).toEqual([1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1]);
    expect(large).toMatchObject({ label: 2, score: 0.75, mask: { x: 0, y: 0, width: 10, height: 8 } });
  });
});
