import { beforeAll, describe, expect, test } from 'vitest';
import {
  BBOX_XFORM_CLIP,
  type BoxWeights,
  boxIou,
  clipBoxesToImage,
  decodeBoxes,
  dropBoxes,
  encodeBoxes,
} from '../../src/kernels/boxes.ts';
import type { Device } from '../../src/tensor/device.ts';
import { type Box, clip, decode, encode, iouMatrix, randomBoxes, rowsOf } from '../reference/boxes.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { haveGoldens, opsCases } from '../support/goldens.ts';
import { uniform } from '../support/random.ts';

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

const weights: BoxWeights = [10, 10, 5, 5];

function tensorOf(boxes: readonly Box[]) {
  return device.tensor(new Float32Array(boxes.flat()), [boxes.length, 4]);
}

describe('boxIou', () => {
  test.each([
    [1, 1],
    [3, 65],
    [64, 63],
    [0, 5],
    [5, 0],
  ])('%i × %i', (n, m) =>
    device.scope(async () => {
      const [a, b] = [randomBoxes(n, 1), randomBoxes(m, 2)];
      const y = boxIou(tensorOf(a), tensorOf(b));
      expect(y.shape).toEqual([n, m]);
      expectClose(await y.floats(), iouMatrix(a, b), 1e-6);
    }),
  );

  test('boxes without area have no overlap, not even with themselves', () =>
    device.scope(async () => {
      const boxes: Box[] = [
        [2, 2, 2, 2],
        [1, 1, 5, 1],
        [0, 0, 9, 9],
      ];
      expect([...(await boxIou(tensorOf(boxes), tensorOf(boxes)).floats())]).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }));

  test('beyond 65535 workgroups', () =>
    device.scope(async () => {
      const [a, b] = [randomBoxes(2100, 3), randomBoxes(2001, 4)];
      const y = await boxIou(tensorOf(a), tensorOf(b)).floats();
      for (const row of [0, 1000, 2099]) {
        expectClose(y.subarray(row * 2001, (row + 1) * 2001), iouMatrix([a[row]], b), 1e-6, `row ${row}`);
      }
    }));

  test('wrong shapes are named', () => {
    device.scope(() => {
      expect(() => boxIou(device.zeros([3, 5]), device.zeros([3, 4]))).toThrow(/boxIou: a: expected \[N, 4\]/);
    });
  });
});

test('clipBoxesToImage of any rank', () =>
  device.scope(async () => {
    const boxes = rowsOf(uniform(4 * 60, 5, -30, 130));
    const y = clipBoxesToImage(tensorOf(boxes).view([2, 30, 4]), [70, 90]);
    expect(y.shape).toEqual([2, 30, 4]);
    expect([...(await y.floats())]).toEqual(boxes.flatMap((box) => [...clip(box, 70, 90)]));
    expect(clipBoxesToImage(device.zeros([0, 4]), [70, 90]).shape).toEqual([0, 4]);
  }));

describe('the box coder', () => {
  test.each([0, 1, 3, 65])('encodes %i boxes', (n) =>
    device.scope(async () => {
      const [truth, proposals] = [randomBoxes(n, 6), randomBoxes(n, 7)];
      const y = encodeBoxes(tensorOf(truth), tensorOf(proposals), weights);
      expectClose(
        await y.floats(),
        truth.flatMap((box, i) => [...encode(box, proposals[i], weights)]),
        1e-5,
      );
    }),
  );

  test.each([
    [0, 3],
    [1, 1],
    [65, 3],
  ])('decodes %i boxes of %i classes, clamping the sides', (n, classes) =>
    device.scope(async () => {
      const boxes = randomBoxes(n, 8);
      const codes = uniform(n * classes * 4, 9, -25, 25);
      const y = decodeBoxes(device.tensor(codes, [n, classes * 4]), tensorOf(boxes), weights);
      const expected = rowsOf(codes).flatMap((code, i) => [
        ...decode(code, boxes[Math.floor(i / classes)], weights, BBOX_XFORM_CLIP),
      ]);
      expectClose(await y.floats(), expected, 1e-5);
    }),
  );

  test('decoding what was encoded gives the truth back', () =>
    device.scope(async () => {
      const [truth, proposals] = [tensorOf(randomBoxes(200, 10)), tensorOf(randomBoxes(200, 11))];
      const back = decodeBoxes(encodeBoxes(truth, proposals, weights), proposals, weights, 20);
      expectClose(await back.floats(), await truth.floats(), 1e-5);
    }));
});

test('dropBoxes marks small boxes and low scores', () =>
  device.scope(async () => {
    const boxes = tensorOf([
      [0, 0, 2, 2],
      [0, 0, 1.5, 9],
      [0, 0, 9, 1.5],
      [0, 0, 3, 3],
      [0, 0, 3, 3],
    ]);
    const scores = device.tensor([0.5, 0.9, 0.9, 0.25, 0.125], [5]);
    const none = Number.NEGATIVE_INFINITY;
    const of = async (options: Parameters<typeof dropBoxes>[2]) => [
      ...(await dropBoxes(boxes, scores, options).floats()),
    ];
    expect(await of({ minSize: 2 })).toEqual([0.5, none, none, 0.25, 0.125]);
    expect(await of({ minSize: 2, scoreAtLeast: 0.25 })).toEqual([0.5, none, none, 0.25, none]);
    expect(await of({ minSize: 2, scoreAbove: 0.25 })).toEqual([0.5, none, none, none, none]);
  }));

describe.skipIf(!haveGoldens)('goldens', () => {
  const cases = opsCases('box_iou', 'clip_boxes_to_image', 'encode_boxes', 'decode_boxes');
  test('are there', () => expect(cases.length).toBe(4));
  test.each(cases)('$op', ({ op, params, inputs, output }) =>
    device.scope(async () => {
      const input = (name: string) => device.tensor(inputs[name].data as Float32Array, inputs[name].shape);
      const coder = params.weights as BoxWeights;
      const run = {
        box_iou: () => boxIou(input('a'), input('b')),
        clip_boxes_to_image: () => clipBoxesToImage(input('boxes'), params.size as [number, number]),
        encode_boxes: () => encodeBoxes(input('reference'), input('proposals'), coder),
        decode_boxes: () => decodeBoxes(input('rel_codes'), input('boxes'), coder, params.bboxXformClip as number),
      }[op];
      expectClose(await run!().floats(), output.data, 1e-5);
    }),
  );
});
