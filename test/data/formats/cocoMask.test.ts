import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/cli/errors.ts';
import { cocoCounts, cocoRleEncode } from '../../../src/data/cocoRle.ts';
import { runsToCocoRle, segmentationRuns } from '../../../src/data/formats/cocoMask.ts';
import { rleEncode } from '../../../src/data/rle.ts';
import { runsArea, runsBox, runsToText } from '../../../src/data/runs.ts';

type Box = [x: number, y: number, width: number, height: number];

// What pycocotools 2.0 makes of each: merge(frPyObjects(polygons, height, width)), its area and toBbox.
const POLYGONS: [
  name: string,
  width: number,
  height: number,
  polygons: number[][],
  counts: string,
  area: number,
  Box,
][] = [
  ['a triangle', 17, 13, [[1, 1, 14.5, 3.25, 6.2, 11.9]], '>1<2N2O1N2N2NO1N2O2N1O1O1OU1', 65, [1, 1, 13, 11]],
  ['a square on borders of pixels', 9, 8, [[2, 2, 6, 2, 6, 6, 2, 6]], 'b04400000f0', 16, [2, 2, 4, 4]],
  ['a repeated point, clockwise', 9, 8, [[2, 2, 2, 2, 2, 6, 6, 6, 6, 2]], 'b04400000f0', 16, [2, 2, 4, 4]],
  ['a bow tie', 16, 16, [[1, 1, 14, 14, 14, 1, 1, 14]], 'a0<5N2N2N2N2Na00_O2N2N2N2N2n0', 84, [1, 1, 13, 12]],
  [
    'one partly outside',
    12,
    10,
    [[-4.5, -3, 8.3, 2.2, 15.75, 13.1, 3, 7]],
    '0461O1O100O0010O011N1O2N',
    73,
    [0, 0, 12, 10],
  ],
  ['one outside', 12, 10, [[20, 20, 25, 20, 25, 25]], 'h3', 0, [0, 0, 0, 0]],
  ['one thinner than a pixel', 12, 10, [[3.1, 2.1, 3.3, 2.1, 3.2, 8]], 'h3', 0, [0, 0, 0, 0]],
  ['the whole image', 7, 5, [[-1, -1, 8, -1, 8, 6, -1, 6]], '0S1', 35, [0, 0, 7, 5]],
  [
    'two that overlap',
    20,
    12,
    [
      [1, 1, 9, 1, 9, 9, 1, 9],
      [5, 5, 18.4, 4, 17, 11],
    ],
    '=8400000000000004J21O0O2O001O001OMg0',
    105,
    [1, 1, 17, 10],
  ],
  [
    "a cell of LIVECell's kind",
    40,
    36,
    [
      [
        31.17, 18.0, 33.98, 20.91, 30.01, 24.06, 26.57, 26.19, 26.2, 29.74, 22.24, 27.78, 20.0, 31.67, 16.67, 26.01,
        12.56, 30.78, 11.11, 26.7, 12.12, 22.05, 8.7, 20.18, 10.67, 18.0, 12.07, 15.09, 10.4, 11.05, 11.77, 9.17, 14.25,
        7.06, 17.1, 8.39, 20.0, 3.03, 23.59, 5.49, 25.1, 9.68, 27.09, 12.0, 31.57, 12.6, 33.45, 15.23,
      ],
    ],
    'g:2Q11G2ZO11M=c0N0OO3N1O11M4L4M11M3N103N1N1M3N1O1O101N2HXO1o0NU6',
    412,
    [9, 3, 25, 28],
  ],
];

describe('segmentationRuns', () => {
  it.each(POLYGONS)('draws %s as pycocotools', (_, width, height, polygons, counts, area, box) => {
    const runs = segmentationRuns(polygons, width, height, 'x');
    expect(runsToCocoRle(runs, width, height)).toEqual({ size: [height, width], counts });
    expect(runsArea(runs)).toBe(area);
    const [xmin, ymin, xmax, ymax] = runsBox(runs, width) ?? [0, 0, -1, -1];
    expect([xmin, ymin, xmax - xmin + 1, ymax - ymin + 1]).toEqual(box);
  });

  it('reads run lengths, compressed or not, to the pixels that were encoded', () => {
    const masks = fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 9 })).chain(([width, height]) => {
      const pixels = width * height;
      return fc.tuple(
        fc.constant(width),
        fc.constant(height),
        fc.uint8Array({ minLength: pixels, maxLength: pixels, max: 1 }),
      );
    });
    fc.assert(
      fc.property(masks, ([width, height, mask]) => {
        const rle = cocoRleEncode(mask, width, height);
        const runs = segmentationRuns(rle, width, height, 'x');
        expect(runsToText(runs)).toBe(rleEncode(mask));
        expect(runsToCocoRle(runs, width, height)).toEqual(rle);
        const list = { size: [height, width], counts: cocoCounts(mask, width, height) };
        expect(segmentationRuns(list, width, height, 'x')).toEqual(runs);
      }),
    );
  });

  it.each<[string, unknown, string]>([
    ['a polygon of two points', [[1, 1, 5, 5]], 'the polygon has 2 points, expected 3 or more'],
    [
      'a second polygon of two points',
      [
        [1, 1, 5, 5, 5, 1],
        [1, 1, 5, 5],
      ],
      'polygon 2 has 2 points, expected 3 or more',
    ],
    ['half a point', [[1, 1, 5, 5, 5, 1, 3]], 'the polygon holds 7 numbers, expected pairs x, y'],
    ['a text among numbers', [[1, 1, 5, '5', 5, 1]], 'the polygon holds "5", expected coordinates in pixels'],
    ['a missing number', [[1, 1, 5, null, 5, 1]], 'holds null'],
    ['a point far away', [[1, 1, 5, 1e9, 5, 1]], 'holds 1000000000'],
    ['numbers without a list', [1, 1, 5, 5, 5, 1], 'polygon 1 is no list of numbers, expected [x, y, x, y, …]'],
    ['no polygon', [], 'the segmentation is empty'],
    ['nothing', undefined, 'neither polygons nor run lengths with a size'],
    ['a box', { bbox: [1, 1, 2, 2] }, 'neither polygons nor run lengths with a size'],
    ['run lengths of another size', { size: [12, 10], counts: [120] }, 'for 10 × 12 pixels, but the image is 12 × 10'],
    ['too few run lengths', { size: [10, 12], counts: [5, 5] }, 'add up to 10 pixels, expected 120 (12 × 10)'],
    ['too many', { size: [10, 12], counts: '0k3' }, 'add up to 123 pixels'],
    ['a negative length', { size: [10, 12], counts: [5, -5, 120] }, '-5 is no run length'],
    ['broken text', { size: [10, 12], counts: 'h3 ' }, 'malformed'],
  ])('refuses %s in one sentence', (_, segmentation, part) => {
    const read = () => segmentationRuns(segmentation, 12, 10, 'cells.json, annotation 7');
    expect(read).toThrow(UserError);
    expect(read).toThrow(part);
    expect(read).toThrow(/^cells.json, annotation 7: /);
  });
});
