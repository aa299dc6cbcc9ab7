import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../../../src/cli/errors.ts';
import { readJsonElements } from '../../../src/data/formats/jsonElements.ts';
import { removeFolders, temporaryFolder } from '../folders.ts';

afterAll(removeFolders);

const path = join(temporaryFolder(), 'a.json');

function read(text: string, ...members: string[]): { elements: unknown[][]; seen: string[] } {
  writeFileSync(path, text);
  const elements: unknown[][] = [];
  const readers = members.map((name) => [
    name,
    (element: unknown, place: number | string) => elements.push([name, place, element]),
  ]);
  const seen = readJsonElements(path, Object.fromEntries(readers));
  return { elements, seen: [...seen] };
}

describe('readJsonElements', () => {
  it('hands over the elements of lists and of objects, in the file’s order, and passes over the rest', () => {
    const file = {
      info: { list: [[1], { list: 2 }] },
      list: [{ a: [1, { b: [] }], list: 'x' }, 7, null, 'é"\\', []],
      none: [],
      keyed: { 12: { id: 12 }, x: [3] },
      plain: 5,
    };
    expect(read(`\ufeff ${JSON.stringify(file)}\n`, 'list', 'keyed', 'none')).toEqual({
      elements: [
        ...file.list.map((element, i) => ['list', i, element]),
        ['keyed', '12', { id: 12 }],
        ['keyed', 'x', [3]],
      ],
      seen: ['info', 'list', 'none', 'keyed', 'plain'],
    });
  });

  it('reads files of many blocks, whatever lies across their borders', () => {
    const list = Array.from({ length: 20_000 }, (_, i) => ({ name: `zelle ${'ä'.repeat(i % 50)}`, number: i * 1.5 }));
    const told: number[] = [];
    writeFileSync(path, JSON.stringify({ list }));
    const elements: unknown[] = [];
    readJsonElements(path, { list: (element) => elements.push(element) }, (done, total) => told.push(done / total));
    expect(elements).toEqual(list);
    expect(told.length).toBeGreaterThan(3);
    expect(told.at(-1)).toBe(1);
  });

  it.each([
    ['{"list": [1, 2', 'is a truncated JSON file (it ends after 14 bytes)'],
    ['', 'is a truncated JSON file (it ends after 0 bytes)'],
    ['{"list": [1 2]}', 'is not valid JSON'],
    ['{"list": []} x', 'is not valid JSON'],
    ['[1]', 'holds no object'],
    ['7 ', 'holds no object'],
    ['{"list": 7}', '"list" is no list'],
    ['{"list": null}', '"list" is no list'],
  ])('refuses %j in one sentence', (text, part) => {
    expect(() => read(text, 'list')).toThrow(UserError);
    expect(() => read(text, 'list')).toThrow(part);
    expect(() => read(text, 'list')).toThrow(path);
  });
});
