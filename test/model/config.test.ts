import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import { parseConfig, parseModelOverrides } from '../../src/model/config.ts';
import { checkPreset, normalizedTwice, presetConfig, presetDefaults, presetNames } from '../../src/model/presets.ts';
import { seeded } from '../support/random.ts';

const goldens = resolve(import.meta.dirname, '../../../shared/goldens');
const least = { block: 'bottleneck', layers: [3, 4, 6, 3], width: 64, norm: 'frozen', numClasses: 91 };

describe('parseConfig', () => {
  it('fills in the defaults of torchvision’s maskrcnn_resnet50_fpn', () => {
    expect(parseConfig(least, 'x')).toEqual({
      ...least,
      batchNormEps: 1e-5,
      fpnChannels: 256,
      anchorSizes: [32, 64, 128, 256, 512],
      aspectRatios: [0.5, 1, 2],
      headNorm: 'none',
      rpnConvDepth: 1,
      boxConvLayers: [],
      representationSize: 1024,
      masks: true,
      maskLayers: [256, 256, 256, 256],
      maskDimReduced: 256,
      minSize: 800,
      maxSize: 1333,
      imageMean: [0.485, 0.456, 0.406],
      imageStd: [0.229, 0.224, 0.225],
      sizeDivisible: 32,
      rpnPreNmsTopNTrain: 2000,
      rpnPreNmsTopNTest: 1000,
      rpnPostNmsTopNTrain: 2000,
      rpnPostNmsTopNTest: 1000,
      rpnNmsThresh: 0.7,
      rpnFgIouThresh: 0.7,
      rpnBgIouThresh: 0.3,
      rpnBatchSizePerImage: 256,
      rpnPositiveFraction: 0.5,
      rpnScoreThresh: 0,
      boxScoreThresh: 0.05,
      boxNmsThresh: 0.5,
      boxDetectionsPerImg: 100,
      boxFgIouThresh: 0.5,
      boxBgIouThresh: 0.5,
      boxBatchSizePerImage: 512,
      boxPositiveFraction: 0.25,
      canonicalScale: 224,
      canonicalLevel: 4,
    });
  });

  it('gives fresh arrays, keeps what is set and survives JSON', () => {
    const config = parseConfig({ ...least, minSize: null, maxSize: null, batchNormEps: 0 }, 'x');
    expect(config).toMatchObject({ minSize: null, maxSize: null, batchNormEps: 0 });
    expect(parseConfig(JSON.parse(JSON.stringify(config)), 'x')).toEqual(config);
    config.anchorSizes[0] = 1;
    expect(parseConfig(least, 'x').anchorSizes[0]).toBe(32);
  });

  it.each<[unknown, string]>([
    [{ ...least, anchorSize: [8] }, "run.json: unknown option 'anchorSize' of the model, did you mean 'anchorSizes'?"],
    [{ ...least, block: 'wide' }, "run.json: option block must be 'basic' or 'bottleneck', got \"wide\"."],
    [{ ...least, norm: undefined }, "run.json: option norm must be 'frozen' or 'batch', but it is missing."],
    [
      { ...least, numClasses: undefined },
      'run.json: option numClasses must be an integer of at least 2, but it is missing.',
    ],
    [{ ...least, numClasses: 1 }, 'run.json: option numClasses must be an integer of at least 2, got 1.'],
    [{ ...least, width: 16.5 }, 'run.json: option width must be an integer of at least 1, got 16.5.'],
    [{ ...least, width: '16' }, 'run.json: option width must be an integer of at least 1, got "16".'],
    [{ ...least, layers: [1, 1, 0, 1] }, 'run.json: option layers[2] must be an integer of at least 1, got 0.'],
    [
      { ...least, layers: [1, 1, 1] },
      'run.json: option layers must be an array of 4 integers of at least 1, got [1,1,1].',
    ],
    [{ ...least, layers: 4 }, 'run.json: option layers must be an array of 4 integers of at least 1, got 4.'],
    [
      { ...least, anchorSizes: [8, 16, 32, 64, 128, 256] },
      'run.json: option anchorSizes must be an array of 5 numbers above 0, got [8,16,32,64,128,256].',
    ],
    [
      { ...least, aspectRatios: [] },
      'run.json: option aspectRatios must be an array of one or more numbers above 0, got [].',
    ],
    [{ ...least, imageStd: [1, 0, 1] }, 'run.json: option imageStd[1] must be a number above 0, got 0.'],
    [{ ...least, imageMean: [0, 0, Number.NaN] }, 'run.json: option imageMean[2] must be a number, got NaN.'],
    [{ ...least, boxScoreThresh: 1.1 }, 'run.json: option boxScoreThresh must be a number from 0 to 1, got 1.1.'],
    [{ ...least, masks: 'yes' }, 'run.json: option masks must be true or false, got "yes".'],
    [{ ...least, minSize: null }, 'run.json: option maxSize must be null exactly where minSize is, but it is missing.'],
    [
      { ...least, minSize: null, maxSize: 1333 },
      'run.json: option maxSize must be null exactly where minSize is, got 1333.',
    ],
    [{ ...least, rpnBgIouThresh: 0.8 }, 'run.json: option rpnBgIouThresh must be at most rpnFgIouThresh, got 0.8.'],
    [{ ...least, boxBgIouThresh: 0.6 }, 'run.json: option boxBgIouThresh must be at most boxFgIouThresh, got 0.6.'],
    [null, "run.json: expected an object with the model's options."],
    [[], "run.json: expected an object with the model's options."],
  ])('refuses %j', (value, message) => {
    expect(() => parseConfig(value, 'run.json')).toThrow(new UserError(message));
  });

  it.skipIf(!existsSync(goldens)).each(['tiny-basic', 'tiny-bottleneck', 'tiny-boxes', 'tiny-batchnorm', 'resnet50'])(
    'takes the configuration of the golden case %s',
    (name) => {
      const { config } = JSON.parse(readFileSync(join(goldens, name, 'case.json'), 'utf8'));
      const { seed, permutation, lr, weightDecay, lossNames, ...model } = config;
      expect([seed, permutation, lr, weightDecay, lossNames]).not.toContain(undefined);
      expect(parseConfig(model, name)).toMatchObject(model);
    },
  );
});

describe('parseModelOverrides', () => {
  it('gives what was given, without defaults', () => {
    const given = { boxDetectionsPerImg: 300, imageMean: [0, 0, 0], minSize: null, masks: false };
    const overrides = parseModelOverrides(given, 'x');
    expect(overrides).toEqual(given);
    expect(overrides.imageMean).not.toBe(given.imageMean);
    expect(parseModelOverrides({}, 'x')).toEqual({});
  });

  it.each<[unknown, string]>([
    [
      { boxDetectionsPerImage: 300 },
      "run.json: unknown option 'model.boxDetectionsPerImage', did you mean 'model.boxDetectionsPerImg'?",
    ],
    [{ boxDetectionsPerImg: 0 }, 'run.json: option model.boxDetectionsPerImg must be an integer of at least 1, got 0.'],
    [{ imageStd: [1, 0, 1] }, 'run.json: option model.imageStd[1] must be a number above 0, got 0.'],
    [{ norm: null }, "run.json: option model.norm must be 'frozen' or 'batch', got null."],
    [{ numClasses: 4 }, 'run.json: option model.numClasses follows from the cell types of the data, expected none.'],
    [7, "run.json: expected an object with the model's options."],
  ])('refuses %j', (value, message) => {
    expect(() => parseModelOverrides(value, 'run.json')).toThrow(new UserError(message));
  });

  it('lists what there is where no name is near', () => {
    expect(() => parseModelOverrides({ zzzzzzzzz: 1 }, 'x')).toThrow(
      /^x: unknown option 'model\.zzzzzzzzz', expected one of model\.block, .*model\.canonicalLevel\.$/,
    );
  });
});

describe('presets', () => {
  const at = (width: number, height: number) => ({ numClasses: 4, inputSize: { width, height } });

  it('tiny: anchors and the canonical scale follow the input', () => {
    expect(presetConfig('tiny', at(176, 130))).toMatchObject({ anchorSizes: [8, 16, 32, 64, 128], canonicalScale: 56 });
    expect(presetConfig('tiny', at(352, 260))).toMatchObject({
      anchorSizes: [16, 32, 64, 128, 256],
      canonicalScale: 112,
    });
    expect(presetConfig('tiny', at(704, 520))).toMatchObject({
      anchorSizes: [32, 64, 128, 256, 512],
      canonicalScale: 224,
    });
    expect(presetConfig('tiny', at(128, 128)).anchorSizes).toEqual([8, 16, 32, 64, 128]);
    expect(presetConfig('tiny', at(130, 176)).anchorSizes).toEqual([8, 16, 32, 64, 128]);
    expect(presetConfig('tiny', at(20, 20)).anchorSizes).toEqual([4, 8, 16, 32, 64]);
    const given = presetConfig('tiny', { ...at(176, 130), anchors: [6, 12, 24, 48, 96] });
    expect(given).toMatchObject({ anchorSizes: [6, 12, 24, 48, 96], canonicalScale: 42 });
  });

  it('tiny: a small network without a resize of its own', () => {
    expect(presetConfig('tiny', at(176, 130))).toMatchObject({
      block: 'basic',
      layers: [1, 1, 1, 1],
      width: 16,
      norm: 'batch',
      fpnChannels: 32,
      representationSize: 64,
      maskLayers: [32, 32],
      numClasses: 4,
      minSize: null,
      maxSize: null,
      imageMean: [0.5, 0.5, 0.5],
      imageStd: [0.1, 0.1, 0.1],
      rpnBatchSizePerImage: 64,
      boxBatchSizePerImage: 64,
    });
  });

  it('resnet50: torchvision’s defaults with 540 detections', () => {
    expect(presetConfig('resnet50', at(352, 260))).toEqual({
      ...parseConfig({ ...least, numClasses: 4 }, 'x'),
      boxDetectionsPerImg: 540,
    });
    const given = presetConfig('resnet50', { ...at(352, 260), anchors: [8, 16, 32, 64, 128] });
    expect(given).toMatchObject({ anchorSizes: [8, 16, 32, 64, 128], canonicalScale: 224 });
  });

  it('sartorius-v51: the notebook’s model and settings', () => {
    expect(presetConfig('sartorius-v51', at(352, 260))).toEqual(presetConfig('resnet50', at(352, 260)));
    const { training, data, untrained } = presetDefaults('sartorius-v51');
    expect(training).toEqual({
      learningRate: 0.001,
      momentum: 0.9,
      weightDecay: 0.01,
      batchSize: 2,
      epochs: 30,
      warmupSteps: 0,
      finalDecay: null,
      clipNorm: null,
      tune: false,
      checkpointActivations: false,
    });
    expect(data).toEqual({
      resize: 0.5,
      predictResize: 1,
      validation: 0.075,
      split: 'notebook',
      competitionClasses: true,
      competitionData: true,
    });
    expect(presetConfig('sartorius-v51', { ...at(352, 260), overrides: untrained }).norm).toBe('batch');
  });

  it('sartorius-fasterrcnn: the same without masks, for the 2 epochs of the notebook as it stands', () => {
    const boxes = presetConfig('sartorius-fasterrcnn', at(352, 260));
    expect(boxes).toEqual({ ...presetConfig('sartorius-v51', at(352, 260)), masks: false });
    const { training, ...rest } = presetDefaults('sartorius-fasterrcnn');
    const v51 = presetDefaults('sartorius-v51');
    expect(rest).toEqual({ data: v51.data, untrained: v51.untrained });
    expect(training).toEqual({ ...v51.training, epochs: 2 });
  });

  it('lets overrides win, with tiny’s canonical scale following anchors of theirs', () => {
    const overrides = { boxDetectionsPerImg: 7, imageMean: [0.1, 0.2, 0.3], anchorSizes: [4, 8, 16, 32, 64] };
    expect(presetConfig('tiny', { ...at(176, 130), overrides })).toEqual({
      ...presetConfig('tiny', { ...at(176, 130), anchors: overrides.anchorSizes }),
      ...overrides,
      canonicalScale: 28,
    });
    const flag = { ...at(176, 130), overrides, anchors: [6, 12, 24, 48, 96] };
    expect(presetConfig('tiny', flag)).toMatchObject({ anchorSizes: flag.anchors, canonicalScale: 42 });
    expect(() => presetConfig('tiny', { ...at(9, 9), overrides: { rpnBgIouThresh: 0.9 } })).toThrow(
      new UserError(
        "Preset 'tiny' with the options of 'model': option rpnBgIouThresh must be at most rpnFgIouThresh, got 0.9.",
      ),
    );
  });

  it('normalize: one mean and deviation do what the notebook’s transform and its model do in turn', () => {
    const [mean, std] = [
      [0.485, 0.456, 0.406],
      [0.229, 0.224, 0.225],
    ];
    for (const own of [
      { mean, std },
      { mean: [0.5, 0.4, 0.3], std: [0.1, 0.2, 0.3] },
    ]) {
      const { imageMean, imageStd } = normalizedTwice(own.mean, own.std);
      const next = seeded(1);
      for (let i = 0; i < 30; i++) {
        const [x, c] = [next(), i % 3];
        const once = (x - mean[c]) / std[c];
        expect((x - imageMean[c]) / imageStd[c]).toBeCloseTo((once - own.mean[c]) / own.std[c], 10);
      }
    }
    // The notebook gives its model ImageNet's numbers, whatever a preset has of its own.
    for (const name of presetNames) {
      const given = { ...at(176, 130), normalize: true };
      expect(presetConfig(name, given)).toEqual({ ...presetConfig(name, at(176, 130)), ...normalizedTwice(mean, std) });
      const overrides = { imageMean: [0, 0, 0], imageStd: [1, 1, 1] };
      const once = presetConfig(name, { ...given, overrides });
      expect(once).toMatchObject({ imageMean: mean, imageStd: std });
    }
  });

  it('has settings for each, not shared between callers', () => {
    for (const name of presetNames) {
      expect(presetDefaults(name).training).toMatchObject({ momentum: 0.9, batchSize: 2 });
      expect(presetDefaults(name).data.resize).toBe(0.5);
    }
    expect(presetDefaults('resnet50').training).toMatchObject({
      learningRate: 0.001,
      weightDecay: 0.01,
      finalDecay: null,
    });
    presetDefaults('tiny').training.learningRate = 7;
    expect(presetDefaults('tiny').training.learningRate).toBe(0.02);
  });

  it('refuses an unknown preset and wrong anchors in one sentence', () => {
    const all = 'expected one of tiny, resnet50, resnet50-v2, sartorius-v51, sartorius-fasterrcnn';
    const unknown = new UserError(`There is no preset 'huge', ${all}.`);
    expect(() => presetConfig('huge', at(9, 9))).toThrow(unknown);
    expect(() => presetDefaults('huge')).toThrow(unknown);
    expect(() => presetDefaults('toString')).toThrow("There is no preset 'toString'");
    expect(() => checkPreset('Sartorius-v15', 'run.json')).toThrow(
      new UserError(`run.json: there is no preset 'Sartorius-v15', ${all}; did you mean 'sartorius-v51'?`),
    );
    expect(() => presetConfig('tiny', { ...at(9, 9), anchors: [8] })).toThrow(
      new UserError("Preset 'tiny': option anchorSizes must be an array of 5 numbers above 0, got [8]."),
    );
  });
});
