import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { removeFolders, temporaryFolder } from '../data/folders.ts';
import { command, expectRefusal, processOf } from './support.ts';

afterAll(removeFolders);

describe('the program', () => {
  it('refuses an unknown command, and without one shows what there is', async () => {
    const folder = temporaryFolder();
    expectRefusal(await command('trian'), folder, ["'trian'", 'Did you mean train?']);
    const nothing = await command();
    expect(nothing.code).toBe(2);
    for (const name of ['train', 'evaluate', 'predict', 'panels', 'report', 'convert', 'verify', 'doctor'])
      expect(nothing.error).toContain(name);
  });

  it.each(['train', 'evaluate', 'select', 'tune', 'predict', 'panels', 'report', 'profile', 'verify', 'doctor'])(
    'shows the help of %s',
    async (name) => {
      const { code, output, error } = await command(name, '--help');
      expect([code, error]).toEqual([0, '']);
      expect(output).toContain(`webgpu-mask-rcnn ${name}`);
      expect(output).toContain('--adapter');
    },
  );

  it('answers the same as a process of its own', () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, 'data'));
    const args = ['train', '--data', join(folder, 'data'), '--out', join(folder, 'run')];
    expectRefusal(processOf(...args), folder, ['no train.csv'], ['data']);
  });
});
