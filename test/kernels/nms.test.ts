import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { dropBoxes } from '../../src/kernels/boxes.ts';
import { batchedNms, type Kept, nms } from '../../src/kernels/nms.ts';
import type { Device } from '../../src/tensor/device.ts';
import { type Box, randomBoxes, rowsOf } from '../reference/boxes.ts';
import { greedyNms } from '../reference/nms.ts';
import { testDevice } from '../support/device.ts';
import { haveGoldens, opsCases } from '../support/goldens.ts';
import { uniform } from '../support/random.ts';

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

/** `kept`, padded as the kernel pads it. */
function padded(kept: readonly number[], length: number): number[] {
  return [...kept.slice(0, length), ...Array<number>(Math.max(0, length - kept.length)).fill(-1)];
}

async function expectKept(result: Kept, expected: readonly (readonly number[])[], length: number): Promise<void> {
  expect([...(await result.count.ints())]).toEqual(expected.map((kept) => Math.min(kept.length, length)));
  expect([...(await result.indices.ints())]).toEqual(expected.flatMap((kept) => padded(kept, length)));
}

function inputs(boxes: readonly Box[], scores: Float32Array) {
  return [
    device.tensor(new Float32Array(boxes.flat()), [boxes.length, 4]),
    device.tensor(scores, [boxes.length]),
  ] as const;
}

function check(boxes: readonly Box[], scores: Float32Array, threshold: number, classes?: Int32Array): Promise<void> {
  return device.scope(async () => {
    const [b, s] = inputs(boxes, scores);
    const result = classes
      ? batchedNms(b, s, device.tensor(classes, [classes.length], 'i32'), threshold)
      : nms(b, s, threshold);
    expect(result.indices.shape).toEqual([boxes.length]);
    await expectKept(result, [greedyNms(boxes, scores, threshold, classes)], boxes.length);
  });
}

describe('nms', () => {
  test.each([0, 1, 2, 3, 63, 64, 65, 1000, 2000, 5000])('%i boxes', async (n) => {
    await check(randomBoxes(n, n), uniform(n, n + 1, 0, 1), 0.5);
    // The reference is quadratic in the boxes kept, so the largest size is tried at one threshold only.
    if (n < 5000) await check(randomBoxes(n, n + 2), uniform(n, n + 3, 0, 1), 0.9);
  });

  // Heaps are decided in blocks, boxes that lie apart by the mask; the other layouts begin with the one and end with the other.
  test.each([
    ['a heap', () => 4],
    ['a row', () => 4000],
    ['a heap, then a row', (at: number) => (at < 0.6 ? 4 : 4000)],
    ['a row, then a heap', (at: number) => (at < 0.1 ? 4000 : 4)],
    ['boxes that meet ever more rarely', (at: number) => 4 + 2000 * at],
  ])('%s', (_, spread) =>
    device.scope(async () => {
      for (const [n, threshold] of [
        [200, 0.5],
        [257, 0.3],
        [700, 0.5],
        [2500, 0.7],
      ]) {
        const [across, down] = [uniform(n, n, 0, 1), uniform(n, n + 1, 0, 8)];
        const scores = uniform(n, n + 2, 0, 1);
        const boxes = Array.from({ length: n }, (_, i): Box => {
          const x = Math.fround(across[i] * spread(1 - scores[i]));
          return [x, down[i], Math.fround(x + 20), Math.fround(down[i] + 20)];
        });
        const ids = Int32Array.from(scores, (_, i) => (i % 7 === 0 ? 1 : 0));
        const [b, s] = inputs(boxes, scores);
        const expected = greedyNms(boxes, scores, threshold);
        for (const maxKept of [1, Math.ceil(expected.length / 2), expected.length, n])
          await expectKept(nms(b, s, threshold, { maxKept }), [expected], Math.min(n, maxKept));
        await check(boxes, scores, threshold, ids);
      }
    }),
  );

  test('sets of which some are decided in blocks and some are not', () =>
    device.scope(async () => {
      const n = 900;
      const spreads = [3, 4000, 40, 3, 600];
      const scores = uniform(spreads.length * n, 1, 0, 1);
      const across = uniform(spreads.length * n, 2, 0, 1);
      const boxes = Array.from(scores, (_, i): Box => {
        const x = Math.fround(across[i] * spreads[Math.floor(i / n)]);
        return [x, 0, Math.fround(x + 10), 10];
      });
      const [b, s] = [
        device.tensor(new Float32Array(boxes.flat()), [spreads.length, n, 4]),
        device.tensor(scores, [spreads.length, n]),
      ];
      const expected = spreads.map((_, set) =>
        greedyNms(boxes.slice(set * n, (set + 1) * n), scores.subarray(set * n, (set + 1) * n), 0.6),
      );
      await expectKept(nms(b, s, 0.6), expected, n);
      await expectKept(nms(b, s, 0.6, { maxKept: 300 }), expected, 300);
    }));

  test('nothing suppressed, and everything but the best', async () => {
    const apart = Array.from({ length: 100 }, (_, i): Box => [10 * i, 0, 10 * i + 5, 5]);
    await check(apart, uniform(100, 1), 0);
    await check(
      Array.from({ length: 100 }, (): Box => [3, 4, 50, 60]),
      uniform(100, 2),
      0.99,
    );
  });

  test('whole coordinates, tied scores, overlaps equal to the threshold', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(6), fc.nat(6), fc.nat(6), fc.nat(6), fc.nat(3), fc.nat(2)), { maxLength: 120 }),
        fc.constantFrom(0, 1 / 3, 0.5, 0.7, 1),
        async (rows, threshold) => {
          const boxes = rows.map(([x, y, w, h]): Box => [x, y, x + w, y + h]);
          const scores = Float32Array.from(rows, (row) => row[4] / 4);
          await check(boxes, scores, threshold);
          await check(
            boxes,
            scores,
            threshold,
            Int32Array.from(rows, (row) => row[5]),
          );
        },
      ),
      { numRuns: 40, seed: 2 },
    ));

  test('a threshold between two floats is compared as a double', async () => {
    // IoU 7 / 10 is the float32 just below or above 0.7; the decision must be that of the double comparison.
    const boxes: Box[] = [
      [0, 0, 10, 1],
      [0, 0, 7, 1],
    ];
    const rounded = Math.fround(0.7);
    for (const threshold of [0.7, rounded, rounded - 1e-9, rounded + 1e-9]) {
      await check(boxes, Float32Array.of(0.9, 0.8), threshold);
    }
  });

  test('independent sets of different sizes, the absent boxes marked', () =>
    device.scope(async () => {
      const [sets, n] = [5, 333];
      const boxes = randomBoxes(sets * n, 7);
      const scores = uniform(sets * n, 8, 0, 1);
      const lengths = [333, 0, 1, 100, 64];
      scores.forEach((_, i) => {
        if (i % n >= lengths[Math.floor(i / n)]) scores[i] = Number.NEGATIVE_INFINITY;
      });
      const ids = Int32Array.from(scores, (_, i) => i % 3);
      const [b, s] = [device.tensor(new Float32Array(boxes.flat()), [sets, n, 4]), device.tensor(scores, [sets, n])];
      const expected = (classes?: Int32Array) =>
        lengths.map((_, set) => {
          const part = [set * n, (set + 1) * n] as const;
          return greedyNms(boxes.slice(...part), scores.subarray(...part), 0.4, classes?.subarray(...part));
        });
      await expectKept(nms(b, s, 0.4), expected(), n);
      await expectKept(batchedNms(b, s, device.tensor(ids, [sets, n], 'i32'), 0.4), expected(ids), n);
      await expectKept(nms(b, s, 0.4, { maxKept: 20 }), expected(), 20);
      await expectKept(nms(b, s, 0.4, { maxKept: 0 }), expected(), 0);
      await expectKept(nms(b, s, 0.4, { maxKept: 1000 }), expected(), n);
      expect(nms(device.zeros([3, 0, 4]), device.zeros([3, 0]), 0.4).count.shape).toEqual([3]);
    }));

  test('follows dropBoxes', () =>
    device.scope(async () => {
      const boxes = randomBoxes(500, 9);
      const scores = uniform(500, 10, 0, 1);
      const [b, s] = inputs(boxes, scores);
      const left = scores.map((score, i) => {
        const [x1, y1, x2, y2] = boxes[i];
        return Math.fround(x2 - x1) >= 20 && Math.fround(y2 - y1) >= 20 && score > 0.25 ? score : -Infinity;
      });
      await expectKept(
        nms(b, dropBoxes(b, s, { minSize: 20, scoreAbove: 0.25 }), 0.5),
        [greedyNms(boxes, left, 0.5)],
        500,
      );
    }));

  test('gives all memory back', () =>
    device.scope(async () => {
      const [b, s] = inputs(randomBoxes(200, 1), uniform(200, 2));
      const before = device.gpu.counters().inUse;
      device.scope(() => {
        nms(b, s, 0.5);
      });
      expect(device.gpu.counters().inUse).toBe(before);
      await device.gpu.sync();
    }));

  test('wrong arguments are named', () =>
    device.scope(() => {
      expect(() => nms(device.zeros([3, 5]), device.zeros([3]), 0.5)).toThrow(/nms: boxes: expected f32 \[N, 4\]/);
      expect(() => nms(device.zeros([3, 4]), device.zeros([2]), 0.5)).toThrow(/nms: scores: expected f32 \[3\]/);
      expect(() => batchedNms(device.zeros([3, 4]), device.zeros([3]), device.zeros([3]), 0.5)).toThrow(/idxs/);
      expect(() => nms(device.zeros([3, 4]), device.zeros([3]), Number.NaN)).toThrow(/iouThreshold/);
    }));
});

describe.skipIf(!haveGoldens)('goldens', () => {
  const cases = opsCases('nms', 'batched_nms');
  test('are there', () => expect(cases.length).toBe(7));
  test.each(cases)('$op $index', ({ params, inputs: given, output }) =>
    device.scope(async () => {
      const boxes = rowsOf(given.boxes.data);
      const [b, s] = inputs(boxes, given.scores.data as Float32Array);
      const threshold = params.iouThreshold as number;
      const result = given.idxs
        ? batchedNms(b, s, device.tensor(given.idxs.data as Int32Array, [boxes.length], 'i32'), threshold)
        : nms(b, s, threshold);
      await expectKept(result, [[...output.data]], boxes.length);
    }),
  );
});
