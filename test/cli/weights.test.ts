import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openModel } from '../../src/cli/loadModel.ts';
import { writePiecesAtomic } from '../../src/data/files.ts';
import { writePng } from '../../src/data/png.ts';
import { Random } from '../../src/data/random.ts';
import { openWeightsFile } from '../../src/model/checkpoints/openWeightsFile.ts';
import { type LazyTensor, writeTorchTo } from '../../src/model/checkpoints/writeWeights.ts';
import { type MaskRCNNConfig, parseConfig } from '../../src/model/config.ts';
import { MaskRCNN } from '../../src/model/maskRcnn.ts';
import { presetConfig } from '../../src/model/presets.ts';
import { openCheckpoint } from '../../src/train/checkpoint.ts';
import { completeTrainOptions } from '../../src/train/options.ts';
import { allocateRun, planRun } from '../../src/train/run.ts';
import { noise, removeFolders, temporaryFolder } from '../data/folders.ts';
import { testDevice } from '../support/device.ts';
import { blobDataset } from '../train/tinyRun.ts';
import { command } from './support.ts';

afterAll(removeFolders);

/** torchvision's defaults for all that shapes do not tell. */
const foreign = parseConfig(
  {
    ...{ block: 'basic', layers: [1, 1, 1, 1], width: 8, norm: 'frozen', fpnChannels: 8, representationSize: 16 },
    ...{ maskLayers: [8], maskDimReduced: 8, numClasses: 3 },
  },
  'test',
);

/** Weights as PyTorch users have them: initial values in a file of torch.save, without a word about the model. */
async function writeForeign(
  file: string,
  config: MaskRCNNConfig,
  rename: (name: string) => string | null = (name) => name,
  more: readonly LazyTensor[] = [],
): Promise<void> {
  const random = new Random(9);
  const tensors = [...new MaskRCNN(config).state.entries.values()].flatMap(({ name, shape, init }): LazyTensor[] => {
    const data = init(shape, random) as Float32Array<ArrayBuffer>;
    const renamed = rename(name);
    return renamed === null ? [] : [{ name: renamed, shape, dtype: 'F32', values: async () => data }];
  });
  await writePiecesAtomic(file, (write) => writeTorchTo(write, [...tensors, ...more], {}));
}

const oldName = (name: string): string =>
  name
    .replace('rpn.head.conv.0.0.', 'rpn.head.conv.')
    .replace(/mask_head\.(\d+)\.0\./, (_, i) => `mask_head.mask_fcn${Number(i) + 1}.`)
    .replace(/(inner|layer)_blocks\.(\d)\.0\./, '$1_blocks.$2.');
const bareName = (name: string): string | null => /^backbone\.body\.(.*)$/.exec(name)?.[1] ?? null;

let folder: string;
const path = (name: string): string => join(folder, name);
beforeAll(async () => {
  folder = temporaryFolder();
  await writeForeign(path('torch.pth'), foreign);
});

describe('weights of other programs', () => {
  it('tell their model by their shapes; the classes get numbers', async () => {
    const { info, named } = await openModel(path('torch.pth'));
    expect(info.config).toEqual(foreign);
    expect(info.classes).toEqual(['class 1', 'class 2']);
    expect(info).toMatchObject({ resize: 1, epoch: 0, thresholds: { minScore: [expect.anything(), 0.5, 0.5] } });
    expect(named).toBe(false);
  });

  it('take names, a preset’s options and an eps from the user', async () => {
    const { info, named } = await openModel(path('torch.pth'), { classes: ['x', 'y'], batchNormEps: 0 });
    expect(info.classes).toEqual(['x', 'y']);
    expect(info.config).toEqual({ ...foreign, batchNormEps: 0 });
    expect(named).toBe(true);
    const tiny = presetConfig('tiny', { numClasses: 4, inputSize: { width: 704, height: 520 } });
    await writeForeign(path('tiny.pth'), tiny);
    expect((await openModel(path('tiny.pth'), { preset: 'tiny' })).info.config).toEqual(tiny);
  });

  it('predict at once, and say what was taken', async () => {
    const images = temporaryFolder();
    writePng(join(images, 'a.png'), 40, 32, noise(40, 32, 1));
    const flags = ['--weights', path('torch.pth'), '--images', images, '--out', path('found'), '--resize', '0.5'];
    const adapter = process.env.WEBGPU_ADAPTER ?? 'auto';
    const { code, error } = await command('predict', ...flags, '--adapter', adapter);
    expect(error).toContain(
      'torch.pth (torch zip) tells no architecture; by its shapes it is a Mask R-CNN on a ResNet of basic blocks [1, 1, 1, 1], width 8; 2 classes (give their names with --classes).',
    );
    expect(error).toContain("Batch norm eps 0.00001: PyTorch's default");
    expect(code).toBe(0);
    expect(existsSync(path('found/submission.csv'))).toBe(true);
  });

  it('are refused in one sentence where that is not enough', async () => {
    const data = blobDataset();
    for (const [flags, message] of [
      [[], 'does not name its 2 classes; name them in the order of their labels, --classes a,b,c, as the data do.'],
      [['--classes', 'disc'], '--classes names 1 classes, but'],
      [['--classes', 'disc,'], "'disc,' is invalid: expected names"],
      [['--preset', 'huge'], "'huge'"],
      [['--preset', 'resnet50'], 'does not fit the model'],
      [['--batch-norm-eps', '-1'], 'expected a number from 0'],
    ] as const) {
      const answer = await command('evaluate', '--data', data, '--weights', path('torch.pth'), ...flags);
      expect(answer.error.trimEnd().split('\n'), answer.error).toHaveLength(1);
      expect(answer.error).toContain(message);
      expect([answer.code, answer.output]).toEqual([2, '']);
    }
  });
});

describe('convert-weights', () => {
  it('goes to safetensors and back, with the model in both, byte for byte', async () => {
    const there = path('there.safetensors');
    const flags = ['--classes', 'x,y', '--batch-norm-eps', '0'];
    const answer = await command('convert-weights', path('torch.pth'), there, ...flags);
    expect(answer).toMatchObject({ code: 0, output: '' });
    expect(answer.error).toMatch(/there\.safetensors: 96 tensors, [\d.]+ MB\n$/);
    const { info, file } = openCheckpoint(there);
    expect(info.config).toEqual({ ...foreign, batchNormEps: 0 });
    expect(info.classes).toEqual(['x', 'y']);
    file.close();
    await command('convert-weights', there, path('back.pth'));
    await command('convert-weights', path('back.pth'), path('again.safetensors'));
    expect(readFileSync(path('again.safetensors')).equals(readFileSync(there))).toBe(true);
    const [original, back] = [await openWeightsFile(path('torch.pth')), await openWeightsFile(path('back.pth'))];
    expect([...back.tensors.keys()]).toEqual([...original.tensors.keys()]);
    for (const name of original.tensors.keys()) expect(await back.read(name), name).toEqual(await original.read(name));
    for (const { close } of [original, back]) close();
    // Names and eps may be corrected; the rest is told.
    const corrected = await openModel(path('back.pth'), { classes: ['z', 'y'], batchNormEps: 1e-5 });
    expect(corrected.info).toMatchObject({ config: foreign, classes: ['z', 'y'] });
    await expect(openModel(path('back.pth'), { preset: 'tiny' })).rejects.toThrow('tells its architecture itself');
  });

  it('brings old names up to date', async () => {
    await writeForeign(path('old.pth'), foreign, oldName);
    await command('convert-weights', path('old.pth'), path('new.pt'));
    await command('convert-weights', path('torch.pth'), path('same.pt'));
    expect(readFileSync(path('new.pt')).equals(readFileSync(path('same.pt')))).toBe(true);
  });

  it.each([
    // In the backbone twelve norms, each with a counter behind its variance; in v2's heads eight more in the pyramid, one in each.
    ['the backbone', foreign, 12],
    ['the backbone and the heads', { ...foreign, headNorm: 'batch', boxConvLayers: [8] } as MaskRCNNConfig, 22],
  ])('adds the counters of BatchNorm2d that PyTorch asks for: in %s', async (_, config, count) => {
    const name = 'backbone.body.bn1.num_batches_tracked';
    const counter: LazyTensor = { name, shape: [], dtype: 'I64', values: async () => Int32Array.of(7) };
    await writeForeign(path('batch.pth'), config, undefined, [counter]);
    await command('convert-weights', path('batch.pth'), path('counted.pth'));
    const counted = await openWeightsFile(path('counted.pth'));
    const names = [...counted.tensors.keys()];
    const counters = names.filter((own) => own.endsWith('num_batches_tracked'));
    expect(counters).toHaveLength(count);
    for (const own of counters) {
      expect(names[names.indexOf(own) - 1]).toBe(own.replace('num_batches_tracked', 'running_var'));
    }
    counted.close();
  });

  it('writes half the bytes on request', async () => {
    const { error } = await command('convert-weights', '--f16', path('torch.pth'), path('half.bin'));
    expect(error).toMatch(/, float16\n$/);
    const half = await openWeightsFile(path('half.bin'));
    expect([...half.tensors.values()].every(({ dtype }) => dtype === 'F16')).toBe(true);
    half.close();
  });

  it('takes tensors that are no detector as they are, and says so', async () => {
    await writeForeign(path('resnet.pth'), foreign, bareName);
    const { code, error } = await command('convert-weights', path('resnet.pth'), path('resnet.safetensors'));
    expect(code).toBe(0);
    expect(error).toContain('holds a ResNet alone');
    expect(error).toContain('converted as they are');
    const [from, to] = [await openWeightsFile(path('resnet.pth')), await openWeightsFile(path('resnet.safetensors'))];
    expect(to.metadata).toEqual({});
    expect([...to.tensors.keys()].sort()).toEqual([...from.tensors.keys()].sort());
    for (const { close } of [from, to]) close();
  });

  it.each([
    [['/nowhere.pth', 'out.pth'], 'There is no file /nowhere.pth.'],
    [['torch.pth', 'out.onnx'], 'out.onnx: expected an ending of .safetensors, .pth, .pt, .bin.'],
    [['torch.pth'], "missing required argument 'out'"],
    [['torch.pth', 'out.pth', '--classes', 'a'], '--classes names 1 classes'],
  ])('refuses %j, and writes nothing', async (args, message) => {
    const before = readdirSync(folder);
    const given = args.map((text) => (/^[a-z].*\.[a-z]+$/.test(text) ? path(text) : text));
    const { code, error } = await command('convert-weights', ...given);
    expect(error.trimEnd().split('\n')).toHaveLength(1);
    expect(error).toContain(message);
    expect(code).toBe(2);
    expect(readdirSync(folder)).toEqual(before);
  });

  it('leaves nothing half-written where a value has no float16', async () => {
    const tensors = [1, 1e6].map(
      (value, i): LazyTensor => ({
        name: `t${i}`,
        shape: [1],
        dtype: 'F32',
        values: async () => Float32Array.of(value),
      }),
    );
    await writePiecesAtomic(path('large.pth'), (write) => writeTorchTo(write, tensors, {}));
    mkdirSync(path('empty'));
    const { code, error } = await command('convert-weights', '--f16', path('large.pth'), path('empty/out.pth'));
    expect(error).toContain("Tensor 't1' holds 1000000 at index 0, more than float16 can.");
    expect(code).toBe(2);
    expect(readdirSync(path('empty'))).toEqual([]);
  });
});

describe('training from weights of other programs', () => {
  let data: string;
  beforeAll(() => {
    data = blobDataset();
  });
  const options = (given: object) => completeTrainOptions({ data, resize: 1, validation: 0.3, ...given });

  async function planned(file: string, given: object = {}) {
    const weights = await openWeightsFile(file);
    return { run: planRun(options({ weights: file, ...given }), data, 'never written', weights), weights };
  }

  const tinyFor = (numClasses: number): MaskRCNNConfig =>
    presetConfig('tiny', { numClasses, inputSize: { width: 96, height: 80 } });

  it('keeps all but the predictors where the classes differ, and says so', async () => {
    await writeForeign(path('four.pth'), tinyFor(4));
    const { run, weights } = await planned(path('four.pth'));
    expect(run.notes.join('\n')).toContain(
      'has 4 classes, the model 3 (with the background): the predictors start from initial values: roi_heads.box_predictor.cls_score.{weight, bias}',
    );
    await allocateRun(run, await testDevice());
    const { state } = run.model;
    const kept = 'roi_heads.box_head.fc6.weight';
    expect(await state.read(kept)).toEqual(await weights.readFloat32(kept));
    // As FastRCNNPredictor starts (±1/√64), and conv5_mask with MaskRCNNPredictor although its shape is the file's.
    const bias = await state.read('roi_heads.box_predictor.bbox_pred.bias');
    expect(Math.max(...bias.map(Math.abs))).toBeLessThanOrEqual(1 / 8);
    const anew = 'roi_heads.mask_predictor.conv5_mask.weight';
    expect(await state.read(anew)).not.toEqual(await weights.readFloat32(anew));
    run.model.dispose();
    weights.close();
  });

  it('starts from a bare ResNet', async () => {
    await writeForeign(path('body.pth'), tinyFor(3), bareName);
    const { run, weights } = await planned(path('body.pth'));
    expect(run.notes).toEqual([
      expect.stringContaining("Batch norm eps 0.00001: PyTorch's default"),
      expect.stringContaining('holds a ResNet alone: it goes into backbone.body; all else starts from initial values.'),
    ]);
    await allocateRun(run, await testDevice());
    const name = 'layer4.0.conv2.weight';
    expect(await run.model.state.read(`backbone.body.${name}`)).toEqual(await weights.readFloat32(name));
    run.model.dispose();
    weights.close();
  });

  it('keeps the eps that the weights need: chosen, given, or of a checkpoint', async () => {
    const coco = presetConfig('resnet50', { numClasses: 91, inputSize: { width: 96, height: 80 } });
    // Only names and shapes are looked at here.
    const entries = [...new MaskRCNN(coco).state.entries.values()];
    const tensors = new Map(entries.map(({ name, shape }) => [oldName(name), { dtype: 'F32' as const, shape }]));
    const unread = (): Promise<never> => Promise.reject(new Error('not read'));
    const file = {
      path: 'coco.pth',
      form: 'torch zip' as const,
      metadata: {},
      tensors,
      read: unread,
      readFloat32: unread,
    };
    const run = planRun(options({ preset: 'resnet50', weights: 'coco.pth' }), data, 'never written', file);
    expect(run.model.config.batchNormEps).toBe(0);
    expect(run.options.batchNormEps).toBe(0);
    expect(run.notes[0]).toContain('Batch norm eps 0: coco.pth has the names and 91 classes');
    // A resumed run has its options alone.
    const resumed = planRun({ ...run.options, weights: null }, data, 'never written');
    expect(resumed.model.config.batchNormEps).toBe(0);

    await writeForeign(path('three.pth'), tinyFor(3));
    const given = await planned(path('three.pth'), { batchNormEps: 1e-3 });
    expect(given.run.model.config.batchNormEps).toBe(1e-3);
    given.weights.close();
    await command('convert-weights', path('three.pth'), path('three.safetensors'), '--batch-norm-eps', '0');
    const own = await planned(path('three.safetensors'));
    expect(own.run.model.config.batchNormEps).toBe(0);
    expect(own.run.notes).toEqual([]);
    own.weights.close();
  });

  it('tells which preset the weights fit', async () => {
    await writeForeign(path('three.pth'), tinyFor(3));
    await expect(planned(path('three.pth'), { preset: 'resnet50' })).rejects.toThrow(
      /does not fit the model: .* It fits --preset tiny\.$/,
    );
  });
});
