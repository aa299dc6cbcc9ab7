import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import {
  type BoxAnnotationRow,
  type BoxPredictionRow,
  meanAveragePrecisionForBoxes,
} from '../../src/eval/boxAveragePrecision.ts';
import { computeMAP } from '../../src/eval/computeMAP.ts';
import { removeFolders, temporaryFolder } from '../data/folders.ts';
import { type RefBox, referenceComputeMAP, referenceListOrderAP } from '../reference/boxLists.ts';

afterAll(removeFolders);

// Quarters are exact in float32; few places, so that boxes often overlap and IoUs are often equal.
const side = fc.integer({ min: 4, max: 16 }).map((v) => v / 4);
const place = fc.integer({ min: 0, max: 24 }).map((v) => v / 4);
const refBox = fc
  .record({
    image: fc.integer({ min: 0, max: 2 }),
    label: fc.integer({ min: 0, max: 3 }),
    x: place,
    y: place,
    w: side,
    h: side,
    score: fc.integer({ min: 0, max: 6 }).map((v) => v / 8),
  })
  .map(({ image, label, x, y, w, h, score }): RefBox => ({ image, label, score, box: [x, y, x + w, y + h] }));
const lists = fc.tuple(fc.array(refBox, { maxLength: 10 }), fc.array(refBox, { maxLength: 20 })).map(
  // Two of three detections lie near a truth.
  ([truths, found]) => ({
    truths,
    found: found.map((item, i) => {
      const near = truths[i % 3 === 0 ? truths.length : i % truths.length];
      if (near === undefined) return item;
      const [x0, y0, x1, y1] = near.box;
      return { ...near, score: item.score, box: [x0, y0, x1 + (i % 4) / 4, y1] };
    }),
  }),
);

const annotationRows = (truths: RefBox[]): BoxAnnotationRow[] =>
  truths.map(({ image, label, box: [x0, y0, x1, y1] }) => [image, label, x0, x1, y0, y1]);
const predictionRows = (found: RefBox[]): BoxPredictionRow[] =>
  found.map(({ image, label, score, box: [x0, y0, x1, y1] }) => [image, label, score, x0, x1, y0, y1]);

describe('meanAveragePrecisionForBoxes', () => {
  it('equals the reference, also with the option that excludes images', () => {
    fc.assert(
      fc.property(lists, fc.constantFrom(0.3, 0.5, 0.75), fc.boolean(), (items, threshold, exclude) => {
        const { truths, found } = items;
        const result = meanAveragePrecisionForBoxes(annotationRows(truths), predictionRows(found), threshold, {
          excludeNotInAnnotations: exclude,
        });
        const labels = [...new Set(truths.map(({ label }) => label))].sort();
        expect(Object.keys(result.perClass)).toEqual(labels.map(String));
        const expected = labels.map((label) => referenceListOrderAP(truths, found, label, threshold));
        for (const [i, label] of labels.entries()) {
          expect(result.perClass[label].averagePrecision).toBeCloseTo(expected[i], 12);
          expect(result.perClass[label].annotations).toBe(truths.filter((truth) => truth.label === label).length);
        }
        const mean = labels.length === 0 ? 0 : expected.reduce((sum, value) => sum + value, 0) / labels.length;
        expect(result.mean).toBeCloseTo(mean, 12);
      }),
      { numRuns: 200 },
    );
  });

  const folder = temporaryFolder();
  const file = (name: string, lines: string[]): string => {
    const path = join(folder, name);
    writeFileSync(path, `${lines.join('\n')}\n`);
    return path;
  };
  const truthHeader = 'ImageID,LabelName,XMin,XMax,YMin,YMax';
  const header = 'ImageID,LabelName,Conf,XMin,XMax,YMin,YMax';

  it('reads CSV files: columns by name in any order, others ignored', () => {
    const truths = file('a.csv', [
      'note,YMax,YMin,XMax,XMin,LabelName,ImageID',
      ',9,1,8,0,cort,x',
      '"a, b",40,30,40,30,astro,x',
    ]);
    const found = file('p.csv', [
      'Conf,ImageID,LabelName,XMin,XMax,YMin,YMax',
      '.9,x,cort,0,8,1,9',
      '.8,x,astro,0,8,1,9',
    ]);
    const rows = meanAveragePrecisionForBoxes(
      [
        ['x', 'cort', 0, 8, 1, 9],
        ['x', 'astro', 30, 40, 30, 40],
      ],
      [
        ['x', 'cort', 0.9, 0, 8, 1, 9],
        ['x', 'astro', 0.8, 0, 8, 1, 9],
      ],
    );
    expect(rows).toEqual({
      mean: 0.5,
      perClass: { astro: { averagePrecision: 0, annotations: 1 }, cort: { averagePrecision: 1, annotations: 1 } },
    });
    expect(meanAveragePrecisionForBoxes(truths, found)).toEqual(rows);
  });

  it('visits an image that a row without a label names: what is found there counts against', () => {
    const truths = file('named.csv', [truthHeader, '1,cell,0,8,0,8', '2,,,,,']);
    const found = file('strays.csv', [header, '2,cell,.9,0,8,0,8', '1,cell,.8,0,8,0,8', '3,cell,.95,0,8,0,8']);
    expect(meanAveragePrecisionForBoxes(truths, found)).toEqual({
      mean: 0.5,
      perClass: { cell: { averagePrecision: 0.5, annotations: 1 } },
    });
    const rows: BoxAnnotationRow[] = [
      [1, 'cell', 0, 8, 0, 8],
      [2, Number.NaN, Number.NaN, 0, 0, 0],
    ];
    expect(meanAveragePrecisionForBoxes(rows, found).mean).toBe(0.5);
  });

  it('has whole numbers of a column with gaps as pandas has them, which no label of a full column equals', () => {
    const truths = file('gap.csv', [truthHeader, '1,7,0,8,0,8', '2,,,,,']);
    const full = file('full.csv', [header, '1,7,.9,0,8,0,8']);
    expect(meanAveragePrecisionForBoxes(truths, full)).toEqual({
      mean: 0,
      perClass: { '7.0': { averagePrecision: 0, annotations: 1 } },
    });
    const fraction = file('fraction.csv', [header, '1,7.0,.9,0,8,0,8']);
    expect(meanAveragePrecisionForBoxes(truths, fraction).mean).toBe(1);
  });

  it('excludes predictions by the value of their image id: a number there is no text here', () => {
    const numbers = file('numbers.csv', [truthHeader, '1,cell,0,8,0,8']);
    const texts = file('texts.csv', [header, '1,cell,.9,0,8,0,8', 'x,cell,.8,0,8,0,8']);
    expect(meanAveragePrecisionForBoxes(numbers, texts, 0.5).mean).toBe(1);
    expect(meanAveragePrecisionForBoxes(numbers, texts, 0.5, { excludeNotInAnnotations: true }).mean).toBe(0);
    const alike = file('alike.csv', [header, '1,cell,.9,0,8,0,8', '4,cell,.95,0,8,0,8']);
    expect(meanAveragePrecisionForBoxes(numbers, alike, 0.5, { excludeNotInAnnotations: true }).mean).toBe(1);
  });

  it.each([
    ['a missing file', 'none.csv', undefined, 'no such file: '],
    [
      'a missing column',
      'column.csv',
      ['ImageID,LabelName,XMin,XMax,YMin', '1,a,0,1,0'],
      'lacks the column "YMax" (it has ImageID, ',
    ],
    [
      'a coordinate that is no number',
      'number.csv',
      [truthHeader, '1,a,0,8,0,8', '1,a,0,x,0,8'],
      'number.csv, line 3: XMax is "x", expected a number',
    ],
    ['a missing coordinate', 'empty.csv', [truthHeader, '1,a,0,,0,8'], 'line 2: XMax is "", expected a number'],
    ['a torn row', 'torn.csv', [truthHeader, '1,a,0'], 'torn.csv is not a valid CSV table'],
  ])('refuses %s', (_, name, lines, message) => {
    const path = lines === undefined ? join(folder, name) : file(name, lines);
    expect(() => meanAveragePrecisionForBoxes(path, [])).toThrow(message);
  });
});

describe('computeMAP', () => {
  it('equals the reference', () => {
    fc.assert(
      fc.property(lists, fc.integer({ min: 1, max: 5 }), ({ truths, found }, numClasses) => {
        const records = (items: RefBox[]) =>
          items.map(({ image, label, box, score }) => ({
            imageId: image,
            label,
            box: box as [number, number, number, number],
            score,
          }));
        const { mean, perThreshold } = computeMAP(records(truths), records(found), numClasses);
        const expected = referenceComputeMAP(truths, found, numClasses);
        expect(perThreshold).toHaveLength(9);
        for (const [i, value] of expected.entries()) expect(perThreshold[i]).toBeCloseTo(value, 12);
        expect(mean).toBeCloseTo(expected.reduce((sum, value) => sum + value, 0) / 9, 12);
      }),
      { numRuns: 200 },
    );
  });

  it('measures the classes up to each one together', () => {
    const box = [0, 0, 9, 9] as const;
    const item = (label: number) => ({ imageId: 0, label, box, score: 0.5 });
    // Class 1 finds nothing of its own, but the truth of class 2 becomes known at class 2, and its prediction finds it.
    const { perThreshold } = computeMAP([item(2)], [item(1)], 3);
    for (const value of perThreshold) expect(value).toBeCloseTo(1 / 3, 5);
  });
});
