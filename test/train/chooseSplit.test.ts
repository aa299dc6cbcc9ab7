import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import { openDataset } from '../../src/data/dataset.ts';
import { notebookSplit } from '../../src/data/notebookSplit.ts';
import type { Split } from '../../src/data/split.ts';
import { TEST_MODE_ROWS } from '../../src/data/table.ts';
import { chooseSplit, splitOrigin } from '../../src/train/chooseSplit.ts';
import { completeTrainOptions, type GivenTrainOptions } from '../../src/train/options.ts';
import { planRun } from '../../src/train/run.ts';
import { removeFolders, temporaryFolder, writeDataset } from '../data/folders.ts';

afterAll(removeFolders);

const IDS = [...'abcdefghij'];
/** Ten images of two types, with one to three cells. */
const LINES = IDS.flatMap((id, i) =>
  Array.from({ length: 1 + (i % 3) }, () => `${id},1 3 13 3,12,10,${i % 2 === 0 ? 'disc' : 'oval'}`),
);

function fileOf(name: string, text: string): string {
  const path = join(temporaryFolder(), name);
  writeFileSync(path, text);
  return path;
}

const validationOf = ({ validation }: Split): string[] => validation.map(({ id }) => id);

describe('the split of a run', () => {
  const dir = writeDataset(LINES, IDS);
  const dataset = openDataset(dir);
  const choose = (given: GivenTrainOptions): Split => chooseSplit(dataset, completeTrainOptions(given));

  it("is the notebook's where asked for, with its seed unless another is given", () => {
    const options = { split: 'notebook', validation: 0.3 } as const;
    expect(choose(options)).toEqual(notebookSplit(dataset, 0.3, 1234));
    expect(choose({ ...options, seed: 5 })).toEqual(choose(options));
    expect(choose({ ...options, splitSeed: 7 })).toEqual(notebookSplit(dataset, 0.3, 7));
    expect(splitOrigin(completeTrainOptions(options))).toEqual({ method: 'notebook', validation: 0.3, seed: 1234 });
  });

  it('is balanced and follows the seed of the run otherwise', () => {
    const validation = 0.4;
    const bySeed = [1, 2, 3, 4].map((seed) => validationOf(choose({ validation, seed })).join(''));
    expect(new Set(bySeed).size).toBeGreaterThan(1);
    expect(validationOf(choose({ validation, seed: 9, splitSeed: 3 })).join('')).toBe(bySeed[2]);
    expect(splitOrigin(completeTrainOptions({ seed: 3 }))).toEqual({ method: 'balanced', validation: 1 / 6, seed: 3 });
  });

  it('is read from a file, which decides alone', () => {
    const splitFile = fileOf(
      's.csv',
      `id,part\n${IDS.map((id) => `${id},${'cf'.includes(id) ? 'validation' : 'train'}`).join('\n')}`,
    );
    expect(validationOf(choose({ splitFile, split: 'notebook', validation: 0.3 }))).toEqual(['c', 'f']);
    expect(splitOrigin(completeTrainOptions({ splitFile }))).toEqual({ method: 'file' });
  });

  it.each([
    [JSON.stringify({ train: IDS, validation: [] }), 'it leaves no image to validate on'],
    [JSON.stringify({ train: [], validation: IDS }), 'it leaves no image to train on'],
    [
      JSON.stringify({ train: [...'acegi'], validation: [...'bdfhj'] }),
      'validation image "b" shows "oval", which no training image does',
    ],
  ])('is refused when a side is empty or training misses a class: %s', (text, part) => {
    const splitFile = fileOf('s.json', text);
    expect(() => choose({ splitFile })).toThrow(UserError);
    expect(() => choose({ splitFile })).toThrow(`${splitFile}: ${part}`);
  });
});

describe('test mode', () => {
  it('reads the first 5000 rows, so that the last image may lack cells', () => {
    const many = Array.from({ length: 3 }, (_, i) => IDS.slice(3 * i, 3 * i + 3)).flatMap((ids) =>
      ids.flatMap((id, i) => Array.from({ length: 834 }, () => `${id},1 3 13 3,12,10,${i === 0 ? 'disc' : 'oval'}`)),
    );
    // Nine images of 834 cells: 5000 rows end within the sixth.
    const data = writeDataset(many, IDS);
    const cellsOf = (testMode: boolean): number[] => {
      const options = completeTrainOptions({ data, testMode, resize: 4, validation: 0.4 });
      return planRun(options, data, temporaryFolder()).dataset.images.map(({ annotations }) => annotations.length);
    };
    expect(cellsOf(false)).toEqual(Array(9).fill(834));
    expect(cellsOf(true)).toEqual([834, 834, 834, 834, 834, 830]);
    expect(TEST_MODE_ROWS).toBe(5000);
  });
});
