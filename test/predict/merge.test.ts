import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { submissionRows, writeSubmission } from '../../src/eval/submission.ts';
import { JOURNAL } from '../../src/predict/journal.ts';
import { inShard, parseShard, shardSize } from '../../src/predict/shards.ts';
import { command } from '../cli/support.ts';
import { removeFolders, temporaryFolder } from '../data/folders.ts';
import { randomPrediction, writeJournal } from './support.ts';

afterAll(removeFolders);

/** Folders of N parts of a run over `count` images. */
function shardsOf(count: number, of: number): string[] {
  const root = temporaryFolder();
  return Array.from({ length: of }, (_, i) => {
    const dir = join(root, `part-${i + 1}`);
    writeJournal(dir, count, { index: i + 1, of });
    return dir;
  });
}

/** What one run over all images writes. */
function expectedSubmission(count: number): string {
  const path = join(temporaryFolder(), 'submission.csv');
  const rows = Array.from({ length: count }, (_, i) => randomPrediction(i)).flatMap(({ id, cells, width }) =>
    submissionRows(
      id,
      cells.flatMap(({ mask }) => (mask ? [{ mask }] : [])),
      width,
    ),
  );
  writeSubmission(path, rows);
  return readFileSync(path, 'utf8');
}

describe('shards', () => {
  it('are read as I/N', () => {
    expect(parseShard('2/4')).toEqual({ index: 2, of: 4 });
    expect(parseShard(' 12/12 ')).toEqual({ index: 12, of: 12 });
    for (const text of ['0/4', '5/4', '1/0', '1', '1/', 'a/b', '1.5/4', '-1/4', '1/4/2', '']) {
      expect(() => parseShard(text), text).toThrow('expected I/N');
    }
  });

  it('hold each image once, and as many as told', () => {
    for (const [count, of] of [
      [10, 3],
      [3, 5],
      [8, 4],
      [0, 2],
    ]) {
      const taken = new Array(count).fill(0);
      for (let index = 1; index <= of; index++) {
        const own = taken.map((_, position) => inShard(position, { index, of }));
        own.forEach((mine, position) => {
          taken[position] += Number(mine);
        });
        expect(shardSize(count, { index, of })).toBe(own.filter(Boolean).length);
      }
      expect(taken).toEqual(new Array(count).fill(1));
    }
  });
});

describe('merge', () => {
  it.each([
    [11, 4],
    [4, 4],
    [3, 5],
    [7, 1],
  ])('joins %i images of %i parts, in any order, to what one run writes', async (count, of) => {
    const out = join(temporaryFolder(), 'new', 'submission.csv');
    const answer = await command('merge', '--out', out, ...shardsOf(count, of).reverse());
    expect(answer.error).toContain(`${count} images of ${of} parts`);
    expect(answer.code).toBe(0);
    expect(readFileSync(out, 'utf8')).toBe(expectedSubmission(count));
  });

  it('joins COCO results in the same order', async () => {
    const [whole] = shardsOf(9, 1);
    const [one, four] = [join(temporaryFolder(), 'coco.json'), join(temporaryFolder(), 'coco.json')];
    await command('merge', '--coco', one, whole);
    await command('merge', '--coco', four, ...shardsOf(9, 4));
    expect(readFileSync(four, 'utf8')).toBe(readFileSync(one, 'utf8'));
    const results = JSON.parse(readFileSync(four, 'utf8')) as { image_id: number }[];
    const expected = Array.from({ length: 9 }, (_, i) => randomPrediction(i).cells.map(() => i + 1)).flat();
    expect(results.map(({ image_id }) => image_id)).toEqual(expected);
  });

  const faults: [string, (dirs: string[]) => string[], string[]][] = [
    [
      'parts of differing N',
      (dirs) => {
        writeJournal(dirs[1], 11, { index: 2, of: 3 });
        return dirs;
      },
      ['part-2', 'a part of 3', 'part-1', 'one of 4'],
    ],
    ['a missing part', ([a, b, , d]) => [a, b, d], ['Of the 4 parts 3 is missing']],
    ['missing parts', ([a, , , d]) => [a, d], ['Of the 4 parts 2, 3 are missing']],
    ['a part twice', (dirs) => [...dirs, dirs[1]], ['both hold part 2 of 4']],
    [
      'an unfinished part',
      (dirs) => {
        writeJournal(dirs[2], 11, { index: 3, of: 4 }, { done: 1 });
        return dirs;
      },
      ['part-3', '1 of its 3 images', 'predict'],
    ],
    [
      'other weights',
      (dirs) => {
        writeJournal(dirs[3], 11, { index: 4, of: 4 }, { weights: 'v' });
        return dirs;
      },
      ['part-4', 'other weights'],
    ],
    [
      'other options',
      (dirs) => {
        writeJournal(dirs[3], 11, { index: 4, of: 4 }, { resize: 0.25 });
        return dirs;
      },
      ['part-4', '--resize 0.25'],
    ],
    [
      'other images',
      (dirs) => {
        writeJournal(dirs[3], 12, { index: 4, of: 4 });
        return dirs;
      },
      ['part-4', 'other images (12)'],
    ],
    [
      'no record',
      (dirs) => {
        rmSync(join(dirs[0], JOURNAL));
        return dirs;
      },
      [`no ${JOURNAL}`, 'part-1'],
    ],
    ['no such folder', (dirs) => [...dirs, '/nowhere/part'], ['/nowhere/part']],
    [
      'boxes only',
      (dirs) => {
        for (const [i, dir] of dirs.entries()) writeJournal(dir, 11, { index: i + 1, of: 4 }, { masks: false });
        return dirs;
      },
      ['--out', 'needs masks'],
    ],
  ];

  it.each(faults)('refuses %s, and writes nothing', async (_, spoil, parts) => {
    const out = join(temporaryFolder(), 'submission.csv');
    const { code, error } = await command('merge', '--out', out, ...spoil(shardsOf(11, 4)));
    for (const part of parts) expect(error).toContain(part);
    expect(error.trimEnd().split('\n')).toHaveLength(1);
    expect(code).toBe(2);
    expect(existsSync(out)).toBe(false);
  });

  it('refuses to write nothing, or over a folder', async () => {
    const dirs = shardsOf(2, 1);
    expect((await command('merge', ...dirs)).error).toContain('expected --out FILE or --coco FILE');
    expect((await command('merge', '--out', dirs[0], ...dirs)).error).toContain('it is a folder');
    expect((await command('merge', '--out', 'x')).code).toBe(2);
  });
});
