import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import { initialThresholds } from '../../src/eval/defaults.ts';
import {
  type EpochResult,
  type EpochScore,
  epochMetrics,
  epochScore,
  isBetter,
  isBetterBy,
} from '../../src/train/best.ts';
import { LossMeter } from '../../src/train/losses.ts';
import {
  completeTrainOptions,
  type GivenTrainOptions,
  readTrainConfig,
  type TrainOptions,
} from '../../src/train/options.ts';
import { learningRate } from '../../src/train/schedule.ts';
import { removeFolders, temporaryFolder } from '../data/folders.ts';

afterAll(removeFolders);

describe('completeTrainOptions', () => {
  it('fills in the preset’s settings, for the synthetic cells and for a user’s data', () => {
    expect(completeTrainOptions({})).toMatchObject({
      data: null,
      preset: 'tiny',
      resize: 0.5,
      seed: 2021,
      batchSize: 2,
      validationBatchSize: null,
    });
    // 12 of the 72 synthetic images.
    expect(completeTrainOptions({}).validation).toBeCloseTo(12 / 72, 12);
    const notebook = completeTrainOptions({ data: 'x', preset: 'resnet50' });
    expect(notebook).toMatchObject({ lr: 0.001, momentum: 0.9, weightDecay: 0.01, epochs: 8, clipNorm: null });
  });

  it('lets what is given win, and a schedule by epochs replace the preset’s last stretch', () => {
    const given = { lr: 0.5, warmupSteps: 0, stepLr: { size: 5, gamma: 0.1 } };
    expect(completeTrainOptions(given)).toMatchObject({ ...given, finalDecay: null });
    expect(completeTrainOptions({}).finalDecay).not.toBeNull();
    expect(completeTrainOptions({ lr: undefined }).lr).toBe(completeTrainOptions({}).lr);
  });

  it('keeps what the two presets from before had, and takes the notebook’s from its own', () => {
    expect(completeTrainOptions({})).toEqual({
      data: null,
      preset: 'tiny',
      resize: 0.5,
      predictResize: null,
      epochs: 10,
      batchSize: 2,
      validationBatchSize: null,
      lr: 0.02,
      momentum: 0.9,
      weightDecay: 1e-4,
      warmupSteps: 20,
      stepLr: null,
      finalDecay: { share: 0.15, factor: 0.1 },
      clipNorm: 3,
      seed: 2021,
      validation: 1 / 6,
      split: 'balanced',
      splitSeed: null,
      splitFile: null,
      testMode: false,
      anchors: null,
      trainableLayers: 5,
      checkpointActivations: false,
      precision: 'f32',
      batchNormEps: null,
      hflip: 0.5,
      vflip: 0.5,
      rotate90: 0,
      scaleJitter: null,
      crop: null,
      brightness: 0,
      contrast: 0,
      model: {},
      normalize: false,
      weights: null,
      competitionClasses: false,
      tune: true,
      workers: 2,
    });
    const notebook = { data: 'x', preset: 'sartorius-v51', weights: 'coco' } as const;
    expect(completeTrainOptions(notebook)).toEqual({
      ...completeTrainOptions({ ...notebook, preset: 'resnet50' }),
      preset: 'sartorius-v51',
      epochs: 30,
      validation: 0.075,
      split: 'notebook',
      predictResize: 1,
      competitionClasses: true,
      tune: false,
    });
  });

  it('trains batch norms where a preset of the notebook’s has no weights to start from, also when a run goes on', () => {
    const fresh = completeTrainOptions({ data: 'x', preset: 'sartorius-v51', model: { boxDetectionsPerImg: 9 } });
    expect(fresh.model).toEqual({ norm: 'batch', boxDetectionsPerImg: 9 });
    const frozen = completeTrainOptions({ data: 'x', preset: 'sartorius-v51', model: { norm: 'frozen' } });
    expect(frozen.model).toEqual({ norm: 'frozen' });
    expect(completeTrainOptions({ data: 'x', preset: 'sartorius-v51', weights: 'coco' }).model).toEqual({});
  });

  it.each<GivenTrainOptions>([
    { data: 'x', epochs: 3, anchors: [4, 8, 16, 32, 64] },
    { data: 'x', preset: 'sartorius-fasterrcnn', model: { minSize: 400, maxSize: 600 }, normalize: true },
  ])('gives the same options again from their own JSON: %j', (given) => {
    const options = completeTrainOptions(given);
    const path = join(temporaryFolder(), 'config.json');
    writeFileSync(path, JSON.stringify(options));
    expect(completeTrainOptions(readTrainConfig(path))).toEqual(options);
  });

  it.each<[Record<string, unknown>, string]>([
    [{ epochs: 0 }, '--epochs 0: '],
    [{ batchSize: 0 }, '--batch-size 0: '],
    [{ lr: 0 }, '--lr 0: '],
    [{ momentum: 1 }, '--momentum 1: '],
    [{ weightDecay: -1 }, '--weight-decay -1: '],
    [{ clipNorm: 0 }, '--clip-norm 0: '],
    [{ trainableLayers: 6 }, '--trainable-layers 6: '],
    [{ hflip: 1.5 }, '--hflip 1.5: '],
    [{ scaleJitter: [2, 1] }, '--scale-jitter 2,1: expected the smaller factor first'],
    [{ crop: [64] }, '--crop 64: '],
    [{ brightness: -0.1 }, '--brightness -0.1: '],
    [{ resize: 0 }, '--resize 0: '],
    [{ resize: 5 }, '--resize 5: '],
    [{ validation: 0 }, '--validation 0: '],
    [{ validation: 1 }, '--validation 1: '],
    [{ anchors: [8, 16] }, '--anchors 8,16: '],
    [{ anchors: [8, 16, 32, 64, -1] }, '--anchors 8,16,32,64,-1: '],
    [{ stepLr: { size: 0, gamma: 0.1 } }, '--step-lr {"size":0,"gamma":0.1}: '],
    [{ predictResize: 0 }, '--predict-resize 0: '],
    [
      { preset: 'huge' },
      "There is no preset 'huge', expected one of tiny, resnet50, resnet50-v2, sartorius-v51, sartorius-fasterrcnn.",
    ],
    [
      { preset: 'tinny' },
      "There is no preset 'tinny', expected one of tiny, resnet50, resnet50-v2, sartorius-v51, sartorius-fasterrcnn; did you mean 'tiny'?",
    ],
  ])('refuses %j in one sentence', (given, beginning) => {
    const complete = (): TrainOptions => completeTrainOptions(given);
    expect(complete).toThrow(UserError);
    expect(complete).toThrow(new RegExp(`^${beginning.replace(/[{}()[\]"?.]/g, '\\$&')}[^\n]*\\.?$`));
  });
});

describe('readTrainConfig', () => {
  it.each([
    ['{', ': expected a JSON file of training options'],
    ['[1]', ': '],
    ['{"epoch": 3}', ": unknown option 'epoch', did you mean 'epochs'?"],
    ['{"batchsize": 3}', ": unknown option 'batchsize', did you mean 'batchSize'?"],
    ['{"stepLr": {"size": 5, "gama": 0.1}}', ": unknown option 'stepLr.gama', did you mean 'stepLr.gamma'?"],
    ['{"optimizer": "adam"}', ": unknown option 'optimizer', expected one of data, preset, "],
    ['{"preset": "tinny"}', ": there is no preset 'tinny', expected one of tiny, "],
    ['{"model": {"rpnNmsTresh": 0.7}}', ": unknown option 'model.rpnNmsTresh', did you mean 'model.rpnNmsThresh'?"],
    ['{"model": {"masks": 1}}', ': option model.masks must be true or false, got 1.'],
    ['{"model": 7}', ': model 7: expected an object.'],
    ['{"model": {"masks": 1}, "epochs": 0}', ': epochs 0: expected number to be >0.'],
    ['{"epochs": "3"}', ': epochs 3: expected number'],
  ])('names the file in which %s stands', (text, message) => {
    const path = join(temporaryFolder(), 'options.json');
    writeFileSync(path, text);
    expect(() => readTrainConfig(path)).toThrow(UserError);
    expect(() => readTrainConfig(path)).toThrow(path + message);
  });

  it('names a file that is not there', () => {
    expect(() => readTrainConfig('/nowhere/options.json')).toThrow('/nowhere/options.json');
  });
});

describe('learningRate', () => {
  const options = completeTrainOptions({ lr: 2, epochs: 10, warmupSteps: 4, stepLr: { size: 3, gamma: 0.1 } });

  it('rises linearly from a thousandth over the warm-up steps', () => {
    const rates = [0, 1, 2, 3, 4, 5].map((step) => learningRate(step, 100, options));
    expect(rates[0]).toBeCloseTo(2 * 0.001, 12);
    expect(rates[1]).toBeCloseTo(2 * (0.001 + 0.999 / 4), 12);
    expect(rates[2]).toBeCloseTo(2 * (0.001 + 0.999 / 2), 12);
    expect(rates[3]).toBeCloseTo(2 * (0.001 + (0.999 * 3) / 4), 12);
    expect(rates.slice(4)).toEqual([2, 2]);
  });

  it('is multiplied by gamma every few epochs', () => {
    const byEpoch = Array.from({ length: 10 }, (_, epoch) => learningRate(epoch * 100 + 50, 100, options));
    expect(byEpoch.map((rate) => Math.round(Math.log10(rate / 2)))).toEqual([0, 0, 0, -1, -1, -1, -2, -2, -2, -3]);
    // The last step of epoch 3 and the first of epoch 4.
    expect(learningRate(299, 100, options)).toBe(2);
    expect(learningRate(300, 100, options)).toBeCloseTo(0.2, 12);
  });

  it('is lower on the last stretch', () => {
    const decayed = { ...options, warmupSteps: 0, stepLr: null, finalDecay: { share: 0.15, factor: 0.1 } };
    expect(learningRate(849, 100, decayed)).toBe(2);
    expect(learningRate(850, 100, decayed)).toBeCloseTo(0.2, 12);
    expect(learningRate(999, 100, decayed)).toBeCloseTo(0.2, 12);
    expect(learningRate(0, 100, { ...decayed, finalDecay: null })).toBe(2);
  });
});

describe('initialThresholds', () => {
  it('are the notebook’s for the competition’s classes and .5 for all others', () => {
    const values = [0.5, 0.6, 0.8, 0.7, 0.5];
    expect(initialThresholds(['astro', 'cort', 'shsy5y', 'disc'])).toEqual({ minScore: values, maskThreshold: values });
  });
});

describe('isBetter', () => {
  const score = (iouMap: number, maskAP50: number, validationLoss: number): EpochScore => ({
    epoch: 1,
    iouMap,
    maskAP50,
    validationLoss,
  });

  it('goes by competition score, then mask AP50, then validation loss; the earlier of equals stays', () => {
    expect(isBetter(score(0, 0, 9), null)).toBe(true);
    expect(isBetter(score(0.2, 0, 9), score(0.1, 0.9, 1))).toBe(true);
    expect(isBetter(score(0.1, 0.9, 1), score(0.2, 0, 9))).toBe(false);
    expect(isBetter(score(0, 0.4, 9), score(0, 0.3, 1))).toBe(true);
    expect(isBetter(score(0, 0.3, 1), score(0, 0.4, 9))).toBe(false);
    expect(isBetter(score(0, 0, 1), score(0, 0, 2))).toBe(true);
    expect(isBetter(score(0, 0, 2), score(0, 0, 1))).toBe(false);
    expect(isBetter(score(0.1, 0.1, 1), score(0.1, 0.1, 1))).toBe(false);
  });
});

describe('epochScore', () => {
  const scores = { iouMap: 0.1, maskAP50: 0.2, boxMap30: 0.3, boxAP50: 0.4 };

  it('takes box scores for a model without masks', () => {
    expect(epochScore(3, scores, 7)).toEqual({ epoch: 3, iouMap: 0.1, maskAP50: 0.2, validationLoss: 7 });
    const boxes = { ...scores, iouMap: null, maskAP50: null };
    expect(epochScore(3, boxes, 7)).toEqual({ epoch: 3, iouMap: 0.3, maskAP50: 0.4, validationLoss: 7 });
  });

  it('isBetterBy goes by the metric that is named, of equals by all that training goes by', () => {
    const result = (epoch: number, given: Partial<typeof scores>, loss = 1): EpochResult => {
      const all = { ...scores, ...given };
      return {
        score: epochScore(epoch, all, loss),
        scores: {
          ...all,
          computeMAP: 0,
          coco: { segm: null, bbox: [] },
          images: 1,
          instances: 1,
          perClass: [],
          perImage: [],
        },
      };
    };
    for (const metric of epochMetrics) {
      expect(isBetterBy(metric, result(1, {}), null)).toBe(true);
      expect(isBetterBy(metric, result(2, { [metric]: 0.9 }), result(1, {}))).toBe(true);
      expect(isBetterBy(metric, result(2, {}), result(1, { [metric]: 0.9 }))).toBe(false);
      expect(isBetterBy(metric, result(2, {}, 0.5), result(1, {}))).toBe(true);
      expect(isBetterBy(metric, result(2, {}), result(1, {}))).toBe(false);
    }
    expect(isBetterBy('maskAP50', result(2, { iouMap: 0.9 }), result(1, { maskAP50: 0.9 }))).toBe(false);
    expect(isBetterBy('boxAP50', result(2, { iouMap: 0.9 }), result(1, {}))).toBe(true);
  });
});

describe('LossMeter', () => {
  it('means each loss and totals them, and goes on from sums', () => {
    const meter = new LossMeter();
    meter.add({ a: 1, b: 2 });
    meter.add({ a: 3, b: 6 });
    expect(meter.means()).toEqual({ a: 2, b: 4, total: 6 });
    const resumed = new LossMeter(meter.sums, 2);
    resumed.add({ a: 5, b: 1 });
    expect(resumed.means()).toEqual({ a: 3, b: 3, total: 6 });
    expect(meter.means()).toEqual({ a: 2, b: 4, total: 6 });
  });
});
