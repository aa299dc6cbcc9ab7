import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import type { ImageRecord } from '../../src/data/dataset.ts';
import { readSplitFile, writeSplitFile } from '../../src/data/splitFile.ts';
import { removeFolders, temporaryFolder } from './folders.ts';

const records: ImageRecord[] = ['a', 'b', 'c', 'd'].map((id) => ({
  id,
  path: '',
  width: 1,
  height: 1,
  annotations: [],
}));
const ids = (side: ImageRecord[]): string => side.map(({ id }) => id).join('');

afterAll(removeFolders);

function fileOf(name: string, text: string): string {
  const path = join(temporaryFolder(), name);
  writeFileSync(path, text);
  return path;
}

describe('split files', () => {
  it('are read as they were written', () => {
    const path = join(temporaryFolder(), 'run', 'split.json');
    const split = { train: [records[0], records[3]], validation: [records[1], records[2]] };
    writeSplitFile(path, split, { method: 'notebook', validation: 0.5, seed: 1234 });
    expect(readSplitFile(path, records)).toEqual(split);
    expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual({
      split: { method: 'notebook', validation: 0.5, seed: 1234 },
      train: ['a', 'd'],
      validation: ['b', 'c'],
    });
  });

  it.each([
    ['split.json', '{"validation": ["d", "b"], "train": ["c", "a"], "note": 7}'],
    ['split.csv', '\ufeffpart,id,note\nvalidation,d,x\ntrain,a,\n\ntrain,c,\nvalidation,b,\n'],
    ['SPLIT.CSV', 'id,part\nd,validation\na,train\nc,train\nb,validation'],
  ])('%s gives both sides in the order of the data set', (name, text) => {
    const { train, validation } = readSplitFile(fileOf(name, text), records);
    expect([ids(train), ids(validation)]).toEqual(['ac', 'bd']);
  });

  it.each([
    ['split.json', '{"train": ["a", "b"], "validation": ["c", "d", "e"]}', 'validation[2]: there is no image "e"'],
    [
      'split.json',
      '{"train": ["a", "b", "a"], "validation": ["c", "d"]}',
      '"a" is listed twice (train[0] and train[2])',
    ],
    [
      'split.json',
      '{"train": ["a", "b"], "validation": ["b", "c", "d"]}',
      '"b" is listed twice (train[1] and validation[0])',
    ],
    ['split.json', '{"train": ["a"], "validation": ["b"]}', 'lacks image "c" and 1 more of the data set'],
    ['split.json', '{"train": ["a"]}', 'validation:'],
    ['split.json', '["a"]', 'expected {"train"'],
    ['split.json', '{"train": ["a"', 'not a readable split file'],
    ['split.csv', 'id,part\na,train\nb,test\n', 'line 3: the part is "test", expected train or validation'],
    ['split.csv', 'id,part\na,train\nz,train\n', 'line 3: there is no image "z"'],
    ['split.csv', 'id,part\na,train\nb,train\na,validation\n', '"a" is listed twice (line 2 and line 4)'],
    ['split.csv', 'id,part\na,train\n', 'lacks image "b" and 2 more'],
    ['split.csv', 'id,side\na,train\n', 'lacks the column "part"'],
    ['split.csv', 'id,part\na,train,7\n', 'not a valid CSV table'],
  ])('%s with %s is refused in one sentence', (name, text, part) => {
    const path = fileOf(name, text);
    expect(() => readSplitFile(path, records)).toThrow(UserError);
    expect(() => readSplitFile(path, records)).toThrow(path);
    expect(() => readSplitFile(path, records)).toThrow(part);
  });

  it('that are not there are named', () => {
    expect(() => readSplitFile('/nowhere/split.json', records)).toThrow('no such split file: /nowhere/split.json');
  });
});
