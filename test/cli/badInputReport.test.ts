import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, it } from 'vitest';
import { removeFolders, temporaryFolder } from '../data/folders.ts';
import { smallestConfig } from '../train/tinyRun.ts';
import { type Answer, command, expectRefusal, good, writeWeights } from './support.ts';

afterAll(removeFolders);

describe('panels and report', () => {
  it('panels refuses what is missing or does not fit, and writes nothing', async () => {
    const weights = writeWeights(join(temporaryFolder(), 'w.safetensors'), smallestConfig({ numClasses: 2 }), [
      'round',
    ]);
    const folder = temporaryFolder();
    const data = good();
    const panels = (w: string, d: string, ...more: string[]): Promise<Answer> =>
      command('panels', '--weights', w, '--data', d, '--out', join(folder, 'out'), ...more);
    expectRefusal(await panels('/nowhere/w', data), folder, ['/nowhere/w']);
    expectRefusal(await panels(weights, '/nowhere/cells'), folder, ['/nowhere/cells']);
    expectRefusal(await panels(weights, data, '--images', 'a,c'), folder, ['--images c', data]);
    expectRefusal(await panels(weights, data, '--images', 'a,,b'), folder, ["'a,,b'", 'separated by commas']);
    expectRefusal(await panels(weights, data, '--indices', '0,2'), folder, ['--indices 2', '0 … 1']);
    expectRefusal(await panels(weights, data, '--indices', '0,-1'), folder, ["'0,-1'", 'whole number']);
    expectRefusal(await panels(weights, data, '--scale', '0'), folder, ['--scale', 'from 1']);
    const file = join(data, 'train.csv');
    const answer = await command('panels', '--weights', weights, '--data', data, '--out', file);
    expectRefusal(answer, folder, [file, 'is a file']);
  });

  it('report refuses a folder without a run, a broken one, and one whose pictures cannot be made', async () => {
    const folder = temporaryFolder();
    const report = (...more: string[]): Promise<Answer> => command('report', '--run', folder, ...more);
    expectRefusal(await command('report'), folder, ['--run', 'not specified']);
    expectRefusal(await command('report', '--run', '/nowhere/run'), folder, ['/nowhere/run']);
    expectRefusal(await report(), folder, [folder, 'no run', 'config.json']);
    writeFileSync(join(folder, 'config.json'), '{"data": "/nowhere/cells"}');
    writeFileSync(join(folder, 'metrics.jsonl'), 'no metrics\n');
    const left = ['config.json', 'metrics.jsonl'];
    expectRefusal(await report(), folder, ['metrics.jsonl, line 1'], left);
    writeFileSync(join(folder, 'metrics.jsonl'), '');
    expectRefusal(await report('--panels', '0'), folder, ['--panels', 'from 1'], left);
    expectRefusal(await report('--panels', '2'), folder, ['--panels', 'best.safetensors'], left);
    expectRefusal(await report('--out', join(folder, 'config.json', 'x.html')), folder, ['--out', 'config.json'], left);
    writeWeights(join(folder, 'best.safetensors'), smallestConfig({ numClasses: 2 }), ['round']);
    expectRefusal(await report('--panels', '2'), folder, ['/nowhere/cells'], ['best.safetensors', ...left]);
  });
});
