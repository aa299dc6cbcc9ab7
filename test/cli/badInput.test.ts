import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writePng } from '../../src/data/png.ts';
import { presetConfig } from '../../src/model/presets.ts';
import { writeSafetensors } from '../../src/model/safetensors.ts';
import { noise, removeFolders, temporaryFolder, writeDataset } from '../data/folders.ts';
import { smallestConfig } from '../train/tinyRun.ts';
import { type Answer, command, processOf, writeWeights } from './support.ts';

/** A data set with nothing wrong: two images of 12 × 10 with a cell each. */
const LINES = ['a,1 3 13 3,12,10,round', 'b,5 2 17 2,12,10,round'];
const good = (): string => writeDataset(LINES, ['a', 'b']);

afterAll(removeFolders);

/** One sentence, exit code 2, no device opened (that would be told) and nothing but `left` in the folder. */
function expectRefusal({ code, error, output }: Answer, folder: string, parts: string[], left: string[] = []): void {
  expect(error.trimEnd().split('\n'), error).toHaveLength(1);
  for (const part of parts) expect(error).toContain(part);
  expect(error).not.toContain('Computing on');
  expect(error).not.toMatch(/\bat .*:\d+:\d+/);
  expect(output).toBe('');
  expect(code).toBe(2);
  expect(readdirSync(folder)).toEqual(left);
}

describe('train', () => {
  const spoiled: [string, () => string, string[]][] = [
    ['no such folder', () => '/nowhere/cells', ['no such folder', '/nowhere/cells']],
    ['a file instead of a folder', () => join(good(), 'train.csv'), ['train.csv', 'not a folder']],
    ['no train.csv', () => temporaryFolder(), ['no train.csv']],
    [
      'a missing column',
      () => writeDataset(['a,1 3,12,10'], ['a'], 12, 10, 'id,annotation,width,height'),
      ['train.csv', '"cell_type"'],
    ],
    ['an unknown image id', () => writeDataset([...LINES, 'c,1 3,12,10,round'], ['a', 'b']), ['line 4', '"c"']],
    ['zero cells', () => writeDataset(['a,,12,10,', 'b,,12,10,'], ['a', 'b']), ['train.csv', 'no cells']],
    ['no row', () => writeDataset([], ['a']), ['train.csv', 'no rows']],
    [
      'a run beyond the image',
      () => writeDataset(['a,1 3,12,10,round', 'b,119 3,12,10,round'], ['a', 'b']),
      ['line 3', '119 3'],
    ],
    [
      'an odd run-length text',
      () => writeDataset(['a,1 3 9,12,10,round', 'b,1 3,12,10,round'], ['a', 'b']),
      ['line 2', '3 numbers'],
    ],
    [
      'another size than the table says',
      () => writeDataset(['a,1 3,12,10,round', 'b,1 3,13,10,round'], ['a', 'b']),
      ['line 3', '13 × 10', '12 × 10'],
    ],
    ['one image only', () => writeDataset(['a,1 3,12,10,round'], ['a']), ['validation', 'leaves none to validate on']],
    ['no PNG folder', () => withoutImages(), ['no such folder', 'train']],
    ['a truncated PNG', () => changed((png) => png.subarray(0, png.length - 20)), ['b.png', 'truncated']],
    ['a corrupt PNG', () => changed(flipped), ['b.png', 'corrupt']],
    ['a file that is no PNG', () => changed(() => Buffer.from('GIF89a')), ['b.png', 'not a PNG']],
  ];

  function withoutImages(): string {
    const dir = good();
    renameSync(join(dir, 'train'), join(dir, 'images'));
    return dir;
  }

  function changed(change: (png: Buffer) => Buffer): string {
    const dir = good();
    const path = join(dir, 'train', 'b.png');
    writeFileSync(path, change(readFileSync(path)));
    return dir;
  }

  function flipped(png: Buffer): Buffer {
    png[Math.floor(png.length / 2)] ^= 1;
    return png;
  }

  it.each(spoiled)('refuses data with %s', async (_, data, parts) => {
    const folder = temporaryFolder();
    expectRefusal(await command('train', '--data', data(), '--out', join(folder, 'run')), folder, parts);
  });

  it.each([
    [
      ['--preset', 'huge'],
      ["'huge'", 'tiny, resnet50'],
    ],
    [
      ['--preset', 'resnet05'],
      ["'resnet05'", "did you mean 'resnet50'?"],
    ],
    [
      ['--epochz', '3'],
      ["'--epochz'", 'Did you mean --epochs?'],
    ],
    [['extra'], ['too many arguments']],
    [['--epochs'], ['--epochs', 'argument missing']],
    [['--epochs', '0'], ['--epochs 0']],
    [
      ['--epochs', 'many'],
      ["'many'", 'number'],
    ],
    [
      ['--epochs', '1.5'],
      ["'1.5'", 'whole number'],
    ],
    [['--batch-size', '0'], ['--batch-size 0']],
    [['--lr', '-1'], ['--lr -1']],
    [
      ['--lr', 'NaN'],
      ["'NaN'", 'number'],
    ],
    [['--momentum', '1'], ['--momentum 1']],
    [
      ['--step-lr', '3'],
      ["'3'", 'EPOCHS,GAMMA'],
    ],
    [
      ['--anchors', '8,16,32,64'],
      ['--anchors 8,16,32,64', '5'],
    ],
    [
      ['--anchors', '8,16,32,64,x'],
      ['--anchors', 'number'],
    ],
    [['--validation', '1'], ['--validation 1']],
    [['--validation', '0'], ['--validation 0']],
    [
      ['--resize', '0.05'],
      ['0.05', 'a.png', '12 × 10'],
    ],
    [
      ['--adapter', 'cuda'],
      ['cuda', 'lavapipe'],
    ],
    [['--config', '/nowhere/options.json'], ['/nowhere/options.json']],
    [['--weights', '/nowhere/w.safetensors'], ['/nowhere/w.safetensors']],
  ])('refuses %j', async (args, parts) => {
    const folder = temporaryFolder();
    const answer = await command('train', '--data', good(), '--out', join(folder, 'run'), ...args);
    expectRefusal(answer, folder, parts);
  });

  it.each([
    ['{"epochs": 3', 'JSON'],
    ['{"epoch": 3}', "unknown option 'epoch', did you mean 'epochs'?"],
    ['{"model": {"boxDetectionPerImg": 3}}', "'model.boxDetectionPerImg', did you mean 'model.boxDetectionsPerImg'?"],
    ['{"epochs": -3}', 'epochs -3'],
    ['{"preset": "huge"}', "no preset 'huge'"],
    ['{"preset": "tinny"}', "did you mean 'tiny'?"],
    ['7', 'expected object'],
  ])('refuses the configuration %s', async (text, part) => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'options.json'), text);
    const config = join(folder, 'options.json');
    const answer = await command('train', '--data', good(), '--config', config, '--out', join(folder, 'run'));
    expectRefusal(answer, folder, [config, part], ['options.json']);
  });

  it('refuses a folder that holds a run, and one that would lie in a file', async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'config.json'), '{}');
    const again = await command('train', '--data', good(), '--out', folder);
    expectRefusal(again, folder, ['--out', 'holds a run already', '--resume'], ['config.json']);
    const inFile = await command('train', '--data', good(), '--out', join(folder, 'config.json', 'run'));
    expectRefusal(inFile, folder, ['config.json is a file'], ['config.json']);
  });

  it('refuses to go on with what is no run, or with other options', async () => {
    const folder = temporaryFolder();
    expectRefusal(await command('train', '--resume', folder), folder, [folder, 'holds no run']);
    expectRefusal(await command('train', '--resume', join(folder, 'x')), folder, ['no such folder']);
    const options = await command('train', '--resume', folder, '--epochs', '3');
    expectRefusal(options, folder, ['--resume takes all options from the run']);
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ data: good() }));
    const early = await command('train', '--resume', folder);
    expectRefusal(early, folder, ['no state', 'state.safetensors'], ['config.json']);
  });

  it('refuses to go on when the data have gone', async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ data: '/nowhere/cells' }));
    writeFileSync(join(folder, 'state.safetensors'), '');
    const gone = await command('train', '--resume', folder);
    expectRefusal(gone, folder, ['/nowhere/cells'], ['config.json', 'state.safetensors']);
  });

  const tiny = presetConfig('tiny', { numClasses: 2, inputSize: { width: 12, height: 10 } });
  const weightFaults: [string, (path: string) => void, string[]][] = [
    [
      'another architecture',
      (path) =>
        writeWeights(path, presetConfig('tiny', { numClasses: 4, inputSize: { width: 12, height: 10 } }), [
          'a',
          'b',
          'c',
        ]),
      ['roi_heads.box_predictor.cls_score.weight', '[4,64]', '[2,64]'],
    ],
    [
      'a smaller backbone',
      (path) => writeWeights(path, smallestConfig({ numClasses: 2 }), ['round']),
      ['backbone.body.conv1.weight', '[8,3,7,7]', '[16,3,7,7]'],
    ],
    [
      'a parameter missing',
      (path) => writeWeights(path, tiny, ['round'], (shapes) => shapes.delete('rpn.head.bbox_pred.bias')),
      ['rpn.head.bbox_pred.bias', '[12]'],
    ],
    [
      'its end cut off',
      (path) => {
        writeWeights(path, tiny, ['round']);
        const bytes = readFileSync(path);
        writeFileSync(path, bytes.subarray(0, bytes.length - 100));
      },
      ['cut short', 'tensor'],
    ],
    ['another format', (path) => writeFileSync(path, 'PK\u0003\u0004 not weights at all'), ['not a safetensors file']],
    [
      'no metadata of this program',
      (path) => writeSafetensors(path, [{ name: 'x', dtype: 'F32', shape: [1], data: new Float32Array(1) }]),
      ['written by this program'],
    ],
  ];

  it.each(weightFaults)('refuses weights with %s', async (_, write, parts) => {
    const folder = temporaryFolder();
    const path = join(folder, 'w.safetensors');
    write(path);
    const answer = await command(
      'train',
      '--data',
      good(),
      '--resize',
      '1',
      '--weights',
      path,
      '--out',
      join(folder, 'run'),
    );
    expectRefusal(answer, folder, [path, ...parts], ['w.safetensors']);
  });
});

describe('evaluate and predict', () => {
  let weights: string;
  let images: string;

  beforeAll(() => {
    weights = writeWeights(join(temporaryFolder(), 'w.safetensors'), smallestConfig({ numClasses: 2 }), ['round']);
    images = temporaryFolder();
    for (const id of ['a', 'b']) writePng(join(images, `${id}.png`), 12, 10, noise(12, 10, 1));
  });

  it('evaluate refuses what is missing or does not fit, and writes no scores', async () => {
    const folder = temporaryFolder();
    const json = join(folder, 'scores.json');
    const evaluate = (w: string, d: string, ...more: string[]): Promise<Answer> =>
      command('evaluate', '--weights', w, '--data', d, '--json', json, ...more);
    expectRefusal(await command('evaluate', '--data', good()), folder, ['--weights', 'not specified']);
    expectRefusal(await evaluate('/nowhere/w', good()), folder, ['/nowhere/w']);
    expectRefusal(await evaluate(weights, '/nowhere/cells'), folder, ['/nowhere/cells']);
    expectRefusal(await evaluate(weights, good(), '--batch-size', '0'), folder, ['--batch-size', 'from 1']);
    const other = writeDataset(['a,1 3,12,10,branched', 'b,1 3,12,10,round'], ['a', 'b']);
    expectRefusal(await evaluate(weights, other), folder, ['line 2', '"branched"', 'round']);
  });

  it('evaluate refuses weights whose parameters are not those of their own metadata', async () => {
    const folder = temporaryFolder();
    const path = writeWeights(join(folder, 'w.safetensors'), smallestConfig({ numClasses: 2 }), ['round'], (shapes) =>
      shapes.set('backbone.body.bn1.weight', [9]),
    );
    const answer = await command('evaluate', '--weights', path, '--data', good());
    expectRefusal(answer, folder, [path, 'backbone.body.bn1.weight', '[9]', '[8]'], ['w.safetensors']);
  });

  it('predict refuses what is missing, and finds a broken image before it writes the first overlay', async () => {
    const folder = temporaryFolder();
    const predict = (w: string, from: string, ...more: string[]): Promise<Answer> =>
      command('predict', '--weights', w, '--images', from, '--out', join(folder, 'out'), ...more);
    expectRefusal(await predict('/nowhere/w', images), folder, ['/nowhere/w']);
    expectRefusal(await predict(weights, '/nowhere/images'), folder, ['/nowhere/images']);
    const none = temporaryFolder();
    expectRefusal(await predict(weights, none), folder, ['no PNG files', none]);
    expectRefusal(await predict(weights, images, '--resize', '0'), folder, ['--resize', 'above 0']);
    expectRefusal(await predict(weights, images, '--resize', '0.05'), folder, ['0.05', 'a.png']);
    const broken = join(images, 'c.png');
    writeFileSync(broken, readFileSync(join(images, 'a.png')).subarray(0, 40));
    expectRefusal(await predict(weights, images), folder, [broken, 'truncated']);
  });
});

describe('the program', () => {
  it('refuses an unknown command, and without one shows what there is', async () => {
    const folder = temporaryFolder();
    expectRefusal(await command('trian'), folder, ["'trian'", 'Did you mean train?']);
    const nothing = await command();
    expect(nothing.code).toBe(2);
    for (const name of ['train', 'evaluate', 'predict', 'verify', 'doctor']) expect(nothing.error).toContain(name);
  });

  it.each(['train', 'evaluate', 'select', 'tune', 'predict', 'verify', 'doctor'])(
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
