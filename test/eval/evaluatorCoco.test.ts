import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cocoRleEncode } from '../../src/data/cocoRle.ts';
import type { Detections, Target } from '../../src/data/types.ts';
import { evaluateCoco } from '../../src/eval/cocoEval.ts';
import type { CocoResult, CocoTruth } from '../../src/eval/cocoFiles.ts';
import { withoutCrowds } from '../../src/eval/crowds.ts';
import { Evaluator } from '../../src/eval/evaluator.ts';
import {
  bytes,
  type Cell,
  cells,
  certain,
  detectionsOf,
  type Found,
  height,
  imageArbitrary,
  targetOf,
  width,
} from './cells.ts';

interface Image {
  target: Target;
  detections: Detections;
}

/** The images as COCO's files would have them. */
function cocoFiles(images: readonly Image[]): { truth: CocoTruth; masks: CocoResult[]; boxes: CocoResult[] } {
  const box = (boxes: Float32Array, i: number): [number, number, number, number] => {
    const [x0, y0, x1, y1] = boxes.subarray(4 * i, 4 * i + 4);
    return [x0, y0, x1 - x0, y1 - y0];
  };
  const truth: CocoTruth = {
    images: images.map((_, id) => ({ id, width, height })),
    categories: [{ id: 1 }, { id: 2 }],
    annotations: images.flatMap(({ target }, image_id) =>
      bytes(target).map((mask, i) => ({
        id: 1000 * (image_id + 1) + i,
        image_id,
        category_id: target.labels[i],
        iscrowd: target.iscrowd[i] ? 1 : 0,
        area: mask.filter(Boolean).length,
        bbox: box(target.boxes, i),
        segmentation: cocoRleEncode(mask, width, height),
      })),
    ),
  };
  const results = (fields: (detections: Detections, i: number) => Partial<CocoResult>): CocoResult[] =>
    images.flatMap(({ detections }, image_id) =>
      Array.from(detections.scores, (score, i) => ({
        image_id,
        category_id: detections.labels[i],
        score,
        ...fields(detections, i),
      })),
    );
  return {
    truth,
    boxes: results(({ boxes }, i) => ({ bbox: box(boxes, i) })),
    masks: results(({ masks }, i) => {
      const mask = new Uint8Array(width * height);
      const crop = masks![i];
      crop.data.forEach((probability, k) => {
        if (probability > 0.5) mask[(crop.y + Math.floor(k / crop.width)) * width + crop.x + (k % crop.width)] = 1;
      });
      return { segmentation: cocoRleEncode(mask, width, height) };
    }),
  };
}

const withCrowds = (target: Target, iscrowd: ArrayLike<number>): Target => ({
  ...target,
  iscrowd: Uint8Array.from(target.labels, (_, i) => iscrowd[i] ?? 0),
});

describe("COCO's numbers of the Evaluator", () => {
  const image = fc.tuple(imageArbitrary, fc.array(fc.constantFrom(0, 0, 1), { minLength: 5, maxLength: 5 })).map(
    ([{ truth, found }, crowds]): Image => ({
      target: withCrowds(targetOf(truth), crowds),
      detections: detectionsOf(found),
    }),
  );

  it('equal those of the same truths and detections in COCO’s files, crowds included', () => {
    fc.assert(
      fc.property(fc.array(image, { maxLength: 3 }), (images) => {
        const evaluator = new Evaluator({ numClasses: 3 });
        for (const { target, detections } of images) evaluator.add(detections, target, width, height);
        const { coco, perClass } = evaluator.compute();
        const { truth, masks, boxes } = cocoFiles(images);
        const segm = evaluateCoco(truth, masks, 'segm');
        const bbox = evaluateCoco(truth, boxes, 'bbox');
        expect(coco).toEqual({ segm: segm.stats, bbox: bbox.stats });
        expect(perClass.map((one) => one.coco)).toEqual(
          [0, 1].map((k) => ({ segm: segm.perClass[k].stats, bbox: bbox.perClass[k].stats })),
        );
      }),
      { numRuns: 40 },
    );
  });

  it('measure truths of a box-only model by their masks where the target has them', () => {
    const target = targetOf(cells);
    const stats = (masks: Uint8Array): number[] => {
      const evaluator = new Evaluator({ numClasses: 3 });
      const { boxes, labels, scores } = detectionsOf(certain(cells));
      evaluator.add({ boxes, labels, scores }, { ...target, masks }, width, height);
      return evaluator.compute().coco.bbox;
    };
    expect(stats(target.masks)).toEqual(stats(new Uint8Array(0)));
    // As if each mask covered more than 32² pixels.
    const large = { ...target, area: Float32Array.from([2000, 2000, 2000]), masks: new Uint8Array(0) };
    const evaluator = new Evaluator({ numClasses: 3 });
    evaluator.add(detectionsOf(certain(cells), false), large, width, height);
    expect(evaluator.compute().coco.bbox[4]).toBeCloseTo(1, 12);
  });
});

describe('crowds in the other scores', () => {
  const crowd: Cell = { x: 24, y: 0, w: 16, h: 24, label: 2 };
  const seen = cells.slice(0, 2);
  const target = withCrowds(targetOf([...seen, crowd]), [0, 0, 1]);
  // Detections in the crowd, and one that reaches into it with less than half.
  const inside: Found[] = [4, 12].map((y, i) => ({
    x: 30,
    y,
    w: 8,
    h: 6,
    label: 1,
    score: 0.99 - i / 100,
    probability: 2,
  }));
  const reaching: Found = { x: 18, y: 14, w: 10, h: 6, label: 1, score: 0.95, probability: 2 };

  const scores = (found: Found[], truth: Target, withMasks = true) => {
    const evaluator = new Evaluator({ numClasses: 3 });
    evaluator.add(detectionsOf(found, withMasks), truth, width, height);
    const { iouMap, boxMap30, computeMAP, maskAP50, boxAP50, instances, perClass } = evaluator.compute();
    return {
      iouMap,
      boxMap30,
      computeMAP,
      maskAP50,
      boxAP50,
      instances,
      perClass: perClass.map(({ coco: _, ...rest }) => rest),
    };
  };

  it.each([true, false])('detections in a crowd change nothing, with masks: %s', (withMasks) => {
    const alone = scores(certain(seen), targetOf(seen), withMasks);
    expect(alone.boxAP50).toBe(1);
    expect(scores([...certain(seen), ...inside], target, withMasks)).toEqual(alone);
    expect(alone.instances).toBe(2);
  });

  it('those elsewhere count, and so do those that find a truth inside the crowd', () => {
    expect(scores([...certain(seen), reaching], target)).toEqual(scores([...certain(seen), reaching], targetOf(seen)));
    expect(scores([...certain(seen), reaching], target).maskAP50).toBeLessThan(1);
    const hidden = { ...inside[0], label: 1 };
    const both = withCrowds(targetOf([...seen, hidden, crowd]), [0, 0, 0, 1]);
    const found = scores([...certain(seen), hidden], both);
    expect(found).toEqual(scores([...certain(seen), hidden], targetOf([...seen, hidden])));
    expect([found.iouMap, found.maskAP50, found.boxMap30]).toEqual([1, 1, 1]);
  });

  it('withoutCrowds takes rows and columns out', () => {
    // Columns: truth, crowd, truth.
    const overlap = Float64Array.of(0.6, 0.9, 0, 0.4, 0.5, 0.2, 0.4, 0.49, 0.2, 0, 1, 0.5);
    expect(withoutCrowds(overlap, [0, 1, 0], 4, 0.5)).toEqual({
      detections: [0, 2, 3],
      iou: Float64Array.of(0.6, 0, 0.4, 0.2, 0, 0.5),
      truth: 2,
    });
    expect(withoutCrowds(overlap, [0, 1, 0], 4, 0.3).detections).toEqual([0, 1, 2, 3]);
    expect(withoutCrowds(overlap, [0, 0, 0], 4, 0.5)).toEqual({ detections: [0, 1, 2, 3], iou: overlap, truth: 3 });
  });
});
