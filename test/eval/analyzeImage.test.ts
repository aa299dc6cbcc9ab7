import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { RgbImage } from '../../src/data/png.ts';
import { makeTarget } from '../../src/data/target.ts';
import type { Detections, LoadedImage, MaskCrop, Target } from '../../src/data/types.ts';
import {
  analysisPicture,
  analysisScale,
  analyzeImage,
  batchedNms,
  countsText,
  selectBoxes,
} from '../../src/eval/analyzeImage.ts';
import { pairwiseBoxIou } from '../../src/eval/boxAveragePrecision.ts';
import { classColour } from '../../src/eval/overlay.ts';
import type { Thresholds } from '../../src/eval/thresholds.ts';
import { crop } from '../../src/report/panelLayers.ts';

const WIDTH = 40;
const HEIGHT = 30;
const CLASSES = ['round', 'long'];
const THRESHOLDS: Thresholds = { minScore: [0, 0.5, 0.6], maskThreshold: [0, 0.5, 0.5] };

const image: LoadedImage = {
  id: 'some id',
  width: WIDTH,
  height: HEIGHT,
  data: new Float32Array(3 * WIDTH * HEIGHT).fill(100 / 255),
};

type Box = [x: number, y: number, width: number, height: number];
const filled = ([x, y, width, height]: Box): MaskCrop => ({
  x,
  y,
  width,
  height,
  data: new Float32Array(width * height).fill(0.9),
});
const corners = ([x, y, width, height]: Box): number[] => [x, y, x + width - 1, y + height - 1];

function targetOf(cells: { box: Box; label: number; crowd?: boolean }[]): Target {
  const masks = new Uint8Array(cells.length * WIDTH * HEIGHT);
  cells.forEach(({ box: [x, y, width, height] }, i) => {
    for (let row = y; row < y + height; row++) {
      const start = (i * HEIGHT + row) * WIDTH + x;
      masks.fill(1, start, start + width);
    }
  });
  return makeTarget(
    Float32Array.from(cells.flatMap(({ box }) => corners(box))),
    Int32Array.from(cells, ({ label }) => label),
    masks,
    { iscrowd: Uint8Array.from(cells, ({ crowd }) => Number(crowd ?? false)) },
  );
}

function detectionsOf(found: { box: Box; label: number; score: number }[], masks = true): Detections {
  return {
    boxes: Float32Array.from(found.flatMap(({ box }) => corners(box))),
    labels: Int32Array.from(found, ({ label }) => label),
    scores: Float32Array.from(found, ({ score }) => score),
    ...(masks ? { masks: found.map(({ box }) => filled(box)) } : {}),
  };
}

const A: Box = [2, 3, 8, 10];
const B: Box = [20, 5, 12, 6];
const C: Box = [22, 20, 9, 9];
const target = targetOf([
  { box: A, label: 1 },
  { box: B, label: 2 },
]);
const detections = detectionsOf([
  { box: A, label: 1, score: 0.9 },
  { box: C, label: 1, score: 0.7 },
  { box: B, label: 2, score: 0.55 },
]);
const input = { image, target, detections, thresholds: THRESHOLDS, classes: CLASSES };
const pixel = ({ data, width }: RgbImage, x: number, y: number) => [
  ...data.subarray(3 * (y * width + x), 3 * (y * width + x) + 3),
];

/** Compares bytes at once: `toEqual` looks at each. */
const same = (a: RgbImage | undefined, b: RgbImage | undefined): boolean =>
  a?.width === b?.width && a?.height === b?.height && Buffer.from(a!.data).equals(b!.data);

describe('batchedNms', () => {
  it('suppresses within a class only, by score, above the threshold, as torchvision', () => {
    const boxes = Float32Array.from([0, 0, 10, 10, 0, 0, 10, 10, 0, 0, 10, 6, 0, 0, 10, 5.9]);
    const scores = Float32Array.from([0.5, 0.9, 0.4, 0.3]);
    // torchvision 0.29 keeps these. An IoU of .6 is a little more than that in float32, so it goes.
    expect(batchedNms({ boxes, labels: Int32Array.from([1, 2, 1, 1]), scores }, 0.6)).toEqual([1, 0, 3]);
    expect(batchedNms({ boxes, labels: Int32Array.from([1, 1, 1, 2]), scores }, 0.6)).toEqual([1, 3]);
    // Half is half in float32: not above .5.
    const halves = {
      boxes: Float32Array.of(0, 0, 10, 10, 0, 0, 10, 5),
      labels: Int32Array.of(1, 1),
      scores: Float32Array.of(0.5, 0.4),
    };
    expect(batchedNms(halves, 0.5)).toEqual([0, 1]);
    expect(
      batchedNms({ boxes: new Float32Array(0), labels: new Int32Array(0), scores: new Float32Array(0) }, 0.6),
    ).toEqual([]);
  });

  it('equals greedy suppression box by box', () => {
    const coordinate = fc.integer({ min: 0, max: 20 });
    const box = fc.record({
      x: coordinate,
      y: coordinate,
      side: fc.integer({ min: 1, max: 9 }),
      label: fc.integer({ min: 1, max: 3 }),
      score: fc.integer({ min: 0, max: 5 }),
    });
    fc.assert(
      fc.property(fc.array(box, { maxLength: 25 }), (list) => {
        const boxes = Float32Array.from(list.flatMap(({ x, y, side }) => [x, y, x + side, y + side]));
        const iou = pairwiseBoxIou(boxes, boxes);
        const order = list.map((_, i) => i).sort((a, b) => list[b].score - list[a].score || a - b);
        const expected: number[] = [];
        for (const i of order) {
          if (
            expected.every((k) => list[k].label !== list[i].label || !(Math.fround(iou[i * list.length + k]) > 0.5))
          ) {
            expected.push(i);
          }
        }
        const labels = Int32Array.from(list, ({ label }) => label);
        const scores = Float32Array.from(list, ({ score }) => score);
        expect(batchedNms({ boxes, labels, scores }, 0.5)).toEqual(expected);
      }),
    );
  });
});

describe('analyzeImage', () => {
  it('counts cells by class and scores the image alone', () => {
    const { id, counts, boxes, score } = analyzeImage(input);
    expect(id).toBe('some id');
    // The cell of class 2 has a score below its threshold.
    expect(counts).toEqual([
      { label: 1, truth: 1, found: 2, detected: 2 },
      { label: 2, truth: 1, found: 0, detected: 1 },
    ]);
    expect(boxes).toBe(2);
    // One cell met exactly, one missed, one too many: 1 / 3 at every IoU.
    expect(score?.score).toBeCloseTo(1 / 3, 12);
    expect(countsText(counts, 'found', CLASSES)).toBe('2 round');
    expect(countsText(counts, 'truth', CLASSES)).toBe('1 round, 1 long');
    expect(countsText([], 'truth', CLASSES)).toBe('no cells');
  });

  it('does not count a crowd as a cell', () => {
    const crowd = targetOf([
      { box: A, label: 1 },
      { box: B, label: 1, crowd: true },
    ]);
    expect(analyzeImage({ ...input, target: crowd }).counts[0].truth).toBe(1);
  });

  it('outlines cells in their class’s colour where they are, and nothing elsewhere', () => {
    const { views } = analyzeImage({ ...input, scale: 3 });
    const truth = views.truth as RgbImage;
    const prediction = views.prediction as RgbImage;
    expect([truth.width, truth.height]).toEqual([3 * WIDTH, 3 * HEIGHT]);
    const edge = ([x, y]: Box): [number, number] => [3 * x, 3 * y + 6];
    expect(pixel(truth, ...edge(A))).toEqual([...classColour(1)]);
    expect(pixel(truth, ...edge(B))).toEqual([...classColour(2)]);
    expect(pixel(prediction, ...edge(A))).toEqual([...classColour(1)]);
    expect(pixel(prediction, ...edge(C))).toEqual([...classColour(1)]);
    expect(pixel(prediction, ...edge(B))).toEqual([100, 100, 100]);
    for (const view of Object.values(views)) expect(pixel(view, 0, 0)).toEqual([100, 100, 100]);
    expect((views.image as RgbImage).data.every((value) => value === 100)).toBe(true);
  });

  it('draws the boxes that are left after NMS at IoU .6, each class for itself', () => {
    const near: Box = [2, 3, 8, 9];
    const crowded = detectionsOf([
      { box: A, label: 1, score: 0.8 },
      { box: near, label: 1, score: 0.9 },
      { box: near, label: 2, score: 0.7 },
    ]);
    expect(selectBoxes(crowded, THRESHOLDS).map(({ label, score }) => [label, score])).toEqual([
      [1, Math.fround(0.9)],
      [2, Math.fround(0.7)],
    ]);
    const { views, boxes } = analyzeImage({ ...input, detections: crowded, scale: 4 });
    expect(boxes).toBe(2);
    const drawn = views.predictedBoxes as RgbImage;
    // The best-scored lies on top; A's lower edge, one row below, has gone.
    expect(pixel(drawn, 4 * 5, 4 * 11)).toEqual([...classColour(1)]);
    expect(pixel(drawn, 4 * 5, 4 * 12)).toEqual([100, 100, 100]);
    expect(pixel(views.truthBoxes as RgbImage, 4 * 5, 4 * 12)).toEqual([...classColour(1)]);
  });

  it('shows the boxes of a box-only model, without a score', () => {
    const boxOnly = analyzeImage({ ...input, detections: { ...detections, masks: undefined } });
    expect(boxOnly.score).toBeNull();
    expect(Object.keys(boxOnly.views)).toEqual(['image', 'truthBoxes', 'predictedBoxes']);
    expect(boxOnly.counts[0]).toEqual({ label: 1, truth: 1, found: 2, detected: 2 });
    const { places } = analysisPicture(boxOnly, THRESHOLDS, CLASSES);
    expect(Object.keys(places)).toEqual(['image', 'truthBoxes', 'predictedBoxes']);
  });

  it('shows an image without a cell or a detection', () => {
    const empty = analyzeImage({ ...input, target: targetOf([]), detections: detectionsOf([]) });
    expect(empty.score?.score).toBe(1);
    expect(same(empty.views.prediction, empty.views.image)).toBe(true);
    expect(analysisPicture(empty, THRESHOLDS, CLASSES).picture.data.includes(40)).toBe(true);
  });
});

describe('analysisPicture', () => {
  it('holds every view where it says', () => {
    const analysis = analyzeImage({ ...input, scale: 2 });
    const { picture, places } = analysisPicture(analysis, THRESHOLDS, CLASSES);
    expect(Object.keys(places).sort()).toEqual(Object.keys(analysis.views).sort());
    for (const [name, place] of Object.entries(places)) {
      expect(same(crop(picture, place), analysis.views[name as keyof typeof places]), name).toBe(true);
    }
    expect(picture.data).toHaveLength(3 * picture.width * picture.height);
  });

  it('is large enough to read', () => {
    expect([40, 352, 600, 704].map(analysisScale)).toEqual([15, 2, 1, 1]);
  });
});
