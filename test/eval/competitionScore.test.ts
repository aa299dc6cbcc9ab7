import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { rleDecode } from '../../src/data/rle.ts';
import { COMPETITION_IOU_THRESHOLDS, imageIouMap, iouMap } from '../../src/eval/competitionScore.ts';
import { maskIou, packMasks } from '../../src/eval/maskIou.ts';
import { referenceImageScore } from '../reference/iouMap.ts';

interface GoldenCase {
  shape: [number, number];
  images: { truth: string[]; predicted: string[]; score: number; perThreshold: number[] }[];
  score: number;
}

const golden = resolve(import.meta.dirname, '../../../shared/goldens/data/data.json');

function tableOf(predicted: Uint8Array[], truth: Uint8Array[], width: number, height: number) {
  const joined = (masks: Uint8Array[]) => packMasks(new Uint8Array(Buffer.concat(masks)), width, height);
  return {
    iou: maskIou(joined(predicted), joined(truth)),
    predicted: predicted.length,
    truth: truth.length,
  };
}

/** Instances 1 … n of a label image as full-size masks. */
function instances(labels: number[], n: number): Uint8Array[] {
  return Array.from({ length: n }, (_, i) => Uint8Array.from(labels, (value) => (value === i + 1 ? 1 : 0)));
}

describe.skipIf(!existsSync(golden))('competition score of the goldens', () => {
  const cases: GoldenCase[] = existsSync(golden) ? JSON.parse(readFileSync(golden, 'utf8')).iouMap : [];
  it.each(cases.map((item, i) => [i, item] as const))('case %i', (_, item) => {
    const [height, width] = item.shape;
    const tables = item.images.map((image) => {
      const decode = (rle: string) => rleDecode(rle, width, height, 'data.json');
      return tableOf(image.predicted.map(decode), image.truth.map(decode), width, height);
    });
    const result = iouMap(tables);
    expect(result.score).toBeCloseTo(item.score, 12);
    item.images.forEach((image, i) => {
      expect(result.perImage[i]).toBeCloseTo(image.score, 12);
      for (const [k, value] of imageIouMap(tables[i]).perThreshold.entries()) {
        expect(value).toBeCloseTo(image.perThreshold[k], 12);
      }
    });
  });
});

describe('imageIouMap', () => {
  const [width, height] = [9, 7];
  const labelImage = fc.array(fc.integer({ min: 0, max: 4 }), { minLength: width * height, maxLength: width * height });

  it('has the thresholds of the competition, exactly', () => {
    expect(COMPETITION_IOU_THRESHOLDS).toEqual([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]);
  });

  it('equals brute force over label images that are partly alike', () => {
    fc.assert(
      fc.property(labelImage, labelImage, fc.integer({ min: 0, max: width * height }), (truth, other, cut) => {
        const predicted = truth.map((value, i) => (i < cut ? value : other[i]));
        const t = instances(truth, 4);
        const p = instances(predicted, 4);
        expect(imageIouMap(tableOf(p, t, width, height)).score).toBeCloseTo(referenceImageScore(t, p), 12);
      }),
      { numRuns: 100 },
    );
  });

  it('does not count a pair whose IoU equals the threshold', () => {
    // 3 of 5 pixels shared: IoU .6 passes .50 and .55 only.
    expect(imageIouMap({ iou: Float64Array.of(3 / 5), predicted: 1, truth: 1 }).perThreshold).toEqual(
      COMPETITION_IOU_THRESHOLDS.map((t) => (t < 0.6 ? 1 : 0)),
    );
  });

  it('scores 1 for a perfect prediction, in any order of truths', () => {
    fc.assert(
      fc.property(labelImage, (labels) => {
        const masks = instances(labels, 4).filter((mask) => mask.includes(1));
        expect(imageIouMap(tableOf(masks, [...masks].reverse(), width, height)).score).toBe(1);
      }),
      { numRuns: 50 },
    );
  });

  it('handles images without truth or prediction', () => {
    const none = new Float64Array(0);
    expect(imageIouMap({ iou: none, predicted: 0, truth: 0 }).score).toBe(1);
    expect(imageIouMap({ iou: none, predicted: 0, truth: 3 }).score).toBe(0);
    expect(imageIouMap({ iou: none, predicted: 2, truth: 0 }).score).toBe(0);
    expect(iouMap([]).score).toBe(0);
  });

  it('averages images, not matches', () => {
    const perfect = { iou: Float64Array.of(1), predicted: 1, truth: 1 };
    const missed = { iou: new Float64Array(0), predicted: 0, truth: 9 };
    expect(iouMap([perfect, missed]).score).toBe(0.5);
  });

  it('refuses a matrix of the wrong size', () => {
    expect(() => imageIouMap({ iou: new Float64Array(3), predicted: 2, truth: 2 })).toThrow('[2, 2]');
  });
});
