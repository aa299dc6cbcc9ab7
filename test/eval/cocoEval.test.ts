import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { COCO_DATA_SIZE, cocoData } from '../../bench/cocoData.ts';
import { cocoCounts, cocoRleEncode } from '../../src/data/cocoRle.ts';
import { COCO_STATS, precisionOverRecall } from '../../src/eval/cocoAccumulator.ts';
import { evaluateCoco } from '../../src/eval/cocoEval.ts';
import type { CocoResult, CocoTruth } from '../../src/eval/cocoFiles.ts';
import { COCO_IOU_THRESHOLDS } from '../../src/eval/cocoMatching.ts';
import { dataGoldens, hasGoldens } from '../data/goldenData.ts';
import { boxMeasure, maskMeasure, type RefResult, type RefTruth, referenceCoco } from '../reference/coco.ts';

function expectStats(actual: readonly number[], expected: readonly number[], digits = 12): void {
  expect(actual).toHaveLength(12);
  for (const [i, value] of expected.entries()) expect(actual[i], COCO_STATS[i].name).toBeCloseTo(value, digits);
}

describe.skipIf(!hasGoldens)('evaluateCoco on the goldens of pycocotools', () => {
  const cases = hasGoldens ? dataGoldens().coco : [];
  it.each(cases.map((item, i) => [i, item] as const))('case %i', (_, { truth, detections, stats }) => {
    expectStats(evaluateCoco(truth, detections, 'segm').stats, stats.segm);
    expectStats(evaluateCoco(truth, detections, 'bbox').stats, stats.bbox);
  });
});

const [width, height] = [24, 20];
const images = [7, 3, 12];
const categories = [{ id: 5 }, { id: 2 }];

/** Regions on a coarse grid, so that IoUs are often equal, or equal to a threshold; areas at and around COCO's limits. */
const region = fc.record({
  image: fc.constantFrom(...images),
  label: fc.constantFrom(...categories.map(({ id }) => id)),
  x: fc.integer({ min: 0, max: 4 }),
  y: fc.integer({ min: 0, max: 3 }),
  w: fc.integer({ min: 1, max: 5 }),
  h: fc.integer({ min: 1, max: 4 }),
});
type Placed = typeof region extends fc.Arbitrary<infer T> ? T : never;
const truth = fc.record({
  place: region,
  area: fc.constantFrom(1, 1024, 1025, 9216, 9217),
  crowd: fc.integer({ min: 0, max: 3 }).map((v) => v === 0),
});
const found = fc.record({ place: region, score: fc.integer({ min: 0, max: 5 }).map((v) => v / 8) });
const scene = fc
  .tuple(fc.array(truth, { maxLength: 14 }), fc.array(found, { maxLength: 24 }))
  // Two of three detections are near a truth.
  .map(([truths, results]) => ({
    truths,
    results: results.map((result, i) => {
      const near = truths[i % 3 === 0 ? truths.length : i % truths.length]?.place;
      const wider = i % 2 === 0 ? 0 : 1;
      return near === undefined ? result : { ...result, place: { ...near, w: near.w + wider } };
    }),
  }));

/** @param step pixels of the grid, whose square lies so that boxes are of all three sizes */
const boxOf = ({ x, y, w, h }: Placed, step: number) => [x * step, y * step, w * step, h * step];

function maskOf({ x, y, w, h }: Placed): Uint8Array {
  const mask = new Uint8Array(width * height);
  for (let row = 2 * y; row < Math.min(height, 2 * (y + h)); row++) {
    for (let column = 2 * x; column < Math.min(width, 2 * (x + w)); column++) {
      // A notch at one corner: the mask is not its box.
      if (row > 2 * y || column > 2 * x) mask[row * width + column] = 1;
    }
  }
  return mask;
}

type Scene = typeof scene extends fc.Arbitrary<infer T> ? T : never;

function truthFile(
  { truths }: Scene,
  fields: (place: Placed, index: number) => Partial<CocoTruth['annotations'][number]>,
): CocoTruth {
  return {
    images: images.map((id) => ({ id, width, height })),
    categories,
    annotations: truths.map(({ place, area, crowd }, i) => ({
      id: i + 1,
      image_id: place.image,
      category_id: place.label,
      area,
      iscrowd: crowd ? 1 : 0,
      ...fields(place, i),
    })),
  };
}

const resultFile = ({ results }: Scene, fields: (place: Placed) => Partial<CocoResult>): CocoResult[] =>
  results.map(({ place, score }) => ({ image_id: place.image, category_id: place.label, score, ...fields(place) }));

/** The scene as the reference takes it; detections in the order of rising image ids, as COCO pools them. */
function reference<Shape>(
  { truths, results }: Scene,
  shape: (place: Placed) => Shape,
  area: (shape: Shape) => number,
): { truths: RefTruth<Shape>[]; results: RefResult<Shape>[] } {
  return {
    truths: truths.map(({ place, area, crowd }) => ({ ...place, shape: shape(place), area, crowd })),
    results: results.map(({ place, score }) => ({
      ...place,
      shape: shape(place),
      area: area(shape(place)),
      score,
    })),
  };
}

const labels = categories.map(({ id }) => id);

describe('evaluateCoco against brute force', () => {
  it('bbox: crowds, areas outside the range, ties of scores and IoUs', () => {
    fc.assert(
      fc.property(scene, (items) => {
        const box = (place: Placed) => boxOf(place, 20);
        const { truths, results } = reference(items, box, boxMeasure.area);
        const { stats, perClass } = evaluateCoco(
          truthFile(items, (place) => ({ bbox: box(place) as [number, number, number, number] })),
          resultFile(items, (place) => ({ bbox: box(place) as [number, number, number, number] })),
          'bbox',
        );
        expectStats(stats, referenceCoco(truths, results, labels, boxMeasure));
        expect(perClass.map(({ label }) => label)).toEqual([2, 5]);
        for (const { label, stats } of perClass)
          expectStats(stats, referenceCoco(truths, results, [label], boxMeasure));
      }),
      { numRuns: 60 },
    );
  });

  it('segm: run lengths as text and as numbers', () => {
    fc.assert(
      fc.property(scene, (items) => {
        const { truths, results } = reference(items, maskOf, maskMeasure.area);
        const { stats } = evaluateCoco(
          truthFile(items, (place, i) => ({
            segmentation:
              i % 2 === 0
                ? cocoRleEncode(maskOf(place), width, height)
                : { size: [height, width], counts: cocoCounts(maskOf(place), width, height) },
          })),
          resultFile(items, (place) => ({ segmentation: cocoRleEncode(maskOf(place), width, height) })),
          'segm',
        );
        expectStats(stats, referenceCoco(truths, results, labels, maskMeasure));
      }),
      { numRuns: 30 },
    );
  });

  it('counts the 1, 10 and 100 best detections of an image and class', () => {
    const place = (x: number): Placed => ({ image: 3, label: 2, x, y: 0, w: 1, h: 1 });
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 101, maxLength: 130 }), (scores) => {
        // A truth for every second detection, so that the hundredth is not the last that would find one.
        const items: Scene = {
          truths: scores.flatMap((_, i) => (i % 2 === 0 ? [{ place: place(2 * i), area: 1, crowd: false }] : [])),
          results: scores.map((score, i) => ({ place: place(2 * i), score })),
        };
        const box = (at: Placed) => boxOf(at, 20) as [number, number, number, number];
        const { truths, results } = reference(items, box, boxMeasure.area);
        const { stats } = evaluateCoco(
          truthFile(items, (at) => ({ bbox: box(at) })),
          resultFile(items, (at) => ({ bbox: box(at) })),
          'bbox',
        );
        expectStats(stats, referenceCoco(truths, results, [2], boxMeasure));
        // Of the detections beyond the hundredth some would have found a truth, or none.
        const order = [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b);
        expect(stats[8] < 1).toBe(order.slice(100).some((i) => i % 2 === 0));
      }),
      { numRuns: 4 },
    );
  });
});

describe('evaluateCoco', () => {
  const square: [number, number, number, number] = [2, 2, 10, 10];
  const outline = [2, 2, 2, 12, 12, 12, 12, 2];
  const annotation: CocoTruth['annotations'][number] = {
    id: 1,
    image_id: 3,
    category_id: 2,
    area: 100,
    iscrowd: 0,
    bbox: square,
    segmentation: [outline],
  };
  const one: CocoTruth = { images: [{ id: 3, width, height }], categories: [{ id: 2 }], annotations: [annotation] };
  const result: CocoResult = { image_id: 3, category_id: 2, score: 0.5, bbox: square };
  const perfect = [1, 1, 1, 1, -1, -1, 1, 1, 1, 1, -1, -1];

  it('has the thresholds of pycocotools, to the last bit', () => {
    expect(COCO_IOU_THRESHOLDS).toEqual([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.8999999999999999, 0.95]);
  });

  it('compares polygons with run lengths and with boxes that stand for masks', () => {
    const mask = cocoRleEncode(maskFrom(square), width, height);
    for (const results of [
      [result],
      [{ ...result, bbox: [], segmentation: mask }],
      [{ ...result, segmentation: mask }],
    ]) {
      expectStats(evaluateCoco(one, results as CocoResult[], 'segm').stats, perfect);
      expectStats(evaluateCoco(one, results as CocoResult[], 'bbox').stats, perfect);
    }
  });

  it('takes the form of all results from the first: a box decides the area even for segm', () => {
    // A stray mask of a single pixel is small and counts in APs, unless it comes with a box of medium area.
    const stray = new Uint8Array(width * height);
    stray[0] = 1;
    const mask = { ...result, score: 0.9, segmentation: cocoRleEncode(stray, width, height) };
    expect(
      evaluateCoco(
        one,
        [
          { ...mask, bbox: undefined },
          { ...result, segmentation: [outline] },
        ],
        'segm',
      ).stats[3],
    ).toBe(0.5);
    expect(evaluateCoco(one, [{ ...mask, bbox: [0, 0, 40, 40] }, result], 'segm').stats[3]).toBeCloseTo(1, 12);
  });

  it('counts whoever finds the annotation 0 as a false positive, as pycocotools does', () => {
    const { stats } = evaluateCoco({ ...one, annotations: [{ ...annotation, id: 0 }] }, [result], 'bbox');
    expect([stats[0], stats[8]]).toEqual([0, 0]);
  });

  it('lets a crowd take any number of detections, by the share of the detection inside it', () => {
    const crowd = { ...annotation, id: 2, iscrowd: 1 as const, bbox: [0, 0, 24, 20] as typeof square };
    const inside = [0, 4, 8].map((x) => ({ ...result, score: 0.9, bbox: [x, 14, 4, 4] as typeof square }));
    const results = [...inside, result];
    // Only the best detection counts in AR1, and that lies in the crowd.
    const expected = perfect.map((value, i) => (i === 6 ? 0 : value));
    expectStats(evaluateCoco({ ...one, annotations: [annotation, crowd] }, results, 'bbox').stats, expected);
    expect(evaluateCoco(one, results, 'bbox').stats[0]).toBeCloseTo(1 / 4, 12);
  });

  it('ranks equal scores by image id, whatever the order of the lists', () => {
    const two: CocoTruth = { ...one, images: [{ id: 9, width, height }, ...one.images] };
    const stray = { ...result, image_id: 9 };
    // Image 3's hit stands before image 9's miss.
    expect(evaluateCoco(two, [stray, result], 'bbox').stats[0]).toBeCloseTo(1, 12);
    expect(
      evaluateCoco(
        { ...two, images: [{ id: 1, width, height }, ...one.images] },
        [{ ...stray, image_id: 1 }, result],
        'bbox',
      ).stats[0],
    ).toBe(0.5);
  });

  it('scores 0 without results, -1 without truths, and leaves out results of unknown categories', () => {
    expectStats(
      evaluateCoco(one, [], 'segm').stats,
      perfect.map((value) => Math.min(value, 0)),
    );
    expectStats(evaluateCoco({ ...one, annotations: [] }, [result], 'bbox').stats, Array(12).fill(-1));
    expectStats(evaluateCoco(one, [result, { ...result, category_id: 8, score: 1 }], 'bbox').stats, perfect);
  });

  it('gives the precision over recall that AP is the mean of', () => {
    const evaluation = evaluateCoco(
      { ...one, categories: [{ id: 1 }, { id: 2 }] },
      [result, { ...result, score: 0.9, bbox: [12, 10, 4, 4] }],
      'bbox',
    );
    expect(precisionOverRecall(evaluation, 0)).toBeUndefined();
    expect(precisionOverRecall(evaluation, 1, 0)).toEqual(Array(101).fill(0.5));
    expect(precisionOverRecall(evaluation, 1)).toEqual(Array(101).fill(0.5));
  });

  it.each<[string, unknown, unknown, string]>([
    ['a missing list', { images: [], categories: [] }, [], 'truth, annotations is not as COCO has it'],
    [
      'a duplicate annotation',
      { ...one, annotations: [annotation, annotation] },
      [],
      'truth: annotation id 1 is there twice',
    ],
    ['a duplicate image', { ...one, images: [...one.images, ...one.images] }, [], 'truth: image id 3 is there twice'],
    [
      'an unknown image',
      { ...one, annotations: [{ ...annotation, image_id: 4 }] },
      [],
      'annotation 1 belongs to image 4, which is not listed',
    ],
    [
      'an unknown category',
      { ...one, annotations: [{ ...annotation, category_id: 4 }] },
      [],
      'annotation 1 has category 4, which is not listed',
    ],
    [
      'a result of an unknown image',
      one,
      [result, { ...result, image_id: 4 }],
      'results: entry 1 belongs to image 4, which truth lacks',
    ],
    ['a result without score', one, [{ ...result, score: undefined }], 'results, 0.score is not as COCO has it'],
    ['a result without its region', one, [result, { ...result, bbox: undefined }], 'results: entry 1 has no bbox'],
    [
      'a polygon of two points',
      { ...one, annotations: [{ ...annotation, segmentation: [[1, 1, 9, 9]] }] },
      [result],
      'truth: annotation 1: a polygon has 4 numbers, expected three or more points',
    ],
    [
      'a crowd of another size',
      {
        ...one,
        annotations: [{ ...annotation, iscrowd: 1, segmentation: { size: [width, height], counts: [width * height] } }],
      },
      [result],
      `truth: annotation 1: the run lengths are of an image of ${height} × ${width} pixels, expected ${width} × ${height}`,
    ],
    [
      'run lengths that do not fill the image',
      one,
      [{ ...result, bbox: undefined, segmentation: { size: [height, width], counts: [3, 4] } }],
      'results: entry 0: the run lengths add up to 7 pixels',
    ],
  ])('refuses %s', (_, truth, results, message) => {
    expect(() => evaluateCoco(truth as CocoTruth, results as CocoResult[], 'segm')).toThrow(message);
  });

  it('refuses an annotation without what is compared', () => {
    const without = { ...one, annotations: [{ ...annotation, bbox: undefined }] };
    expect(() => evaluateCoco(without, [result], 'bbox')).toThrow(
      'truth: annotation 1 has no bbox, which the evaluation needs',
    );
  });

  it('scores 5,000 detections on 200 images in a second or two', () => {
    const { truth, results } = cocoData(1);
    expect([truth.images.length, results.length]).toEqual([COCO_DATA_SIZE.images, COCO_DATA_SIZE.detections]);
    const started = performance.now();
    const { stats } = evaluateCoco(truth, results, 'segm');
    // pycocotools takes 1.5 s on the machine where this takes .3 s; the limit only tells matching from comparing all with all.
    expect(performance.now() - started).toBeLessThan(10_000);
    // As pycocotools found them (bench/coco.ts compares all twelve).
    expect(stats[0]).toBeCloseTo(0.247602, 6);
    expect(stats[11]).toBeCloseTo(0.401468, 6);
  });
});

/** A full-size mask of a box. */
function maskFrom([x, y, w, h]: readonly number[]): Uint8Array {
  return Uint8Array.from({ length: width * height }, (_, i) => {
    const [column, row] = [i % width, Math.floor(i / width)];
    return column >= x && column < x + w && row >= y && row < y + h ? 1 : 0;
  });
}
