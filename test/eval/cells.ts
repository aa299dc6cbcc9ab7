// Small images of rectangular cells for tests of whole evaluations.
import fc from 'fast-check';
import { makeTarget } from '../../src/data/target.ts';
import type { Detections, MaskCrop, Target } from '../../src/data/types.ts';

export const [width, height] = [40, 24];

export interface Cell {
  x: number;
  y: number;
  w: number;
  h: number;
  label: number;
}

export interface Found extends Cell {
  score: number;
  /** Probability of the whole crop, except its last column, which has half of it. */
  probability: number;
}

export function targetOf(cells: Cell[]): Target {
  const masks = new Uint8Array(cells.length * width * height);
  for (const [i, { x, y, w, h }] of cells.entries()) {
    for (let row = y; row < y + h; row++) {
      const start = (i * height + row) * width + x;
      masks.fill(1, start, start + w);
    }
  }
  return makeTarget(
    Float32Array.from(cells.flatMap(({ x, y, w, h }) => [x, y, x + w - 1, y + h - 1])),
    Int32Array.from(cells, (cell) => cell.label),
    masks,
  );
}

export function cropOf({ x, y, w, h, probability }: Found): MaskCrop {
  const data = Float32Array.from({ length: w * h }, (_, i) => (i % w === w - 1 ? probability / 2 : probability));
  return { x, y, width: w, height: h, data };
}

/** Best score first, as the model gives them. */
export function detectionsOf(found: Found[], withMasks = true): Detections {
  const sorted = [...found].sort((a, b) => b.score - a.score);
  return {
    boxes: targetOf(sorted).boxes,
    labels: Int32Array.from(sorted, (item) => item.label),
    scores: Float32Array.from(sorted, (item) => item.score),
    ...(withMasks ? { masks: sorted.map(cropOf) } : {}),
  };
}

export const certain = (cells: Cell[], score = 0.9): Found[] =>
  // A probability of 2 (halved: 1) makes every pixel of the crop pass any threshold.
  cells.map((cell, i) => ({ ...cell, score: score - i / 100, probability: 2 }));

export const cells: Cell[] = [
  { x: 1, y: 1, w: 8, h: 6, label: 1 },
  { x: 12, y: 2, w: 9, h: 9, label: 2 },
  { x: 25, y: 10, w: 10, h: 7, label: 1 },
];

export const cellArbitrary = fc.record({
  x: fc.integer({ min: 0, max: width - 12 }),
  y: fc.integer({ min: 0, max: height - 10 }),
  w: fc.integer({ min: 2, max: 12 }),
  h: fc.integer({ min: 2, max: 10 }),
  label: fc.integer({ min: 1, max: 2 }),
});
export const foundArbitrary = fc
  .tuple(cellArbitrary, fc.integer({ min: 1, max: 15 }), fc.integer({ min: 1, max: 16 }))
  .map(([cell, score, probability]): Found => ({ ...cell, score: score / 16, probability: probability / 16 }));
/** Truths, and detections of which about half are slightly moved truths. */
export const imageArbitrary = fc
  .tuple(fc.array(cellArbitrary, { maxLength: 5 }), fc.array(foundArbitrary, { maxLength: 7 }))
  .map(([truth, found]) => ({
    truth,
    found: found.map((item, i) => {
      const near = truth[i % 2 === 0 ? i : truth.length];
      return near === undefined
        ? item
        : { ...near, w: Math.max(2, near.w - 1), score: item.score, probability: item.probability };
    }),
  }));

/** The target's masks, one by one. */
export const bytes = (target: Target) =>
  Array.from(target.labels, (_, i) => target.masks.subarray(i * width * height, (i + 1) * width * height));
