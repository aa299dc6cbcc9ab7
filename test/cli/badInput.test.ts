import { readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writePng } from '../../src/data/png.ts';
import { swiftshaderFitsPlatform } from '../../src/gpu/swiftshader.ts';
import { presetConfig } from '../../src/model/presets.ts';
import { writeSafetensors } from '../../src/model/safetensors.ts';
import { noise, removeFolders, temporaryFolder, writeDataset } from '../data/folders.ts';
import { type CocoParts, cocoParts, writeCocoDataset } from '../data/formats/cocoFolder.ts';
import { smallestConfig } from '../train/tinyRun.ts';
import { type Answer, command, expectRefusal, good, LINES, writeWeights } from './support.ts';

afterAll(removeFolders);

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
    [
      'a polygon of two points',
      () => coco(({ annotations }) => Object.assign(annotations[0], { segmentation: [[1, 1, 5, 5]] })),
      ['cells.json', 'annotation 31', '2 points'],
    ],
    [
      'a crowd of the wrong size',
      () => coco(({ annotations }) => Object.assign(annotations[2], { segmentation: { size: [6, 8], counts: [48] } })),
      ['cells.json', 'annotation 33', '8 × 6', '12 × 10'],
    ],
    [
      'a crowd whose lengths do not fill it',
      () =>
        coco(({ annotations }) => Object.assign(annotations[2], { segmentation: { size: [10, 12], counts: [48] } })),
      ['cells.json', 'annotation 33', '48 pixels', '120'],
    ],
    [
      'an annotation id twice',
      () => coco(({ annotations }) => Object.assign(annotations[1], { id: 31 })),
      ['31', 'twice'],
    ],
    [
      'an image id twice',
      () => coco(({ images }) => Object.assign(images[1], { id: 70 })),
      ['id 70', 'a.png', 'b.png'],
    ],
    [
      'an image name twice',
      () => coco(({ images }) => Object.assign(images[1], images[0], { id: 5 })),
      ['"a"', 'a.png twice'],
    ],
    ['a truncated COCO file', () => truncatedCoco(), ['cells.json', 'truncated']],
    ['two COCO files', () => severalCoco(), ['several data sets', 'a.coco.json', 'b.coco.json']],
    ['a label image of another size', () => labelled(11), ['a_masks.png', '11 × 10', 'a.png', '12 × 10']],
    ['an image twice', () => labelled(12, 'a.tif'), ['a.png', 'a.tif', '"a"']],
    ['an image without label image', () => labelled(12, 'b.png'), ['b.png', 'no label image']],
  ];

  function coco(spoil: (parts: CocoParts) => void): string {
    const parts = cocoParts();
    spoil(parts);
    return join(writeCocoDataset(parts), 'cells.json');
  }

  function truncatedCoco(): string {
    const path = coco(() => undefined);
    writeFileSync(path, readFileSync(path).subarray(0, 200));
    return path;
  }

  function severalCoco(): string {
    const dir = temporaryFolder();
    for (const name of ['a.coco.json', 'b.coco.json']) writeFileSync(join(dir, name), '{}');
    return dir;
  }

  /** a.png of 12 × 10 with a label image of `width` × 10, and another picture. */
  function labelled(width: number, other?: string): string {
    const dir = temporaryFolder();
    for (const name of ['a.png', ...(other === undefined ? [] : [other])]) {
      writePng(join(dir, name), 12, 10, noise(12, 10, 1));
    }
    writePng(join(dir, 'a_masks.png'), width, 10, new Uint16Array(width * 10).fill(1));
    return dir;
  }

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
    [
      ['--split', 'random'],
      ["'random'", 'balanced, notebook'],
    ],
    [
      ['--split', 'notebook', '--split-seed', '4294967296'],
      ['4294967296', '4294967295'],
    ],
    [
      ['--split-file', '/nowhere/split.json'],
      ['no such split file', '/nowhere/split.json'],
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
    ['another format', (path) => writeFileSync(path, 'id,annotation,not weights at all'), ['not a safetensors file']],
    [
      'tensors of something else',
      (path) => writeSafetensors(path, [{ name: 'x', dtype: 'F32', shape: [1], data: new Float32Array(1) }]),
      ['does not fit the model', 'lacks backbone.body.conv1.weight [16,3,7,7]', 'does not have its x [1]'],
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
    const png = join(folder, 'curves.png');
    expectRefusal(await evaluate(weights, good(), '--curves', png), folder, ['--curves', 'curves.png', '.svg']);
    const inFile = join(weights, 'curves.svg');
    expectRefusal(await evaluate(weights, good(), '--curves', inFile), folder, [
      '--curves',
      'is a file, expected a folder',
    ]);
    expectRefusal(await command('evaluate', '--weights', weights, '--data', good(), '--json', folder), folder, [
      '--json',
      'expected a file',
    ]);
    const other = writeDataset(['a,1 3,12,10,branched', 'b,1 3,12,10,round'], ['a', 'b']);
    expectRefusal(await evaluate(weights, other), folder, ['line 2', '"branched"', 'round']);
    const unseen = join(writeCocoDataset(), 'cells.json');
    expectRefusal(await evaluate(weights, unseen), folder, ['cells.json', 'annotation 5', '"spindle"', 'round']);
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
    expectRefusal(await predict(weights, none), folder, ['no image files', none]);
    expectRefusal(await predict(weights, images, '--resize', '0'), folder, ['--resize', 'above 0']);
    expectRefusal(await predict(weights, images, '--resize', '0.05'), folder, ['0.05', 'a.png']);
    const broken = join(images, 'c.png');
    writeFileSync(broken, readFileSync(join(images, 'a.png')).subarray(0, 40));
    expectRefusal(await predict(weights, images), folder, [broken, 'truncated']);
  });
});

describe('--precision', () => {
  it.skipIf(!swiftshaderFitsPlatform)(
    'f16 is refused where the adapter has no 16-bit floats, and nothing is written',
    async () => {
      const weights = writeWeights(join(temporaryFolder(), 'w.safetensors'), smallestConfig({ numClasses: 2 }), [
        'round',
      ]);
      const images = temporaryFolder();
      writePng(join(images, 'a.png'), 12, 10, noise(12, 10, 1));
      const folder = temporaryFolder();
      const out = join(folder, 'out');
      const precision = ['--precision', 'f16', '--adapter', 'swiftshader'];
      const commands = [
        ['train', '--out', out],
        ['predict', '--weights', weights, '--images', images, '--out', out],
        ['evaluate', '--weights', weights, '--data', good(), '--json', out],
      ];
      for (const args of commands) {
        const answer = await command(...args, ...precision);
        expectRefusal(answer, folder, ['--precision f16', 'SwiftShader', 'shader-f16', '--precision f32']);
      }
    },
  );

  it('must be one that there is', async () => {
    const { code, error } = await command('train', '--precision', 'f64');
    expect(code).toBe(2);
    expect(error).toContain("'f64' is invalid");
  });
});

describe('convert', () => {
  const to = (folder: string, ...args: string[]): Promise<Answer> =>
    command('convert', '--out', join(folder, 'out'), ...args);

  it('refuses what is missing or unknown, and writes nothing', async () => {
    const folder = temporaryFolder();
    expectRefusal(await to(folder, '--format', 'coco'), folder, ['--data', 'not specified']);
    expectRefusal(await to(folder, '--data', good()), folder, ['--format', 'not specified']);
    expectRefusal(await to(folder, '--data', good(), '--format', 'voc'), folder, [
      "'voc'",
      'competition, coco, labels',
    ]);
    expectRefusal(await to(folder, '--data', '/nowhere/cells', '--format', 'coco'), folder, ['/nowhere/cells']);
    const faulty = writeDataset(['a,1 3 9,12,10,round'], ['a']);
    expectRefusal(await to(folder, '--data', faulty, '--format', 'coco'), folder, ['line 2', '3 numbers']);
    const crowds = cocoParts();
    for (const annotation of crowds.annotations) annotation.iscrowd = 1;
    const crowd = join(writeCocoDataset(crowds), 'cells.json');
    expectRefusal(await to(folder, '--data', crowd, '--format', 'labels'), folder, ['no cells', 'crowd']);
  });

  it('refuses a folder that is not empty, and one that would lie in a file', async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'notes.txt'), '');
    const data = ['--data', good(), '--format', 'labels'];
    expectRefusal(await command('convert', ...data, '--out', folder), folder, ['--out', 'not empty'], ['notes.txt']);
    const inFile = await command('convert', ...data, '--out', join(folder, 'notes.txt', 'out'));
    expectRefusal(inFile, folder, ['notes.txt is a file'], ['notes.txt']);
  });

  it('says what it wrote and what was lost', async () => {
    const folder = temporaryFolder();
    const { code, error, output } = await to(
      folder,
      '--data',
      join(writeCocoDataset(), 'cells.json'),
      '--format',
      'labels',
    );
    expect([code, output]).toEqual([0, '']);
    expect(error).toContain('left out: 1');
    expect(error).toContain(`2 images and 2 cells of spindle, round, never: ${join(folder, 'out')}`);
    expect(readdirSync(join(folder, 'out')).sort()).toEqual([
      'a.png',
      'a_masks.png',
      'b.png',
      'b_masks.png',
      'cell_types.csv',
    ]);
  });
});
