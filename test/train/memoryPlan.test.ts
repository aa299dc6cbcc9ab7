import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { randomCrop } from '../../src/data/augmentations.ts';
import { Random } from '../../src/data/random.ts';
import type { Sample } from '../../src/data/types.ts';
import type { MaskRCNNConfig } from '../../src/model/config.ts';
import { MaskRCNN } from '../../src/model/maskRcnn.ts';
import type { Device } from '../../src/tensor/device.ts';
import { describePlan, planPrediction, planTraining, validationOf, workOf } from '../../src/train/memoryPlan.ts';
import { trainStep, validationLosses } from '../../src/train/step.ts';
import { removeFolders } from '../data/folders.ts';
import { testDevice } from '../support/device.ts';
import { blobBatch, blobDataset, HEIGHT, IN_PARTS, smallestConfig, smallestRun, WIDTH } from './tinyRun.ts';

let device: Device;
let batch: Sample[];
beforeAll(async () => {
  device = await testDevice();
  batch = blobBatch();
});
afterAll(removeFolders);

const sizes = [
  [HEIGHT, WIDTH],
  [HEIGHT, WIDTH],
] as const;

/** What the pools of the device, empty before, hold at most while `work` runs. */
async function held(work: () => Promise<void>): Promise<number> {
  await device.gpu.trim();
  device.gpu.forgetPeaks();
  const before = device.gpu.counters().held;
  await work();
  const { peakHeld, staging } = device.gpu.counters();
  return peakHeld - before + staging;
}

/** Three steps. */
async function train(model: MaskRCNN, samples: Sample[]): Promise<void> {
  const options = { lr: 0.01, momentum: 0.9, weightDecay: 0, clipNorm: 1 };
  for (let step = 0; step < 3; step++) {
    const { values } = await trainStep(model, samples, { kind: 'random', seed: step }, options);
    await values.floats();
    values.dispose();
  }
}

describe('a plan of memory', () => {
  for (const [name, config, checkpointed] of [
    ['frozen batch norm', { norm: 'frozen' }, false],
    ['batch norm', { norm: 'batch' }, false],
    ['masks computed in parts', { norm: 'frozen', ...IN_PARTS }, false],
    ['batch norm in the heads', { norm: 'frozen', headNorm: 'batch', boxConvLayers: [8], ...IN_PARTS }, false],
    ['checkpointed activations', { norm: 'batch', layers: [2, 2, 1, 1] }, true],
  ] satisfies [string, Partial<MaskRCNNConfig>, boolean][]) {
    it(`tells within 10 % what training holds at its peak, with ${name}`, async () => {
      const model = new MaskRCNN(smallestConfig({ ...config, width: 16 }));
      model.checkpointActivations = checkpointed;
      const before = device.gpu.counters();
      const plan = await planTraining(device, model, { sizes, truths: 3 });
      expect(device.gpu.counters()).toEqual(before);
      const actual = await held(async () => {
        await model.allocate(device, new Random(1));
        await train(model, batch);
      });
      expect(plan.bytes / actual).toBeGreaterThan(0.9);
      expect(plan.bytes / actual).toBeLessThan(1.1);
      model.dispose();
    });
  }

  it('tells within 10 % what prediction holds, or more where fewer are found', async () => {
    const model = new MaskRCNN(smallestConfig());
    const plan = await planPrediction(device, model, { sizes: sizes.slice(0, 1) });
    const actual = await held(async () => {
      await model.allocate(device, new Random(1));
      await model.predict([batch[0].image]);
    });
    expect(plan.bytes / actual).toBeGreaterThan(0.9);
    model.dispose();
  });

  it('counts validation of larger images than those trained on', async () => {
    const run = smallestRun(blobDataset(), 'never written', { crop: [64, 64], batchSize: 1, validationBatchSize: 4 });
    expect(validationOf(run)).toEqual({ losses: [[HEIGHT, WIDTH]], predicted: Array(2).fill([HEIGHT, WIDTH]) });
    const work = workOf(run);
    const alone = await planTraining(device, run.model, work);
    const whole = await planTraining(device, run.model, work, validationOf(run));
    expect(whole.bytes).toBeGreaterThan(alone.bytes);
    const actual = await held(async () => {
      await run.model.allocate(device, new Random(1));
      await train(run.model, [randomCrop(64, 64)(batch[0], new Random(3))]);
      const { values } = await validationLosses(run.model, [batch[0]], { kind: 'identity' });
      values.dispose();
      await run.model.predict(batch.map(({ image }) => image));
    });
    expect(whole.bytes / actual).toBeGreaterThan(0.9);
    run.model.dispose();
  });

  it('takes the largest batch that a run may meet', () => {
    const run = smallestRun(blobDataset(), 'never written', {
      batchSize: 3,
      scaleJitter: [0.5, 1.5],
      crop: [100, 4000],
    });
    expect(workOf(run)).toEqual({ sizes: Array(3).fill([HEIGHT * 1.5, 100]), truths: 3 });
  });

  it('is told beside what the adapter has', () => {
    const plan = { bytes: 5.5 * 2 ** 30, byTag: {} };
    expect(describePlan('Training', plan, { free: 8 * 2 ** 30, total: 16 * 2 ** 30 })).toEqual({
      line: "Training needs 5.50 GiB of device memory; the adapter computes in this machine's memory, of which 8.00 GiB are free.",
      exceeds: false,
    });
    expect(describePlan('Training', plan, { free: 2 ** 30, total: 2 ** 34 })).toEqual({
      line: "Warning: Training needs 5.50 GiB of device memory, but the adapter computes in this machine's memory, of which 1.00 GiB are free.",
      exceeds: true,
    });
    expect(describePlan('Training', plan, { free: null, total: null }).line).toBe(
      'Training needs 5.50 GiB of device memory; how much the adapter has, it does not tell.',
    );
  });
});
