import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { rleEncode } from '../../src/data/rle.ts';
import type { Detections, MaskCrop } from '../../src/data/types.ts';
import {
  cropRle,
  type SelectedInstance,
  selectInstances,
  submissionRows,
  writeSubmission,
} from '../../src/eval/submission.ts';
import type { Thresholds } from '../../src/eval/thresholds.ts';

const folder = mkdtempSync(join(tmpdir(), 'submission-'));
afterAll(() => rmSync(folder, { recursive: true }));

function randomDetections(random: Random, count: number, width: number, height: number, classes: number): Detections {
  const masks: MaskCrop[] = Array.from({ length: count }, () => {
    const w = 1 + random.int(width);
    const h = 1 + random.int(height);
    // Some crops hang over the image's edges.
    const x = random.int(width + 2) - 3;
    const y = random.int(height + 2) - 3;
    return { x, y, width: w, height: h, data: Float32Array.from({ length: w * h }, () => random.int(11) / 10) };
  });
  return {
    boxes: new Float32Array(4 * count),
    labels: Int32Array.from({ length: count }, () => 1 + random.int(classes)),
    // Few distinct values, so that there are ties and scores equal to the threshold.
    scores: Float32Array.from({ length: count }, () => random.int(5) / 4),
    masks,
  };
}

/** The notebook's way on full-size masks, one pixel at a time. */
function bruteForce(detections: Detections, thresholds: Thresholds, width: number, height: number) {
  const order = [...detections.scores.keys()].sort((a, b) => detections.scores[b] - detections.scores[a] || a - b);
  const kept: { mask: Uint8Array; label: number; score: number; detection: number }[] = [];
  for (const i of order) {
    const label = detections.labels[i];
    if (detections.scores[i] <= thresholds.minScore[label]) continue;
    const crop = detections.masks![i];
    const mask = new Uint8Array(width * height);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const inside = x >= crop.x && x < crop.x + crop.width && y >= crop.y && y < crop.y + crop.height;
        const probability = inside ? crop.data[(y - crop.y) * crop.width + (x - crop.x)] : 0;
        const free = kept.every((other) => other.mask[y * width + x] === 0);
        mask[y * width + x] = Number(inside && probability > thresholds.maskThreshold[label] && free);
      }
    }
    if (mask.includes(1)) kept.push({ mask, label, score: detections.scores[i], detection: i });
  }
  return kept;
}

function full(instance: SelectedInstance, width: number, height: number): Uint8Array {
  const { x, y, width: w, height: h, data } = instance.mask;
  expect(x >= 0 && y >= 0 && x + w <= width && y + h <= height).toBe(true);
  const mask = new Uint8Array(width * height);
  data.forEach((value, i) => {
    mask[(y + Math.floor(i / w)) * width + x + (i % w)] = value;
  });
  return mask;
}

describe('selectInstances', () => {
  it('equals pixel-by-pixel selection, in masks, labels, scores, order and run-length text', () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.integer({ min: 0, max: 12 }),
        fc.integer({ min: 1, max: 13 }),
        (seed, count, width) => {
          const height = 9;
          const detections = randomDetections(new Random(seed), count, width, height, 2);
          const thresholds = { minScore: [0, 0.25, 0.5], maskThreshold: [0, 0.5, Math.fround(0.3)] };
          const actual = selectInstances(detections, thresholds, width, height);
          const expected = bruteForce(detections, thresholds, width, height);
          expect(actual.map((i) => ({ ...i, mask: full(i, width, height) }))).toEqual(expected);
          expect(actual.map((i) => cropRle(i.mask, width))).toEqual(expected.map((i) => rleEncode(i.mask)));
        },
      ),
      { numRuns: 200, seed: 7 },
    );
  });

  it('leaves out a score and a probability that equal their threshold, and a cell that lost all its pixels', () => {
    const crop = (values: number[]): MaskCrop => ({ x: 0, y: 0, width: 3, height: 1, data: Float32Array.from(values) });
    const detections: Detections = {
      boxes: new Float32Array(12),
      labels: Int32Array.of(1, 1, 1),
      scores: Float32Array.of(0.5, 0.75, 0.875),
      masks: [crop([1, 1, 1]), crop([0.5, 1, 0]), crop([0.25, 0.75, 0.5])],
    };
    const selected = selectInstances(detections, { minScore: [0, 0.5], maskThreshold: [0, 0.5] }, 3, 1);
    expect(selected).toEqual([
      { mask: { x: 1, y: 0, width: 1, height: 1, data: Float32Array.of(1) }, label: 1, score: 0.875, detection: 2 },
    ]);
  });

  it('names what is missing', () => {
    const detections = randomDetections(new Random(1), 2, 4, 4, 1);
    expect(() =>
      selectInstances({ ...detections, masks: undefined }, { minScore: [0, 0], maskThreshold: [0, 0] }, 4, 4),
    ).toThrow('box-only');
    expect(() => selectInstances(detections, { minScore: [0], maskThreshold: [0] }, 4, 4)).toThrow('label 1');
  });

  it('takes well under a second for 540 large cells of a 704 × 520 image', () => {
    const random = new Random(3);
    const masks = Array.from({ length: 540 }, () => ({
      x: random.int(600),
      y: random.int(420),
      width: 100,
      height: 100,
      data: new Float32Array(10000).fill(0.9),
    }));
    const scores = Float32Array.from(masks, () => random.next());
    const labels = new Int32Array(540).fill(1);
    const before = performance.now();
    const selected = selectInstances(
      { boxes: new Float32Array(4 * 540), labels, scores, masks },
      { minScore: [0, 0], maskThreshold: [0, 0.5] },
      704,
      520,
    );
    expect(performance.now() - before).toBeLessThan(1000);
    expect(selected.length).toBeGreaterThan(10);
  });
});

describe('submission', () => {
  it('has one row per cell, an empty one for an image without cells, and columns id, predicted', () => {
    const cell: SelectedInstance = {
      mask: { x: 1, y: 1, width: 2, height: 2, data: Float32Array.of(1, 1, 0, 1) },
      label: 1,
      score: 1,
      detection: 0,
    };
    const rows = [...submissionRows('a', [cell, cell], 5), ...submissionRows('b', [], 5)];
    const path = join(folder, 'new', 'submission.csv');
    writeSubmission(path, rows);
    expect(readFileSync(path, 'utf8')).toBe('id,predicted\na,7 2 13 1\na,7 2 13 1\nb,\n');
    expect(parse(readFileSync(path), { columns: true })).toHaveLength(3);
  });

  it('joins runs across rows for a crop as wide as the image', () => {
    expect(cropRle({ x: 0, y: 1, width: 3, height: 2, data: Float32Array.of(0, 1, 1, 1, 0, 1) }, 3)).toBe('5 3 9 1');
  });
});
