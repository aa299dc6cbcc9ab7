import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { convertWeights } from '../../../src/cli/convertWeightsCommand.ts';
import { writePiecesAtomic } from '../../../src/data/files.ts';
import { Random } from '../../../src/data/random.ts';
import type { Sample } from '../../../src/data/types.ts';
import { matchedSource, matchWeights } from '../../../src/model/checkpoints/match.ts';
import { openWeightsFile } from '../../../src/model/checkpoints/openWeightsFile.ts';
import { type LazyTensor, writeTorchTo } from '../../../src/model/checkpoints/writeWeights.ts';
import type { MaskRCNNConfig } from '../../../src/model/config.ts';
import { LOSS_NAMES, MaskRCNN } from '../../../src/model/maskRcnn.ts';
import { saveCheckpoint } from '../../../src/train/checkpoint.ts';
import { trainStep } from '../../../src/train/step.ts';
import { matchRows, reorderRows } from '../../../src/verify/matching.ts';
import { scenarioBatch, scenarioConfig, scenarioWeights } from '../../browser/scenario.ts';
import { testDevice } from '../../support/device.ts';
import { torchPeer, torchUnfit } from '../../support/python.ts';
import { fixturePath } from './fixtures.ts';

const unfit = torchUnfit();

/** Images and targets as a file that torch reads. */
async function writeInputs(path: string, batch: readonly Sample[]): Promise<void> {
  const tensors: LazyTensor[] = batch.flatMap(({ image, target }, i) => {
    const { width, height, data } = image;
    const planes = Float32Array.from(
      data,
      (_, at) => data[(at % (width * height)) * 3 + Math.floor(at / (width * height))],
    );
    const n = target.labels.length;
    return [
      { name: `${i}.image`, dtype: 'F32', shape: [3, height, width], values: async () => planes },
      {
        name: `${i}.boxes`,
        dtype: 'F32',
        shape: [n, 4],
        values: async () => target.boxes as Float32Array<ArrayBuffer>,
      },
      { name: `${i}.labels`, dtype: 'I64', shape: [n], values: async () => target.labels as Int32Array<ArrayBuffer> },
      { name: `${i}.masks`, dtype: 'U8', shape: [n, height, width], values: async () => target.masks },
    ] satisfies LazyTensor[];
  });
  await writePiecesAtomic(path, (write) => writeTorchTo(write, tensors, {}));
}

describe.skipIf(unfit)(`PyTorch${unfit ? ` (skipped: ${unfit})` : ''}`, () => {
  const folder = mkdtempSync(join(tmpdir(), 'torch-'));
  const file = (name: string): string => join(folder, name);
  afterAll(() => rmSync(folder, { recursive: true }));

  const config = (norm: MaskRCNNConfig['norm']): MaskRCNNConfig => ({
    ...scenarioConfig(),
    norm,
    minSize: 96,
    maxSize: 160,
  });
  const step = { lr: 0.005, momentum: 0.9, weightDecay: 0.001 };

  it('loads what is written here, and what it writes of it is read back the same', async () => {
    torchPeer({ do: 'copy', from: fixturePath('written.pth'), to: file('copy.pth') });
    torchPeer({ do: 'same', a: fixturePath('written.pth'), b: file('copy.pth') });
    const [ours, theirs] = [await openWeightsFile(fixturePath('written.pth')), await openWeightsFile(file('copy.pth'))];
    expect([...theirs.tensors.keys()]).toEqual([...ours.tensors.keys()]);
    for (const name of ours.tensors.keys()) expect(await theirs.read(name), name).toEqual(await ours.read(name));
    for (const { close } of [ours, theirs]) close();
  });

  it.each(['frozen', 'batch'] as const)(
    'loads a checkpoint trained here strictly and detects the same: norm %s',
    async (norm) => {
      const device = await testDevice();
      const model = new MaskRCNN(config(norm));
      const batch = scenarioBatch();
      await model.allocate(device, new Random(1), scenarioWeights(model));
      for (let i = 0; i < 2; i++) {
        const { values } = await trainStep(
          model,
          batch,
          { kind: 'identity' },
          {
            ...step,
            clipNorm: null,
          },
        );
        values.dispose();
      }
      const thresholds = { minScore: [0, 0.5, 0.5], maskThreshold: [0, 0.5, 0.5] };
      const info = { config: model.config, classes: ['a', 'b'], resize: 1, thresholds, epoch: 1 };
      await saveCheckpoint(file('best.safetensors'), model, info);
      await convertWeights(file('best.safetensors'), file('best.pth'), {});
      await writeInputs(file('input.pth'), batch);
      torchPeer({
        do: 'detect',
        config: model.config,
        weights: file('best.pth'),
        input: file('input.pth'),
        output: file('found.pth'),
      });

      const found = await model.predict(batch.map(({ image }) => image));
      const theirs = await openWeightsFile(file('found.pth'));
      for (const [i, ours] of found.entries()) {
        const boxes = await theirs.readFloat32(`${i}.boxes`);
        expect(ours.labels.length).toBeGreaterThan(0);
        // Detections of nearly equal score may have swapped places.
        const order = matchRows(ours.boxes, boxes, 4);
        if (!order) throw new Error(`${ours.labels.length} detections, torchvision has ${boxes.length / 4}`);
        const [scores, labels] = [await theirs.read(`${i}.scores`), await theirs.read(`${i}.labels`)];
        expect([...reorderRows(ours.labels, 1, order)]).toEqual([...labels]);
        const worst = (a: Float32Array, b: ArrayLike<number>): number =>
          Math.max(...a.map((value, k) => Math.abs(value - b[k])));
        expect(worst(reorderRows(ours.boxes, 4, order), boxes)).toBeLessThanOrEqual(0.05);
        expect(worst(reorderRows(ours.scores, 1, order), scores)).toBeLessThanOrEqual(1e-3);
      }
      theirs.close();
      model.dispose();

      // Back again, with all that is known of the model.
      await convertWeights(file('best.pth'), file('again.safetensors'), {});
      if (norm === 'frozen') {
        expect(readFileSync(file('again.safetensors')).equals(readFileSync(file('best.safetensors')))).toBe(true);
      }
    },
    60_000,
  );

  it.each(['frozen', 'batch'] as const)(
    'writes a checkpoint that trains on here as there: norm %s',
    async (norm) => {
      const batch = scenarioBatch();
      await writeInputs(file('input.pth'), batch);
      const model = new MaskRCNN(config(norm));
      torchPeer({
        ...{ do: 'train', config: model.config, seed: 3, before: 3, after: 3, ...step, lossNames: LOSS_NAMES },
        ...{ input: file('input.pth'), weights: file('trained.pth'), output: file('losses.pth') },
      });
      const weights = await openWeightsFile(file('trained.pth'));
      const match = matchWeights(weights, model.state, { purpose: 'start' });
      await model.allocate(await testDevice(), new Random(1), matchedSource(weights, match));
      weights.close();
      const result = await openWeightsFile(file('losses.pth'));
      const expected = await result.readFloat32('losses');
      result.close();
      for (let i = 0; i < 3; i++) {
        const { names, values } = await trainStep(
          model,
          batch,
          { kind: 'identity' },
          {
            ...step,
            clipNorm: null,
          },
        );
        const losses = await values.floats();
        values.dispose();
        expect(names).toEqual([...LOSS_NAMES]);
        for (const [k, name] of names.entries()) {
          expect(Math.abs(losses[k] - expected[i * names.length + k]), `${name} of step ${i + 1}`).toBeLessThanOrEqual(
            1e-3,
          );
        }
      }
      model.dispose();
    },
    60_000,
  );
});
