import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cocoPolygonCounts } from '../../src/data/cocoPolygon.ts';
import {
  cocoCounts,
  cocoCountsFromString,
  cocoCountsToString,
  cocoRleDecode,
  cocoRleEncode,
} from '../../src/data/cocoRle.ts';

/** Random polygons and the text that pycocotools 2.0.11 makes of them (`merge(frPyObjects(polygons, height, width))`). */
const pinned: [width: number, height: number, polygons: number[][], counts: string][] = [
  [
    33,
    10,
    [[30.06, 6.81, -1.76, 3.53, 15.56, -2.49]],
    '3190O10000O100O2O0000000000000000001O0001O001O1O001O1O010O00h0',
  ],
  [
    15,
    30,
    [
      [-2.93, 10.43, 7.95, 12.09, 9.84, 24.99, 19.82, 5.94, 11.51, 23.24],
      [-5.96, 34.89, 2.06, 7.19, 18.08, 18.58, 6.73, 26.48, -5.18, 23.69, 4.1, -2.18],
    ],
    '8a0:BG=7AKa0:00O1O001O1N1O2O1N2N101NA',
  ],
  [
    17,
    27,
    [
      [21.01, 2.08, 12.27, 5.63, 15.51, 22.16, 0.34, 26.37, 13.07, 20.63],
      [6.43, 23.59, 19.48, -2.01, 18.64, 9.36],
      [7.91, -0.29, 14.25, 5.39, 19.26, 4.74, 10.29, 9.59, 11.77, 1.67, -0.77, 23.13],
    ],
    'd01g0101@N63LM140LO43LJ67JF79IE0269KFO247NGO30OO23MN250MNN52L01N48KJ5=0J7MO',
  ],
  [13, 32, [[17.03, 3.05, 15.27, 1.44, 18.11, 21.44, 9.17, 36.7]], 'o:1k04K4[O'],
  [
    26,
    27,
    [
      [24.02, -3.89, 8.03, -2.69, 1.35, 2.34, 26.63, -1.06, 5.28, 13.22, 26.28, 31.64],
      [2.12, 15.25, 20.83, -3.98, 19.84, 8.36, 16.41, 20.11, 19.43, 14.4, 15.08, 1.73],
    ],
    'b21i010000A030M12NN41LK0L68JK0N76IK0O95GK00;4EK02;3EJ03=2CK02?27O1O1O12NN100O22La0@',
  ],
  [
    30,
    9,
    [
      [-0.73, 4.1, 16.52, 10.26, 10.53, -5.59, 16.17, -1.69],
      [10.33, 1.99, 32.2, 2.25, 8.65, 1.31],
      [14.19, -4.04, 16.96, 13.35, 17.64, 9.62, 33.78, 11.68, 25.25, 11.08],
    ],
    '41710001N10001N10001N100011N31N3NM1O1O2N1O1Oh1',
  ],
  [
    16,
    34,
    [
      [18.77, 39.99, -1.98, 18.72, 18.67, -3.56, 10.47, 2.0, 15.5, 37.13],
      [-5.75, -3.04, 5.64, 32.98, 0.63, 24.78, 5.35, 6.2],
      [13.71, 8.18, 4.41, 29.2, 7.87, 30.06, 8.46, 1.36, 6.42, 34.15],
    ],
    '2c0`04L1OKG@82H82E:=CC>b0C^O7a043N2KYOLi02YO1d0N[O50K?NAd0:8H5',
  ],
];

const side = fc.integer({ min: 1, max: 40 });
const polygonOf = (coordinate: fc.Arbitrary<number>) =>
  fc.array(fc.tuple(coordinate, coordinate), { minLength: 3, maxLength: 7 }).map((points) => points.flat());
const polygon = polygonOf(fc.integer({ min: -60, max: 460 }).map((v) => v / 10));

/** Whether a point lies inside by the even-odd rule, and how far it is from the outline. */
function position(polygon: readonly number[], px: number, py: number): { inside: boolean; distance: number } {
  let inside = false;
  let distance = Number.POSITIVE_INFINITY;
  for (let i = 0; i < polygon.length; i += 2) {
    const [ax, ay] = [polygon[i], polygon[i + 1]];
    const [bx, by] = [polygon[(i + 2) % polygon.length], polygon[(i + 3) % polygon.length]];
    if (ay > py !== by > py && px < ax + ((py - ay) / (by - ay)) * (bx - ax)) inside = !inside;
    const squared = (bx - ax) ** 2 + (by - ay) ** 2;
    const along =
      squared === 0 ? 0 : Math.min(1, Math.max(0, ((px - ax) * (bx - ax) + (py - ay) * (by - ay)) / squared));
    distance = Math.min(distance, Math.hypot(ax + along * (bx - ax) - px, ay + along * (by - ay) - py));
  }
  return { inside, distance };
}

describe('cocoPolygonCounts', () => {
  it.each(pinned)('equals pycocotools, %i × %i', (width, height, polygons, counts) => {
    expect(cocoCountsToString(cocoPolygonCounts(polygons, width, height, 'pinned'))).toBe(counts);
  });

  it('fills what lies inside by more than the step of the outline, nothing that lies outside by more', () => {
    fc.assert(
      fc.property(fc.array(polygon, { minLength: 1, maxLength: 3 }), side, side, (polygons, width, height) => {
        const counts = cocoPolygonCounts(polygons, width, height, 'polygon');
        const mask = cocoRleDecode({ size: [height, width], counts }, 'polygon');
        for (const [i, covered] of mask.entries()) {
          const [x, y] = [(i % width) + 0.5, Math.floor(i / width) + 0.5];
          const places = polygons.map((one) => position(one, x, y));
          if (places.some(({ distance }) => distance < 0.3)) continue;
          expect(covered, `pixel ${x}, ${y}`).toBe(Number(places.some(({ inside }) => inside)));
        }
      }),
      { numRuns: 60 },
    );
  });

  it('does not depend on where a polygon begins or, but for rounding, on its sense', () => {
    const outline = [2.3, 3.1, 17.8, 5.2, 12.6, 16.9];
    const counts = cocoPolygonCounts([outline], 20, 18, 'outline');
    expect(cocoPolygonCounts([[...outline.slice(2), ...outline.slice(0, 2)]], 20, 18, 'outline')).toEqual(counts);
    expect(cocoPolygonCounts([[...outline.slice(0, 2), ...outline]], 20, 18, 'doubled point')).toEqual(counts);
    expect(cocoPolygonCounts([outline, outline], 20, 18, 'twice')).toEqual(counts);
  });

  it.each<[number[][], string]>([
    [[], 'file, annotation 1: the segmentation holds no polygon'],
    [[[1, 1, 5, 5]], 'file, annotation 1: a polygon has 4 numbers, expected three or more points "x, y"'],
    [[[1, 1, 5, 5, 1, 5, 2]], 'a polygon has 7 numbers'],
    [[[1, 1, 5, Number.NaN, 1, 5]], 'a polygon has a point at NaN'],
    [[[1, 1, 5, 1e9, 1, 5]], 'a polygon has a point at 1000000000, far outside its image'],
  ])('refuses %j', (polygons, message) => {
    expect(() => cocoPolygonCounts(polygons, 9, 9, 'file, annotation 1')).toThrow(message);
  });
});

describe('run lengths', () => {
  const mask = fc
    .tuple(side, side)
    .chain(([width, height]) =>
      fc
        .array(fc.integer({ min: 0, max: 2 }), { minLength: width * height, maxLength: width * height })
        .map((values) => ({ width, height, mask: Uint8Array.from(values, (value) => (value === 0 ? 1 : 0)) })),
    );

  it('come back as they were', () => {
    fc.assert(
      fc.property(mask, ({ width, height, mask }) => {
        expect(cocoRleDecode(cocoRleEncode(mask, width, height), 'mask')).toEqual(mask);
        const counts = cocoCounts(mask, width, height);
        expect(cocoRleDecode({ size: [height, width], counts }, 'mask')).toEqual(mask);
        expect(cocoCountsFromString(cocoCountsToString(counts), 'mask')).toEqual(counts);
      }),
      { numRuns: 40 },
    );
  });

  it('of large images keep their numbers', () => {
    const counts = [0, 3, 100_000, 40_000_000, 1, 2 ** 30];
    expect(cocoCountsFromString(cocoCountsToString(counts), 'text')).toEqual(counts);
  });

  it.each([
    ['a~', 'holds "~" at character 2'],
    ['P', 'ends within a number'],
    ['1O', 'negative length (-1)'],
  ])('refuse the text %s', (text, message) => {
    expect(() => cocoCountsFromString(text, 'text')).toThrow(message);
  });

  it('refuse lengths that do not fill the image', () => {
    expect(() => cocoRleDecode({ size: [2, 3], counts: [2, 3] }, 'annotation 4')).toThrow(
      'annotation 4: the run lengths add up to 5 pixels, expected 6 (3 × 2)',
    );
    expect(() => cocoRleDecode({ size: [2, 3], counts: [2.5, 3.5] }, 'annotation 4')).toThrow('2.5 is no run length');
  });
});
