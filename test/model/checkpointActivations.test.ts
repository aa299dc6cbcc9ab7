import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Random } from '../../src/data/random.ts';
import type { Sample } from '../../src/data/types.ts';
import type { MaskRCNNConfig } from '../../src/model/config.ts';
import { MaskRCNN } from '../../src/model/maskRcnn.ts';
import type { Device } from '../../src/tensor/device.ts';
import { trainStep } from '../../src/train/step.ts';
import { removeFolders } from '../data/folders.ts';
import { testDevice } from '../support/device.ts';
import { blobBatch, smallestConfig } from '../train/tinyRun.ts';

const sgd = { lr: 0.02, momentum: 0.9, weightDecay: 1e-4, clipNorm: 10 };

let device: Device;
let batch: Sample[];
beforeAll(async () => {
  device = await testDevice();
  batch = blobBatch();
});
afterAll(removeFolders);

/** Losses of three steps, the whole state behind them, and the most memory in use. */
async function train(checkpointed: boolean, config: Partial<MaskRCNNConfig>, trainableLayers = 5) {
  const model = new MaskRCNN(smallestConfig(config));
  model.freezeBackbone(trainableLayers);
  model.checkpointActivations = checkpointed;
  await model.allocate(device, new Random(1));
  const random = new Random(2);
  const losses: Float32Array[] = [];
  // The pool may lend larger buffers, if other tests have left some.
  await device.gpu.trim();
  const before = device.gpu.counters().inUse;
  device.gpu.forgetPeaks();
  for (let step = 0; step < 3; step++) {
    const { values } = await trainStep(model, batch, { kind: 'random', seed: random.uint32() }, sgd);
    losses.push(await values.floats());
    values.dispose();
  }
  const { peakInUse } = device.gpu.counters();
  const state = new Map<string, Float32Array>();
  for await (const { name, data } of model.state.values()) state.set(name, data);
  model.dispose();
  return { losses, state, peak: peakInUse - before };
}

describe('checkpointed activations', () => {
  for (const [name, config] of Object.entries({
    'batch norm': { norm: 'batch', layers: [2, 1, 1, 1] },
    'frozen batch norm': { norm: 'frozen', layers: [2, 1, 1, 1] },
    bottlenecks: { norm: 'batch', block: 'bottleneck', layers: [2, 1, 1, 1] },
  } satisfies Record<string, Partial<MaskRCNNConfig>>)) {
    it(`with ${name}: the same losses, weights and running statistics, bit for bit, from less memory`, async () => {
      const plain = await train(false, config);
      const checkpointed = await train(true, config);
      expect(checkpointed.losses).toEqual(plain.losses);
      expect(checkpointed.state).toEqual(plain.state);
      expect(checkpointed.peak).toBeLessThan(plain.peak);
    });
  }

  it('with frozen layers: the same', async () => {
    const plain = await train(false, { norm: 'batch' }, 2);
    const checkpointed = await train(true, { norm: 'batch' }, 2);
    expect(checkpointed.losses).toEqual(plain.losses);
    expect(checkpointed.state).toEqual(plain.state);
  });

  it('running statistics move with each step, and once', async () => {
    const { state } = await train(true, { norm: 'batch' });
    const mean = state.get('backbone.body.layer4.0.bn1.running_mean');
    expect(mean?.some((value) => value !== 0)).toBe(true);
  });
});
