import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  entryOf,
  inspectJournal,
  JournalWriter,
  predictionOf,
  readJournal,
  replaceHeader,
} from '../../src/predict/journal.ts';
import { removeFolders, temporaryFolder } from '../data/folders.ts';
import { header, randomPrediction, TWO_CELLS, writeJournal } from './support.ts';

afterAll(removeFolders);

const files = Array.from({ length: 6 }, (_, i) => ({
  id: randomPrediction(i).id,
  fingerprint: `${i}`,
  path: `${i}.png`,
}));
const whole = { index: 1, of: 1 };
const journal = (done: number): string => writeJournal(temporaryFolder(), 6, whole, { done });
const predictions = (path: string) =>
  [...readJournal(path).entries].map(({ entry, where }) => predictionOf(entry, where));

describe('the journal', () => {
  it('gives back what was noted', () => {
    expect(predictionOf(entryOf(TWO_CELLS, 'x'), 'here')).toEqual(TWO_CELLS);
    const path = journal(6);
    expect(predictions(path)).toEqual(files.map((_, i) => randomPrediction(i)));
    expect(readJournal(path).header).toEqual(header(6));
  });

  it('holds boxes without masks', () => {
    const boxes = { ...TWO_CELLS, cells: TWO_CELLS.cells.map(({ mask, ...cell }) => cell) };
    expect(predictionOf(entryOf(boxes, 'x'), 'here')).toEqual(boxes);
  });

  it('goes on after the last whole line, wherever a writer was stopped', () => {
    const path = journal(3);
    const before = readFileSync(path);
    const line = `${JSON.stringify(entryOf(randomPrediction(3), '3'))}\n`;
    for (const torn of [0, 1, 17, line.length - 1]) {
      writeFileSync(path, Buffer.concat([before, Buffer.from(line.slice(0, torn))]));
      const state = inspectJournal(path, header(6), files);
      expect(state).toMatchObject({ done: 3, end: before.length });
      const writer = JournalWriter.continue(path, before.length);
      for (let i = 3; i < 6; i++) writer.append(entryOf(randomPrediction(i), `${i}`));
      writer.close();
      expect(readFileSync(path)).toEqual(readFileSync(journal(6)));
    }
    expect(inspectJournal(join(path, '..', 'other'), header(6), files)).toBeUndefined();
  });

  it('reads lines longer than a piece of the file, and letters of several bytes across its border', () => {
    const path = join(temporaryFolder(), 'j');
    const ids = ['ä'.repeat(70_001), '°'.repeat(40_000)];
    const writer = JournalWriter.create(path, header(2, { classes: ['ß'] }));
    ids.forEach((id, position) => {
      writer.append({ position, id, fingerprint: '', width: 1, height: 1, cells: [] });
    });
    writer.close();
    const read = [...readJournal(path).entries];
    expect(read.map(({ entry }) => entry.id)).toEqual(ids);
    expect(read[1].end).toBe(readFileSync(path).length);
  });

  it('takes another header and keeps its lines', () => {
    const path = journal(4);
    appendFileSync(path, '{"position":4');
    const bytes = replaceHeader(path, header(6, { formats: ['labels'] }));
    expect(bytes).toBe(readFileSync(path).length);
    expect(readJournal(path).header.formats).toEqual(['labels']);
    expect(predictions(path)).toHaveLength(4);
    expect(readFileSync(path, 'utf8').endsWith('\n')).toBe(true);
  });

  it('refuses another run, and says which facts differ', () => {
    const path = journal(2);
    const refusal = (given: Parameters<typeof header>[1]) => () => inspectJournal(path, header(6, given), files);
    expect(refusal({ formats: ['labels'] })).not.toThrow();
    expect(refusal({ weights: 'v' })).toThrow('other weights: expected the same to go on, another --out, or --restart');
    expect(refusal({ resize: 0.5 })).toThrow('--resize 1:');
    expect(refusal({ precision: 'f32' })).not.toThrow();
    expect(refusal({ precision: 'f16' })).toThrow('--precision f32:');
    expect(refusal({ batchSize: 2, shard: { index: 2, of: 3 } })).toThrow('--batch-size 1 and --shard 1/1:');
    expect(refusal({ images: { count: 6, sha256: 'more' } })).toThrow('other images (6)');
  });

  it('refuses an image that has changed, but not one that is not done yet', () => {
    const path = journal(2);
    const changed = (i: number) => files.map((file, k) => (k === i ? { ...file, fingerprint: 'new' } : file));
    expect(() => inspectJournal(path, header(6), changed(1))).toThrow('1.png has changed since it was predicted');
    expect(inspectJournal(path, header(6), changed(2))).toMatchObject({ done: 2 });
  });

  it('refuses what is damaged', () => {
    const path = journal(3);
    const lines = readFileSync(path, 'utf8').split('\n');
    const refusal = (changed: string[]) => () => {
      writeFileSync(path, changed.join('\n'));
      return inspectJournal(path, header(6), files);
    };
    expect(refusal(['{}', ...lines.slice(1)])).toThrow('is no record of a prediction run');
    expect(refusal([])).toThrow('is no record of a prediction run');
    expect(refusal([lines[0], '{"position":0}', ...lines.slice(2)])).toThrow('line 2 is damaged');
    expect(refusal([lines[0], lines[1], lines[1], ''])).toThrow('line 3: it has image number 1, expected 2');
    expect(refusal([lines[0], lines[2], ''])).toThrow('line 2: it has image number 2, expected 1');
    const size = lines[1].replace('"width":12', '"width":13');
    writeFileSync(path, [lines[0], size, ''].join('\n'));
    expect(() => predictions(path)).toThrow('line 2: the run lengths add up');
  });
});
