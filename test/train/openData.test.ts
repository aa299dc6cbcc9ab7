import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { openDataset } from '../../src/data/dataset.ts';
import { openDatasetShown } from '../../src/train/openData.ts';
import { removeFolders, writeDataset } from '../data/folders.ts';

afterEach(() => vi.restoreAllMocks());
afterAll(removeFolders);

/** What is written to standard error while a data set of three images is opened, the clock going on so much at every look. */
function shown(dir: string, step: number): string {
  let text = '';
  let now = 0;
  vi.spyOn(Date, 'now').mockImplementation(() => {
    now += step;
    return now;
  });
  vi.spyOn(process.stderr, 'write').mockImplementation((line) => {
    text += String(line);
    return true;
  });
  const dataset = openDatasetShown(dir, { classes: ['round'] });
  vi.restoreAllMocks();
  expect(dataset).toEqual(openDataset(dir, { classes: ['round'] }));
  return text;
}

describe('openDatasetShown', () => {
  it('opens what openDataset opens, and shows a stage only when it takes long', () => {
    const rows = ['a', 'b', 'c'].map((id) => `${id},1 2,12,10,round`);
    const dir = writeDataset(rows, ['a', 'b', 'c']);
    expect(shown(dir, 1)).toBe('');
    expect(shown(dir, 20_000)).toContain('Checking rows and images 3/3');
  });
});
