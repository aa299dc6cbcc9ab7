import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { COMPETITION_FOLDERS, DATA_VARIABLE, findCompetitionData } from '../../src/cli/dataFolder.ts';
import { UserError } from '../../src/cli/errors.ts';
import { removeFolders, temporaryFolder, writeDataset } from '../data/folders.ts';
import { command } from './support.ts';

afterAll(removeFolders);

function put(dir: string): string {
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, 'train.csv'), '');
  return dir;
}

describe('findCompetitionData', () => {
  it('goes by the variable first, then by the folders in their order', () => {
    const work = join(temporaryFolder(), 'work');
    const folders = COMPETITION_FOLDERS.slice(0, 3);
    const [data, input, above] = folders.map((dir) => join(work, dir));
    put(above);
    expect(findCompetitionData({}, work)).toBe(folders[2]);
    put(input);
    expect(findCompetitionData({}, work)).toBe(folders[1]);
    put(data);
    expect(findCompetitionData({}, work)).toBe(folders[0]);
    expect(findCompetitionData({ [DATA_VARIABLE]: '' }, work)).toBe(folders[0]);
    const named = put(temporaryFolder());
    expect(findCompetitionData({ [DATA_VARIABLE]: named }, work)).toBe(named);
  });

  it('takes no folder without a train.csv, and lists where it looked', () => {
    const work = temporaryFolder();
    mkdirSync(join(work, 'input'));
    const find = (): string => findCompetitionData({}, work);
    expect(find).toThrow(UserError);
    for (const part of [...COMPETITION_FOLDERS, '--data', DATA_VARIABLE]) expect(find).toThrow(part);
  });

  it('refuses a variable that leads nowhere rather than going on', () => {
    const work = temporaryFolder();
    put(join(work, 'input'));
    expect(() => findCompetitionData({ [DATA_VARIABLE]: '/nowhere' }, work)).toThrow(
      `${DATA_VARIABLE} is /nowhere, but there is no train.csv in it`,
    );
  });

  it('serves the presets of the competition only, where no data are named', async () => {
    const before = process.env[DATA_VARIABLE];
    // A split that leaves nothing tells which data were opened, before anything is computed.
    const data = writeDataset(['a,1 3 13 3,12,10,astro'], ['a']);
    process.env[DATA_VARIABLE] = data;
    try {
      const out = join(temporaryFolder(), 'run');
      const train = (...args: string[]) => command('train', '--out', out, ...args);
      const found = await train('--preset', 'sartorius-v51');
      expect([found.code, found.error]).toEqual([2, expect.stringContaining(`${data}: cannot split by type`)]);
      const other = writeDataset(['a,1 3 13 3,12,10,astro'], ['a']);
      const named = await train('--preset', 'sartorius-v51', '--data', other);
      expect(named.error).toContain(`${other}: cannot split by type`);
      // The synthetic cells: there are 72 of them, so that a share that small is accepted and another option refused.
      const synthetic = await train('--weights', '/nowhere/w.safetensors');
      expect([synthetic.code, synthetic.error]).toEqual([2, expect.stringContaining('/nowhere/w.safetensors')]);
      process.env[DATA_VARIABLE] = '/nowhere';
      expect((await train('--preset', 'sartorius-fasterrcnn')).error).toContain(`${DATA_VARIABLE} is /nowhere`);
      expect((await train('--weights', '/nowhere/w.safetensors')).error).toContain('/nowhere/w.safetensors');
    } finally {
      if (before === undefined) delete process.env[DATA_VARIABLE];
      else process.env[DATA_VARIABLE] = before;
    }
  });
});
