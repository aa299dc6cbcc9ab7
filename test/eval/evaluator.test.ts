import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Detections } from '../../src/data/types.ts';
import { iouMap } from '../../src/eval/competitionScore.ts';
import { Evaluator } from '../../src/eval/evaluator.ts';
import { evaluationSample, searchThresholds, selectionTable } from '../../src/eval/thresholds.ts';
import { referenceAveragePrecision, referenceBoxIou } from '../reference/averagePrecision.ts';
import { pixelIou, referenceImageScore } from '../reference/iouMap.ts';
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

/** Full-size masks of the selected instances, written from the notebook's rule with plain loops. */
function referenceSelection(detections: Detections, minScore: number[], maskThreshold: number[]) {
  const taken = new Uint8Array(width * height);
  const masks: Uint8Array[] = [];
  const labels: number[] = [];
  detections.masks!.forEach((crop, i) => {
    const label = detections.labels[i];
    if (!(detections.scores[i] > minScore[label])) return;
    const mask = new Uint8Array(width * height);
    crop.data.forEach((probability, k) => {
      const pixel = (crop.y + Math.floor(k / crop.width)) * width + crop.x + (k % crop.width);
      if (probability > maskThreshold[label] && taken[pixel] === 0) {
        mask[pixel] = 1;
        taken[pixel] = 1;
      }
    });
    if (mask.includes(1)) {
      masks.push(mask);
      labels.push(label);
    }
  });
  return { masks, labels };
}

describe('Evaluator', () => {
  const one = expect.closeTo(1, 12);
  // Small cells only. Of two cells of a class the best detection alone finds half.
  const perfect = [one, one, one, one, -1, -1, 0.75, one, one, one, -1, -1];
  const perfectAlone = perfect.with(6, one);

  it('gives 1 everywhere for a perfect prediction, whatever the order of truths', () => {
    for (const order of [cells, [...cells].reverse()]) {
      const evaluator = new Evaluator({ numClasses: 3 });
      evaluator.add(detectionsOf(certain(cells)), targetOf(order), width, height, 'full');
      evaluator.add(detectionsOf([]), targetOf([]), width, height);
      const result = evaluator.compute();
      expect(result).toEqual({
        iouMap: 1,
        boxMap30: 1,
        // Of "classes" 0, 1 and 2 the background has area 0.
        computeMAP: expect.closeTo(2 / 3, 5),
        maskAP50: 1,
        boxAP50: 1,
        images: 2,
        instances: 3,
        coco: { segm: perfect, bbox: perfect },
        perClass: [
          { label: 1, instances: 2, iouMap: 1, boxMap30: 1, maskAP50: 1, boxAP50: 1, coco: expect.anything() },
          {
            label: 2,
            instances: 1,
            iouMap: 1,
            boxMap30: 1,
            maskAP50: 1,
            boxAP50: 1,
            coco: { segm: perfectAlone, bbox: perfectAlone },
          },
        ],
        perImage: [
          { id: 'full', iouMap: 1 },
          { id: '0', iouMap: 1 },
        ],
      });
      expect(Object.keys(result).slice(0, 4)).toEqual(['iouMap', 'boxMap30', 'computeMAP', 'maskAP50']);
    }
  });

  it('equals references made pixel by pixel', () => {
    fc.assert(
      fc.property(fc.array(imageArbitrary, { minLength: 1, maxLength: 3 }), (images) => {
        const evaluator = new Evaluator({ numClasses: 3 });
        const truths = images.map((image) => image.truth.length);
        const byMask: Parameters<typeof referenceAveragePrecision>[0] = [];
        const byBox: typeof byMask = [];
        let score = 0;
        for (const [image, { truth, found }] of images.entries()) {
          const detections = detectionsOf(found);
          const target = targetOf(truth);
          evaluator.add(detections, target, width, height);
          const rows = (boxes: Float32Array, i: number) => Array.from(boxes.subarray(4 * i, 4 * i + 4));
          const raw = detections.masks!.map(
            (crop, i) =>
              referenceSelection(
                { ...detections, masks: [crop], labels: detections.labels.slice(i, i + 1), scores: Float32Array.of(1) },
                [0, 0, 0],
                [0.5, 0.5, 0.5],
              ).masks[0] ?? new Uint8Array(width * height),
          );
          for (const [i, mask] of raw.entries()) {
            byMask.push({ image, score: detections.scores[i], iou: bytes(target).map((t) => pixelIou(mask, t)) });
            byBox.push({
              image,
              score: detections.scores[i],
              iou: truth.map((_, t) => referenceBoxIou(rows(detections.boxes, i), rows(target.boxes, t))),
            });
          }
          const { masks } = referenceSelection(detections, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]);
          score += referenceImageScore(bytes(target), masks) / images.length;
        }
        const result = evaluator.compute();
        expect(result.maskAP50).toBeCloseTo(referenceAveragePrecision(byMask, truths, 0.5), 12);
        expect(result.boxAP50).toBeCloseTo(referenceAveragePrecision(byBox, truths, 0.5), 12);
        expect(result.iouMap).toBeCloseTo(score, 12);
      }),
      { numRuns: 60 },
    );
  });

  it('takes NMS over classes into boxMap30 and classes by name', () => {
    const evaluator = new Evaluator({ numClasses: 3 });
    // The same box twice: the wrong class is surer, so the right one is suppressed.
    const found = [
      ...certain(cells.slice(1)),
      { ...cells[0], label: 2, score: 0.95, probability: 1 },
      ...certain(cells.slice(0, 1), 0.5),
    ];
    evaluator.add(detectionsOf(found), targetOf(cells), width, height);
    const result = evaluator.compute();
    // Class 1: one of two found, at full precision. Class 2: a false positive of score .95 above the hit of .9.
    expect(result.perClass.map((item) => item.boxMap30)).toEqual([0.5, 0.5]);
    expect(result.boxMap30).toBe(0.5);
    expect(result.perClass[1].maskAP50).toBe(0.5);
    expect(result.perClass[0].maskAP50).toBe(1);
    // Without regard to class the mislabelled detection is a hit and its double the only false positive, found last.
    expect(result.boxAP50).toBe(1);
  });

  it('gives null mask scores for a box-only model, and refuses a mixture', () => {
    const evaluator = new Evaluator({ numClasses: 3, keepSamples: true });
    evaluator.add(detectionsOf(certain(cells), false), targetOf(cells), width, height);
    expect(evaluator.compute()).toMatchObject({
      iouMap: null,
      maskAP50: null,
      boxMap30: 1,
      boxAP50: 1,
      instances: 3,
      coco: { segm: null, bbox: perfect },
      perImage: [{ id: '0', iouMap: null }],
    });
    expect(() => evaluator.add(detectionsOf([]), targetOf([]), width, height)).toThrow('masks');
    expect(() => searchThresholds(evaluator.samples, 3)).toThrow('box-only');
  });

  it('handles no detection, no truth, no image', () => {
    const missed = new Evaluator({ numClasses: 2 });
    missed.add(detectionsOf([]), targetOf([cells[0]]), width, height);
    expect(missed.compute()).toMatchObject({ iouMap: 0, boxMap30: 0, maskAP50: 0, boxAP50: 0, instances: 1 });
    const spurious = new Evaluator({ numClasses: 2 });
    spurious.add(detectionsOf(certain([cells[0]])), targetOf([]), width, height);
    expect(spurious.compute()).toMatchObject({ iouMap: 0, boxMap30: 0, maskAP50: 0, boxAP50: 0, instances: 0 });
    expect(new Evaluator({ numClasses: 2 }).compute()).toMatchObject({ iouMap: 0, maskAP50: 0, images: 0 });
  });

  it('refuses a target whose counts disagree, and compute(thresholds) without samples', () => {
    const evaluator = new Evaluator({ numClasses: 3 });
    const target = { ...targetOf(cells), labels: Int32Array.of(1) };
    expect(() => evaluator.add(detectionsOf([]), target, width, height)).toThrow('1 labels with 3 boxes');
    expect(() => evaluator.compute({ minScore: [], maskThreshold: [] })).toThrow('keepSamples');
  });
});

describe('searchThresholds', () => {
  it('finds what the default misses: low scores of one class, too wide masks of the other', () => {
    const evaluator = new Evaluator({ numClasses: 3, keepSamples: true });
    const found: Found[] = [
      // Class 1 is found with low confidence, above noise that is lower still.
      ...certain(
        cells.filter((cell) => cell.label === 1),
        0.35,
      ),
      { x: 30, y: 1, w: 6, h: 6, label: 1, score: 0.15, probability: 2 },
      // Class 2 is one column too wide, unless that column (.625) is cut away.
      { ...cells[1], w: cells[1].w + 1, label: 2, score: 0.8, probability: 1.25 },
    ];
    evaluator.add(detectionsOf(found), targetOf(cells), width, height);
    const result = searchThresholds(evaluator.samples, 3);
    expect(result.score).toBe(1);
    // Nearest to the start among the equals.
    expect(result.minScore).toEqual([0.5, 0.3, 0.5]);
    expect(result.maskThreshold).toEqual([0.5, 0.5, 0.7]);
    expect(evaluator.compute().iouMap).toBeLessThan(0.5);
    expect(evaluator.compute(result).iouMap).toBe(1);
  });

  it('is never worse than the start, reports the score its thresholds reach, and repeats itself', () => {
    fc.assert(
      fc.property(fc.array(imageArbitrary, { minLength: 1, maxLength: 3 }), (images) => {
        const samples = images.map(({ truth, found }) =>
          evaluationSample(detectionsOf(found), targetOf(truth), width, height),
        );
        const at = (thresholds: { minScore: number[]; maskThreshold: number[] }) =>
          iouMap(samples.map((sample) => selectionTable(sample, thresholds))).score;
        const result = searchThresholds(samples, 3);
        expect(result.score).toBeGreaterThanOrEqual(at({ minScore: [0.5, 0.5, 0.5], maskThreshold: [0.5, 0.5, 0.5] }));
        expect(result.score).toBeCloseTo(at(result), 12);
        expect(searchThresholds(samples, 3)).toEqual(result);
      }),
      { numRuns: 15 },
    );
  });

  it('equals the exhaustive search for one class', () => {
    fc.assert(
      fc.property(imageArbitrary, ({ truth, found }) => {
        const ofOne = <T extends Cell>(items: T[]) => items.map((item) => ({ ...item, label: 1 }));
        const detections = detectionsOf(ofOne(found));
        const target = targetOf(ofOne(truth));
        const sample = evaluationSample(detections, target, width, height);
        const [scores, masks] = [
          [0.2, 0.5, 0.8],
          [0.25, 0.5],
        ];
        const all = scores.flatMap((score) =>
          masks.map((mask) =>
            referenceImageScore(bytes(target), referenceSelection(detections, [0, score], [0, mask]).masks),
          ),
        );
        expect(searchThresholds([sample], 2, { scores, masks }).score).toBeCloseTo(Math.max(...all), 12);
      }),
      { numRuns: 40 },
    );
  });

  it('keeps the start where nothing is better', () => {
    expect(searchThresholds([], 2)).toEqual({ minScore: [0.5, 0.5], maskThreshold: [0.5, 0.5], score: 0 });
  });
});
