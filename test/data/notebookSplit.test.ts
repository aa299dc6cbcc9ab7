import { describe, expect, it } from 'vitest';
import type { Dataset } from '../../src/data/dataset.ts';
import { countCells } from '../../src/data/imageCounts.ts';
import { NOTEBOOK_SPLIT_SEED, notebookSplit } from '../../src/data/notebookSplit.ts';
import { fnv, formulaValue } from './formula.ts';

const CLASSES = ['astro', 'cort', 'shsy5y'];

/** 606 images with 1 to 25 cells of one type each, in an order of their own. */
function manyImages(): Dataset {
  const images = Array.from({ length: 606 }, (_, i) => {
    const label = i % 4 === 0 ? 2 : [2, 3, 1][Math.floor((formulaValue(i, 8, 606) * 3) / 606)];
    const id = `image-${String(formulaValue(i, 10, 10 ** 6)).padStart(6, '0')}-${i}`;
    const annotations = Array.from({ length: 1 + formulaValue(i, 9, 25) }, () => ({ rle: '1 1', label, line: 2 }));
    return { id, path: '', width: 1, height: 1, annotations };
  });
  return { dir: '', classes: CLASSES, images };
}

const number = (id: string): number => Number(id.split('-')[2]);

// The notebook's two cells (groupby … sort_values … train_test_split) run on the same table with pandas 3.1, scikit-learn 1.9 and
// NumPy 2.4 without its AVX sorts.
const VALIDATION = [
  3, 17, 19, 36, 77, 89, 99, 132, 140, 178, 200, 231, 233, 249, 253, 261, 266, 282, 283, 286, 298, 315, 317, 321, 326,
  330, 335, 374, 382, 386, 400, 426, 434, 446, 447, 457, 475, 488, 489, 492, 500, 508, 529, 533, 544, 555,
];

describe("the notebook's table and split", () => {
  it('have the rows in the order of pandas, ties included', () => {
    const rows = countCells(manyImages());
    expect(rows.slice(0, 3)).toEqual([
      { id: 'image-314516-26', cellType: 'cort', cells: 25 },
      { id: 'image-444591-34', cellType: 'shsy5y', cells: 25 },
      { id: 'image-924291-2', cellType: 'shsy5y', cells: 25 },
    ]);
    expect(fnv(rows.map(({ id }) => number(id)))).toBe(97252440);
  });

  it('keep the same images for validation, in the order of the data set', () => {
    const dataset = manyImages();
    const { train, validation } = notebookSplit(dataset, 0.075, NOTEBOOK_SPLIT_SEED);
    expect(validation.map(({ id }) => number(id))).toEqual(VALIDATION);
    expect(train).toEqual(dataset.images.filter((image) => !validation.includes(image)));
    // The order in which images come does not matter, as pandas sorts them by id first.
    const reversed = notebookSplit({ ...dataset, images: [...dataset.images].reverse() }, 0.075, NOTEBOOK_SPLIT_SEED);
    expect(reversed.validation.map(({ id }) => id).sort()).toEqual(validation.map(({ id }) => id).sort());
  });

  it('count an image of two types twice, refuse to split it, leave crowds out, and train on images without cells', () => {
    const cell = (label: number) => ({ rle: '1 1', label, line: 2 });
    const image = (id: string, ...labels: number[]) => ({
      id,
      path: '',
      width: 1,
      height: 1,
      annotations: labels.map(cell),
    });
    const mixed = [image('m', 3, 1, 3), image('a', 1), image('b', 3), image('empty')];
    expect(countCells({ classes: CLASSES, images: mixed })).toEqual([
      { id: 'm', cellType: 'shsy5y', cells: 2 },
      { id: 'a', cellType: 'astro', cells: 1 },
      { id: 'b', cellType: 'shsy5y', cells: 1 },
      { id: 'm', cellType: 'astro', cells: 1 },
    ]);
    expect(() => notebookSplit({ classes: CLASSES, images: mixed }, 0.5, 1)).toThrow(
      /image "m" has cells of two types \(astro and shsy5y\).*--split balanced/,
    );
    const crowd = { ...image('a', 1), annotations: [cell(1), { ...cell(3), iscrowd: true as const }] };
    expect(countCells({ classes: CLASSES, images: [crowd] })).toEqual([{ id: 'a', cellType: 'astro', cells: 1 }]);
    const plain = [image('a', 1), image('b', 1), image('empty'), image('c', 1), image('d', 1)];
    const { train, validation } = notebookSplit({ classes: CLASSES, images: plain }, 0.5, 1);
    expect(validation).toHaveLength(2);
    expect(train.map(({ id }) => id)).toContain('empty');
  });
});
