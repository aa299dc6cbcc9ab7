import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { Loader } from '../../src/data/loader.ts';
import { Random } from '../../src/data/random.ts';
import { ensureSyntheticDataset } from '../../src/data/synthetic.ts';
import type { Detections, Sample } from '../../src/data/types.ts';
import { GradScaler } from '../../src/kernels/gradScaler.ts';
import type { SampleOrder } from '../../src/kernels/sampler.ts';
import { MaskRCNN } from '../../src/model/maskRcnn.ts';
import type { Precision } from '../../src/model/precision.ts';
import { readLosses } from '../../src/train/losses.ts';
import { completeTrainOptions, type GivenTrainOptions } from '../../src/train/options.ts';
import { allocateRun, planRun } from '../../src/train/run.ts';
import { learningRate } from '../../src/train/schedule.ts';
import { trainStep } from '../../src/train/step.ts';
import { Trainer } from '../../src/train/trainer.ts';
import { removeFolders, temporaryFolder } from '../data/folders.ts';
import { testDevice } from '../support/device.ts';
import { blobDataset, smallestRun } from './tinyRun.ts';

const device = await testDevice();
const unfit = device.hasHalves ? '' : ` (skipped: ${device.gpu.opened.info.name} lacks shader-f16)`;

afterAll(async () => {
  removeFolders();
  await device.gpu.trim();
});

/** Draws that depend on nothing but their number, so that one more proposal does not change all samples after it. */
function draws(): () => SampleOrder {
  let drawn = 0;
  return () => ({ kind: 'random', seed: 1000 + drawn++ });
}

/** The first batches of `tiny` on synthetic cells. */
async function batchesOfTiny(count: number): Promise<Sample[][]> {
  const { dataset, split } = tiny('f32').run;
  const records = split.train.slice(0, 2 * count);
  const batches: Sample[][] = [];
  for await (const batch of new Loader({ dataset, records, batchSize: 2, random: 1, resize: 0.5, workers: 0 }))
    batches.push(batch);
  return batches;
}

function tiny(precision: Precision, model: GivenTrainOptions['model'] = {}) {
  const options = completeTrainOptions({ precision, model });
  return { options, run: planRun(options, ensureSyntheticDataset(), 'never written') };
}

/**
 * The box head learns from every proposal instead of a sample. Of 64 sampled boxes the losses depend on chance: float32 weights that begin
 * 0.03 % away give losses that differ by up to 9 % over 50 steps, with every box by 1.2 %.
 */
const EVERY_BOX = { boxBatchSizePerImage: 512, boxPositiveFraction: 1 };

interface Trained {
  model: MaskRCNN;
  /** Of each step, by name. */
  losses: Record<string, number>[];
  scaler?: GradScaler;
}

async function trainTiny(precision: Precision, steps: number, batches: readonly Sample[][]): Promise<Trained> {
  const { options, run } = tiny(precision, EVERY_BOX);
  await allocateRun(run, device);
  const scaler = precision === 'f16' ? new GradScaler(device) : undefined;
  const nextOrder = draws();
  const losses: Record<string, number>[] = [];
  for (let step = 0; step < steps; step++) {
    const lr = learningRate(step, 30, options);
    const batch = batches[step % batches.length];
    losses.push(await readLosses(await trainStep(run.model, batch, nextOrder(), { ...options, lr, scaler }), []));
  }
  return { model: run.model, losses, scaler };
}

/** The detections of `expected` that `found` has not: of the same class, each side within half a pixel, the score within .02. */
function missing(expected: Detections, found: Detections): string[] {
  return [...expected.scores.keys()].flatMap((i) => {
    const box = expected.boxes.subarray(4 * i, 4 * i + 4);
    const near = [...found.scores.keys()].some(
      (k) =>
        found.labels[k] === expected.labels[i] &&
        Math.abs(found.scores[k] - expected.scores[i]) < 0.02 &&
        box.every((side, axis) => Math.abs(side - found.boxes[4 * k + axis]) < 0.5),
    );
    return near ? [] : [`${expected.labels[i]} ${expected.scores[i]} [${box.join(', ')}]`];
  });
}

describe.skipIf(unfit !== '')(`float16${unfit}`, () => {
  it('gives the losses of float32 over 50 steps of tiny: each within 2 %; and then its detections', async () => {
    const steps = 50;
    const batches = await batchesOfTiny(10);
    const full = await trainTiny('f32', steps, batches);
    const half = await trainTiny('f16', steps, batches);
    const sums = ({ losses }: Trained): number[] =>
      Object.keys(losses[0]).map((name) => losses.reduce((sum, loss) => sum + loss[name], 0));
    const [expectedSums, foundSums] = [sums(full), sums(half)];
    for (const [i, value] of expectedSums.entries()) {
      expect(Math.abs(foundSums[i] / value - 1), Object.keys(full.losses[0])[i]).toBeLessThan(0.02);
    }
    expect((await half.scaler?.state())?.scale).toBe(65536);

    const copy = new MaskRCNN(full.model.config);
    copy.precision = 'f16';
    const entries = new Map<string, { shape: readonly number[]; data: Float32Array }>();
    for await (const entry of full.model.state.values()) entries.set(entry.name, entry);
    await copy.allocate(device, new Random(1), (name) => entries.get(name));
    const images = batches.slice(0, 2).flatMap((batch) => batch.map(({ image }) => image));
    const expected = await full.model.predict(images);
    const found = await copy.predict(images);
    const count = expected.reduce((sum, { scores }) => sum + scores.length, 0);
    expect(count).toBeGreaterThan(100);
    // Where two boxes overlap as much as suppression allows, or two scores are equal, the other one may stay.
    const lost = expected.flatMap((one, i) => missing(one, found[i]));
    expect(lost.length / count, lost.join('; ')).toBeLessThan(0.01);
    for (const { model, scaler } of [full, half]) {
      model.dispose();
      scaler?.dispose();
    }
    copy.dispose();
  });

  it('gives the first gradients of float32: half of them within 3 % of their length, all within 15 %', async () => {
    const batches = await batchesOfTiny(1);
    const gradients = async (precision: Precision): Promise<Map<string, Float32Array>> => {
      // All boxes and many anchors: a level of which a draw has a few anchors alone has a gradient that is all rounding.
      const { run } = tiny(precision, { ...EVERY_BOX, rpnBatchSizePerImage: 2048 });
      await allocateRun(run, device);
      const scaler = new GradScaler(device);
      const values = new Map<string, Float32Array>();
      await readLosses(
        await trainStep(run.model, batches[0], draws()(), {
          lr: 0,
          momentum: 0,
          weightDecay: 0,
          clipNorm: null,
          scaler,
        }),
        [],
      );
      const { scale } = await scaler.state();
      for (const name of run.model.state.parameters.names) {
        values.set(
          name,
          (await run.model.state.readGradient(name)).map((value) => value / scale),
        );
      }
      run.model.dispose();
      scaler.dispose();
      return values;
    };
    const full = await gradients('f32');
    const half = await gradients('f16');
    const length = (values: Float32Array): number => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
    const errors = [...full].map(([name, expected]) => {
      const own = half.get(name) as Float32Array;
      const error = length(expected.map((value, i) => value - own[i])) / length(expected);
      expect(error, name).toBeLessThan(0.15);
      return error;
    });
    expect(errors.sort((a, b) => a - b)[errors.length >> 1]).toBeLessThan(0.03);
  });

  it('leaves steps out until the gradients of so large a scale fit, and goes on', async () => {
    const [batch] = await batchesOfTiny(1);
    const { options, run } = tiny('f16');
    await allocateRun(run, device);
    const scaler = new GradScaler(device, { initScale: 2 ** 30 });
    const nextOrder = draws();
    for (let step = 0; step < 20; step++) {
      await readLosses(await trainStep(run.model, batch, nextOrder(), { ...options, lr: 0.001, scaler }), []);
    }
    const { scale, goodSteps, skippedSteps } = await scaler.state();
    expect(skippedSteps).toBeGreaterThan(0);
    expect(goodSteps).toBeGreaterThan(0);
    expect(scale).toBe(2 ** (30 - skippedSteps));
    for await (const { name, data } of run.model.state.values()) expect(data.every(Number.isFinite), name).toBe(true);
    run.model.dispose();
    scaler.dispose();
  });

  it('holds less memory for activations', async () => {
    const [batch] = await batchesOfTiny(1);
    const peaks: number[] = [];
    for (const precision of ['f32', 'f16'] as const) {
      const { run } = tiny(precision);
      await allocateRun(run, device);
      await device.gpu.trim();
      await device.scope(async () => {
        const before = device.gpu.counters().byTag.activations ?? 0;
        const losses = await run.model.trainingLosses(
          batch.map(({ image }) => image),
          batch.map(({ target }) => target),
          { order: draws()() },
        );
        expect(Object.keys(losses)).toHaveLength(5);
        peaks.push(device.gpu.counters().byTag.activations - before);
      });
      run.model.dispose();
    }
    expect(peaks[1] / peaks[0]).toBeLessThan(0.65);
  });

  it('goes on with a stopped run to the same bytes, and tells the scale of each epoch', async () => {
    const data = blobDataset();
    const train = async (out: string, stopAfter: number, resume = false): Promise<string[]> => {
      const given: GivenTrainOptions = { precision: 'f16' };
      const run = smallestRun(data, out, given);
      await allocateRun(run, device);
      const lines: string[] = [];
      let asked = 0;
      const trainer = new Trainer(run, { say: (line) => lines.push(line), stopping: () => ++asked >= stopAfter });
      if (resume) await trainer.resume();
      else trainer.start();
      await trainer.train();
      run.model.dispose();
      return lines;
    };
    const [whole, stopped] = [temporaryFolder(), temporaryFolder()];
    const lines = await train(whole, Number.POSITIVE_INFINITY);
    expect(lines.join('\n')).toMatch(/loss scale \d+, \d+ steps left out so far/);
    await train(stopped, 3);
    await train(stopped, Number.POSITIVE_INFINITY, true);
    const bytes = (out: string): string =>
      createHash('sha256')
        .update(readFileSync(join(out, 'state.safetensors')))
        .digest('hex');
    expect(bytes(stopped)).toBe(bytes(whole));
    const [metrics] = readFileSync(join(whole, 'metrics.jsonl'), 'utf8').split('\n');
    expect(JSON.parse(metrics)).toMatchObject({ lossScale: expect.any(Number), skippedSteps: expect.any(Number) });
  });
});
