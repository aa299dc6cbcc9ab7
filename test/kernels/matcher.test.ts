import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { boxIou } from '../../src/kernels/boxes.ts';
import { type MatcherParams, matchBoxes, matcher } from '../../src/kernels/matcher.ts';
import type { Device } from '../../src/tensor/device.ts';
import { type Box, iou, randomBoxes } from '../reference/boxes.ts';
import { match } from '../reference/matcher.ts';
import { testDevice } from '../support/device.ts';
import { haveGoldens, opsCases } from '../support/goldens.ts';

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

const rpn: MatcherParams = { highThreshold: 0.7, lowThreshold: 0.3, allowLowQualityMatches: true };
const boxHead: MatcherParams = { highThreshold: 0.5, lowThreshold: 0.5, allowLowQualityMatches: false };

function tensorOf(boxes: readonly Box[]) {
  return device.tensor(new Float32Array(boxes.flat()), [boxes.length, 4]);
}

/** Both forms against the reference on float32 IoUs. */
function check(gt: readonly Box[], boxes: readonly Box[], params: MatcherParams): Promise<void> {
  return device.scope(async () => {
    const quality = gt.map((truth) => Float32Array.from(boxes, (box) => iou(truth, box, Math.fround)));
    const expected = match(quality, boxes.length, params);
    const [g, b] = [tensorOf(gt), tensorOf(boxes)];
    const flat = Float32Array.from(quality.flatMap((row) => [...row]));
    expect([...(await matcher(device.tensor(flat, [gt.length, boxes.length]), params).ints())]).toEqual(expected);
    expect([...(await matchBoxes(g, b, params).ints())]).toEqual(expected);
  });
}

describe.each([
  ['as the RPN does', rpn],
  ['as the box head does', boxHead],
  ['with low-quality matches and one threshold', { ...boxHead, allowLowQualityMatches: true }],
])('%s', (_, params) => {
  test.each([
    [0, 5],
    [3, 0],
    [0, 0],
    [1, 1],
    [2, 3],
    [9, 63],
    [9, 64],
    [70, 65],
    [40, 1000],
    [3, 5000],
  ])('%i truths, %i boxes', (g, n) => check(randomBoxes(g, 1), randomBoxes(n, 2), params));

  test('ties of boxes and of truths', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(4), fc.nat(4), fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 4 })), {
          maxLength: 90,
        }),
        fc.nat(8),
        async (rows, truths) => {
          const boxes = rows.map(([x, y, w, h]): Box => [x, y, x + w, y + h]);
          await check(boxes.slice(0, truths), boxes.slice(truths), params);
        },
      ),
      { numRuns: 25, seed: 3 },
    ));
});

test('a truth that overlaps no box makes every box of IoU 0 to it positive', async () => {
  const gt: Box[] = [
    [0, 0, 10, 10],
    [500, 500, 510, 510],
  ];
  const boxes: Box[] = [
    [0, 0, 10, 9],
    [0, 0, 10, 5],
    [200, 200, 210, 210],
  ];
  await check(gt, boxes, rpn);
  await device.scope(async () => {
    expect([...(await matchBoxes(tensorOf(gt), tensorOf(boxes), rpn).ints())]).toEqual([0, 0, 0]);
  });
});

test('no grid is needed for the matrix: 60 truths among 20,000 boxes, as the stored matrix says', () =>
  device.scope(async () => {
    const [g, b] = [tensorOf(randomBoxes(60, 4)), tensorOf(randomBoxes(20_000, 5))];
    const stored = await matcher(boxIou(g, b), rpn).ints();
    expect(await matchBoxes(g, b, rpn).ints()).toEqual(stored);
    expect(new Set(stored).size).toBeGreaterThan(40);
  }));

test('several images at once: their own truths, shared or own boxes, absent boxes', () =>
  device.scope(async () => {
    const truths = randomBoxes(9, 6);
    const ranges = device.tensor(Uint32Array.of(0, 4, 4, 9), [4]);
    const spans = [
      [0, 4],
      [4, 4],
      [4, 9],
    ];
    const boxes = randomBoxes(90, 7);
    const alone = async (own: readonly Box[], [first, end]: readonly number[]): Promise<number[]> => {
      const matches = await matchBoxes(tensorOf(truths.slice(first, end)), tensorOf(own), rpn).ints();
      return [...matches].map((match) => (match >= 0 ? match + first : match));
    };
    const shared = await matchBoxes(tensorOf(truths), tensorOf(boxes), rpn, ranges).ints();
    const expected = await Promise.all(spans.map((span) => alone(boxes, span)));
    expect([...shared]).toEqual(expected.flat());
    expect(new Set(shared).size).toBeGreaterThan(5);

    const absent = new Set([0, 41, 89]);
    const padded = boxes.map((box, i): Box => (absent.has(i) ? [0, 0, -1, -1] : box));
    const own = device.tensor(new Float32Array(padded.flat()), [3, 30, 4]);
    const found = await matchBoxes(tensorOf(truths), own, rpn, ranges).ints();
    for (const [image, span] of spans.entries()) {
      const places = Array.from({ length: 30 }, (_, i) => image * 30 + i).filter((i) => !absent.has(i));
      expect(places.map((i) => found[i])).toEqual(
        await alone(
          places.map((i) => boxes[i]),
          span,
        ),
      );
    }
    for (const i of absent) expect(found[i]).toBe(-3);
  }));

test('wrong arguments are named', () =>
  device.scope(() => {
    expect(() => matcher(device.zeros([3]), rpn)).toThrow(/matcher: quality: expected f32 \[G, N\]/);
    expect(() => matchBoxes(device.zeros([3, 4]), device.zeros([4]), rpn)).toThrow(/matchBoxes: boxes/);
    expect(() => matcher(device.zeros([3, 3]), { ...rpn, lowThreshold: 0.9 })).toThrow(/lowThreshold/);
  }));

describe.skipIf(!haveGoldens)('goldens', () => {
  const cases = opsCases('matcher');
  test('are there', () => expect(cases.length).toBe(2));
  test.each(cases)('matcher $index', ({ params, inputs: { quality }, output }) =>
    device.scope(async () => {
      const y = matcher(device.tensor(quality.data as Float32Array, quality.shape), params as unknown as MatcherParams);
      expect([...(await y.ints())]).toEqual([...output.data]);
    }),
  );
});
