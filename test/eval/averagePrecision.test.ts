import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  evaluateBoxes,
  meanAveragePrecisionForBoxes,
  nmsForMetrics,
  pairwiseBoxIou,
} from '../../src/eval/boxAveragePrecision.ts';
import { computeMAP } from '../../src/eval/computeMAP.ts';
import { averagePrecision, envelopeArea } from '../../src/eval/maskAveragePrecision.ts';
import {
  interpolatedArea,
  type RefDetection,
  referenceAveragePrecision,
  referenceBoxIou,
  referenceNms,
} from '../reference/averagePrecision.ts';

type AnnotationRow = [number, string, number, number, number, number];
type PredictionRow = [number, string, number, number, number, number, number];
interface GoldenCase {
  annotations: AnnotationRow[];
  predictions: PredictionRow[];
  meanAveragePrecisionForBoxes: Record<string, { mAP: number; perClass: Record<string, [number, number]> }>;
  computeMAP: { nClasses: number; mAP: number; perThreshold: number[] };
}

const golden = resolve(import.meta.dirname, '../../../shared/goldens/data/data.json');

describe.skipIf(!existsSync(golden))('box metrics of the goldens', () => {
  const cases: GoldenCase[] = existsSync(golden) ? JSON.parse(readFileSync(golden, 'utf8')).boxAP : [];
  // The notebook's tables hold xmin, xmax, ymin, ymax, a row per box.
  const annotations = (item: GoldenCase) =>
    item.annotations.map(([image, label, x0, x1, y0, y1]) => ({
      imageId: String(image),
      labels: [label],
      boxes: [x0, y0, x1, y1],
    }));
  const predictions = (item: GoldenCase) =>
    item.predictions.map(([image, label, score, x0, x1, y0, y1]) => ({
      imageId: String(image),
      labels: [label],
      scores: [score],
      boxes: [x0, y0, x1, y1],
    }));

  it.each(cases.map((item, i) => [i, item] as const))('mean_average_precision_for_boxes, case %i', (_, item) => {
    for (const [threshold, expected] of Object.entries(item.meanAveragePrecisionForBoxes)) {
      const result = meanAveragePrecisionForBoxes(annotations(item), predictions(item), Number(threshold));
      expect(result.mean).toBeCloseTo(expected.mAP, 10);
      expect(Object.keys(result.perClass)).toEqual(Object.keys(expected.perClass));
      for (const [label, [ap, count]] of Object.entries(expected.perClass)) {
        expect(result.perClass[label].averagePrecision).toBeCloseTo(ap, 10);
        expect(result.perClass[label].annotations).toBe(count);
      }
    }
  });

  it.each(cases.map((item, i) => [i, item] as const))('compute_mAP, case %i', (_, item) => {
    const truths = item.annotations.map(([imageId, label, x0, x1, y0, y1]) => ({
      imageId,
      label: Number(label),
      box: [x0, y0, x1, y1] as const,
      score: 1,
    }));
    const found = item.predictions.map(([imageId, label, score, x0, x1, y0, y1]) => ({
      imageId,
      label: Number(label),
      box: [x0, y0, x1, y1] as const,
      score,
    }));
    const result = computeMAP(truths, found, item.computeMAP.nClasses);
    expect(result.mean).toBeCloseTo(item.computeMAP.mAP, 10);
    expect(result.perThreshold).toHaveLength(item.computeMAP.perThreshold.length);
    for (const [i, value] of result.perThreshold.entries()) {
      expect(value).toBeCloseTo(item.computeMAP.perThreshold[i], 10);
    }
  });
});

// Quarters are exact in float32, so that the float64 references see the same boxes.
const quarter = (max: number) => fc.integer({ min: 0, max: 4 * max }).map((v) => v / 4);
const box = fc.tuple(quarter(30), quarter(30), quarter(15), quarter(15)).map(([x, y, w, h]) => [x, y, x + w, y + h]);
const scored = fc.array(fc.tuple(box, fc.integer({ min: 0, max: 8 })), { maxLength: 15 });
const flat = (boxes: number[][]) => Float32Array.from(boxes.flat());

describe('pairwiseBoxIou and nmsForMetrics', () => {
  it('equal the references', () => {
    fc.assert(
      fc.property(scored, (rows) => {
        const boxes = rows.map(([b]) => b);
        const scores = rows.map(([, s]) => s / 8);
        const iou = pairwiseBoxIou(flat(boxes), flat(boxes));
        const expected = boxes.flatMap((a) => boxes.map((b) => referenceBoxIou(a, b)));
        expect(iou).toHaveLength(expected.length);
        for (const [i, value] of expected.entries()) expect(iou[i]).toBeCloseTo(value, 12);
        // A pair whose IoU is .3 up to rounding may fall either way in float32.
        fc.pre([...iou].every((v) => Math.abs(v - 0.3) > 1e-6));
        expect(nmsForMetrics(flat(boxes), Float32Array.from(scores), 0.3)).toEqual(referenceNms(boxes, scores, 0.3));
      }),
      { numRuns: 200 },
    );
  });

  it('keeps a box whose IoU equals the threshold, and takes equal scores in index order', () => {
    const boxes = flat([
      [0, 0, 2, 1],
      [1, 0, 2, 1],
      [0, 0, 2, 1],
    ]);
    expect(nmsForMetrics(boxes, Float32Array.of(0.5, 0.5, 0.5), 0.5)).toEqual([0, 1]);
    expect(nmsForMetrics(new Float32Array(0), new Float32Array(0), 0.5)).toEqual([]);
  });
});

describe('averagePrecision', () => {
  const image = fc.integer({ min: 0, max: 4 }).chain((truth) =>
    fc
      .array(
        fc.record({
          score: fc.integer({ min: 0, max: 6 }).map((v) => v / 8),
          iou: fc.array(
            fc.integer({ min: 0, max: 10 }).map((v) => v / 10),
            { minLength: truth, maxLength: truth },
          ),
        }),
        { maxLength: 8 },
      )
      .map((detections) => ({ truth, detections })),
  );

  it('equals the reference on arbitrary IoUs and tied scores', () => {
    fc.assert(
      fc.property(fc.array(image, { maxLength: 4 }), fc.constantFrom(0.3, 0.5, 0.8), (images, threshold) => {
        const tables = images.map(({ truth, detections }) => ({
          truth,
          scores: detections.map((d) => d.score),
          iou: Float64Array.from(detections.flatMap((d) => d.iou)),
        }));
        const pooled: RefDetection[] = images.flatMap(({ detections }, i) =>
          detections.map((d) => ({ ...d, image: i })),
        );
        const truths = images.map(({ truth }) => truth);
        expect(averagePrecision(tables, threshold)).toBeCloseTo(
          referenceAveragePrecision(pooled, truths, threshold),
          12,
        );
      }),
      { numRuns: 300 },
    );
  });

  it('equals the reference area for any sequence of hits', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 20 }), fc.integer({ min: 1, max: 5 }), (hits, missed) => {
        const truths = hits.filter(Boolean).length + missed;
        let found = 0;
        const counts = hits.map((hit) => (found += hit ? 1 : 0));
        const area = envelopeArea(
          counts.map((count) => count / truths),
          counts.map((count, i) => count / (i + 1)),
        );
        expect(area).toBeCloseTo(interpolatedArea(hits, truths), 12);
      }),
    );
  });

  it('does not depend on the order of truths when no two IoUs of a detection are equal', () => {
    const iou = [
      [0.9, 0.6, 0.1],
      [0.8, 0.55, 0.2],
      [0.3, 0.7, 0.51],
    ];
    const scores = [0.9, 0.8, 0.7];
    const table = (order: number[]) => ({
      truth: 3,
      scores,
      iou: Float64Array.from(iou.flatMap((row) => order.map((t) => row[t]))),
    });
    // The second detection's best truth is taken: it falls back on the next; the third then on its second choice.
    for (const order of [
      [0, 1, 2],
      [2, 1, 0],
      [1, 2, 0],
    ])
      expect(averagePrecision([table(order)])).toBe(1);
  });

  it('counts a duplicate as false positive and pools images by score', () => {
    const first = { truth: 1, scores: [0.9, 0.8], iou: Float64Array.of(0.9, 0.9) };
    const second = { truth: 1, scores: [0.7], iou: Float64Array.of(0.5) };
    // Hits by score: yes, no, yes (IoU equal to the threshold counts): .5 × 1 + .5 × 2/3.
    expect(averagePrecision([first, second])).toBeCloseTo(5 / 6, 12);
    expect(averagePrecision([second, first])).toBeCloseTo(5 / 6, 12);
  });

  it('handles sets without truths, without detections, without images', () => {
    const none = new Float64Array(0);
    expect(averagePrecision([])).toBe(0);
    expect(averagePrecision([{ truth: 0, scores: [0.9], iou: none }])).toBe(0);
    expect(averagePrecision([{ truth: 4, scores: [], iou: none }])).toBe(0);
    expect(() => averagePrecision([{ truth: 4, scores: [1], iou: none }])).toThrow('[1, 4]');
  });
});

describe('meanAveragePrecisionForBoxes', () => {
  const truth = (imageId: string, labels: number[], boxes: number[][]) => ({ imageId, labels, boxes: boxes.flat() });
  const found = (imageId: string, labels: number[], boxes: number[][], scores: number[]) => ({
    ...truth(imageId, labels, boxes),
    scores,
  });
  const a = [0, 0, 10, 10];
  const b = [50, 50, 60, 60];

  it('is 1 for a perfect prediction whatever the order of truths', () => {
    const predictions = [found('x', [1, 2, 1], [a, a, b], [0.9, 0.5, 0.6])];
    for (const annotations of [[truth('x', [1, 1, 2], [a, b, a])], [truth('x', [2, 1, 1], [a, b, a])]]) {
      expect(meanAveragePrecisionForBoxes(annotations, predictions, 0.5).mean).toBe(1);
    }
  });

  it('keeps the quirks: list order, best truth alone, images and classes without truth unseen', () => {
    const annotations = [truth('x', [1], [a])];
    // The weaker detection stands first and claims the truth: the stronger one is the false positive.
    const listOrder = meanAveragePrecisionForBoxes(annotations, [found('x', [1, 1], [a, a], [0.1, 0.9])], 0.5);
    expect(listOrder.mean).toBe(0.5);
    const overlapping = [truth('x', [1, 1], [a, [1, 0, 11, 10]])];
    const bothOnFirst = meanAveragePrecisionForBoxes(overlapping, [found('x', [1, 1], [a, a], [0.9, 0.8])], 0.5);
    expect(bothOnFirst.mean).toBe(0.5);
    const stray = [found('empty image', [1], [a], [0.99]), found('x', [7, 1], [b, a], [0.98, 0.5])];
    const unseen = meanAveragePrecisionForBoxes(annotations, stray, 0.5);
    expect(unseen).toEqual({ mean: 1, perClass: { 1: { averagePrecision: 1, annotations: 1 } } });
  });

  it('handles no truths and no detections', () => {
    expect(meanAveragePrecisionForBoxes([], [found('x', [1], [a], [1])])).toEqual({ mean: 0, perClass: {} });
    expect(meanAveragePrecisionForBoxes([truth('x', [1], [a])], []).mean).toBe(0);
    expect(computeMAP([], [], 3).mean).toBe(0);
  });

  it('evaluateBoxes suppresses across classes before it scores', () => {
    const predictions = [
      {
        imageId: 'x',
        boxes: flat([a, a, b]),
        labels: Int32Array.of(2, 1, 1),
        scores: Float32Array.of(0.9, 0.8, 0.7),
      },
    ];
    const annotations = [truth('x', [1, 1], [a, b])];
    expect(evaluateBoxes(annotations, predictions).mean).toBe(0.5);
    expect(meanAveragePrecisionForBoxes(annotations, predictions, 0.3).mean).toBe(1);
  });
});
