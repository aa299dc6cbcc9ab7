import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadSample } from '../../src/data/dataset.ts';
import { Random } from '../../src/data/random.ts';
import type { Sample } from '../../src/data/types.ts';
import type { SampleOrder } from '../../src/kernels/sampler.ts';
import type { MaskRCNNConfig } from '../../src/model/config.ts';
import { MaskRCNN } from '../../src/model/maskRcnn.ts';
import type { Device } from '../../src/tensor/device.ts';
import { readLosses } from '../../src/train/losses.ts';
import { trainStep, validationLosses } from '../../src/train/step.ts';
import { removeFolders } from '../data/folders.ts';
import { testDevice } from '../support/device.ts';
import { blobDataset, IN_PARTS, smallestConfig, smallestRun } from './tinyRun.ts';

const sgd = { lr: 0.02, momentum: 0.9, weightDecay: 1e-4, clipNorm: 10 };

let device: Device;
let samples: Sample[];

beforeAll(async () => {
  device = await testDevice();
  const { dataset } = smallestRun(blobDataset(), 'never written');
  samples = dataset.images.map((record) => loadSample(record));
});
afterAll(removeFolders);

/** Two samples of step `step`; each third step has the image without cells. */
const batchOf = (step: number): Sample[] => [samples[step % 6], samples[step % 3 === 2 ? 6 : (step + 1) % 6]];

const ids = (batch: readonly Sample[]): string[] => batch.map(({ image }) => image.id);

async function allocated(
  given: Partial<MaskRCNNConfig> = {},
): Promise<{ model: MaskRCNN; nextOrder: () => SampleOrder }> {
  const model = new MaskRCNN(smallestConfig(given));
  await model.allocate(device, new Random(1));
  const random = new Random(2);
  return { model, nextOrder: () => ({ kind: 'random', seed: random.uint32() }) };
}

async function state(model: MaskRCNN): Promise<Map<string, Float32Array>> {
  const values = new Map<string, Float32Array>();
  for await (const { name, data } of model.state.values()) values.set(name, data);
  return values;
}

describe('memory', () => {
  it('in use after step 50 equals that after step 5, no buffer is created between, and all is given back', async () => {
    const before = device.gpu.counters().inUse;
    // Three cells an image always give as many positives as are asked for, so that every step has as many anchors, RoIs and masks.
    const { model, nextOrder } = await allocated({
      rpnBatchSizePerImage: 8,
      rpnPositiveFraction: 0.25,
      rpnPostNmsTopNTrain: 10,
      boxBatchSizePerImage: 4,
      boxPositiveFraction: 0.25,
    });
    const seen: { inUse: number; byTag: Record<string, number>; created: number }[] = [];
    for (let step = 1; step <= 50; step++) {
      const batch = [samples[step % 6]];
      await readLosses(await trainStep(model, batch, nextOrder(), sgd), ids(batch));
      const { inUse, byTag, created } = device.gpu.counters();
      seen[step] = { inUse, byTag, created };
    }
    for (let step = 6; step <= 50; step++) expect(seen[step], `after step ${step}`).toEqual(seen[5]);
    model.dispose();
    expect(device.gpu.counters().inUse).toBe(before);
  });

  it('in use is the same after every step, however many RoIs there are', async () => {
    const { model, nextOrder } = await allocated();
    const seen = new Set<string>();
    for (let step = 0; step < 12; step++) {
      const batch = batchOf(step);
      await readLosses(await trainStep(model, batch, nextOrder(), sgd), ids(batch));
      const { inUse, byTag } = device.gpu.counters();
      seen.add(JSON.stringify([inUse, byTag]));
    }
    expect([...seen]).toHaveLength(1);
    model.dispose();
  });

  it('100 forward passes without a backward pass hold nothing', async () => {
    const { model, nextOrder } = await allocated({ rpnPostNmsTopNTest: 10, boxDetectionsPerImg: 5 });
    const pass = async (index: number): Promise<void> => {
      const batch = [batchOf(index)[0]];
      if (index % 2 === 0) await model.predict(batch.map(({ image }) => image));
      else await readLosses(await validationLosses(model, batch, nextOrder()), ids(batch));
    };
    await pass(0);
    const { inUse, byTag } = device.gpu.counters();
    for (let index = 1; index <= 100; index++) await pass(index);
    expect(device.gpu.counters()).toMatchObject({ inUse, byTag });
    model.dispose();
  });
});

describe('a step', () => {
  it.each([
    ['a list of masks computed whole', {}],
    ['one computed in parts', IN_PARTS],
    ['heads with batch norm', { headNorm: 'batch' as const, boxConvLayers: [8], ...IN_PARTS }],
  ])(
    'reads nothing back before its losses, with and without cells, in training and in validation, %s',
    async (_, given) => {
      const { model, nextOrder } = await allocated(given);
      for (const batch of [batchOf(0), [samples[6], samples[6]]]) {
        const before = device.gpu.counters().readbacks;
        const { values } = await trainStep(model, batch, nextOrder(), sgd);
        const validation = await validationLosses(model, batch, nextOrder());
        expect(device.gpu.counters().readbacks).toBe(before);
        values.dispose();
        validation.values.dispose();
      }
      model.dispose();
    },
  );

  it('moves every parameter and the running statistics, and lowers the loss of a batch seen again', async () => {
    const { model, nextOrder } = await allocated();
    const batch = batchOf(0);
    const before = await state(model);
    const totals: number[] = [];
    for (let step = 0; step < 12; step++) {
      const losses = await readLosses(await trainStep(model, batch, nextOrder(), sgd), ids(batch));
      totals.push(Object.values(losses).reduce((sum, value) => sum + value, 0));
    }
    const after = await state(model);
    for (const [name, values] of before) expect(after.get(name), name).not.toEqual(values);
    expect(totals.at(-1)).toBeLessThan(totals[0] * 0.8);
    model.dispose();
  });

  it('without gradients (validation, prediction) changes no weight and no running statistic', async () => {
    const { model, nextOrder } = await allocated();
    const before = await state(model);
    const batch = batchOf(1);
    const losses = await readLosses(await validationLosses(model, batch, nextOrder()), ids(batch));
    expect(Object.keys(losses)).toHaveLength(5);
    await model.predict(batch.map(({ image }) => image));
    expect(await state(model)).toEqual(before);
    model.dispose();
  });

  it('takes batches without a single cell: box and mask losses are 0', async () => {
    const { model, nextOrder } = await allocated();
    const losses = await readLosses(await trainStep(model, [samples[6], samples[6]], nextOrder(), sgd), ['image-6']);
    expect(losses).toMatchObject({ loss_rpn_box_reg: 0, loss_box_reg: 0, loss_mask: 0 });
    expect(losses.loss_objectness).toBeGreaterThan(0);
    expect(losses.loss_classifier).toBeGreaterThan(0);
    for (const [name, values] of await state(model)) expect(values.every(Number.isFinite), name).toBe(true);
    model.dispose();
  });

  it('names the loss that is no number and the images of its batch', async () => {
    const values = device.detached(() => device.tensor([1, Number.NaN], [2]));
    const reading = readLosses({ names: ['loss_objectness', 'loss_mask'], values }, ['a', 'b']);
    await expect(reading).rejects.toThrow(
      /^Training stopped: loss_mask is not finite on the images a, b \(loss_objectness 1, loss_mask NaN\)/,
    );
    expect(values.disposed).toBe(true);
  });
});
