import { createHash } from 'node:crypto';
import { appendFileSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadSample } from '../../src/data/dataset.ts';
import { readSplitFile } from '../../src/data/splitFile.ts';
import { openSafetensors } from '../../src/model/safetensors.ts';
import { eventFileName } from '../../src/report/tensorboard.ts';
import type { Device } from '../../src/tensor/device.ts';
import { openCheckpoint } from '../../src/train/checkpoint.ts';
import { NonFiniteLossError } from '../../src/train/losses.ts';
import { type GivenTrainOptions, readTrainConfig } from '../../src/train/options.ts';
import { allocateRun, type Run } from '../../src/train/run.ts';
import { type EpochMetrics, RunLog } from '../../src/train/runLog.ts';
import type { Profile } from '../../src/train/stepProfile.ts';
import { Trainer, type TrainHooks, type TrainOutcome } from '../../src/train/trainer.ts';
import { removeFolders, temporaryFolder } from '../data/folders.ts';
import { shownScalars } from '../reference/eventFile.ts';
import { testDevice } from '../support/device.ts';
import { blobDataset, HEIGHT, smallestRun, WIDTH } from './tinyRun.ts';

const LOSSES = ['loss_objectness', 'loss_rpn_box_reg', 'loss_classifier', 'loss_box_reg', 'loss_mask', 'total'];

let device: Device;
let data: string;
/** A finished run of two epochs, shared by the tests that only look at it. */
let reference: string;
let finished: { run: Run; outcome: TrainOutcome; lines: string[] };

interface Trained {
  run: Run;
  outcome: TrainOutcome;
  lines: string[];
}

/** Trains into `out`; `stopAfter` asks to stop at the n-th question, `resume` goes on. The model's memory is given back. */
async function train(
  out: string,
  given: GivenTrainOptions = {},
  {
    stopAfter = Number.POSITIVE_INFINITY,
    resume = false,
    ...hooks
  }: { stopAfter?: number; resume?: boolean } & Pick<TrainHooks, 'profiled'> = {},
): Promise<Trained> {
  const run = smallestRun(given.data ?? data, out, given);
  await allocateRun(run, device);
  const lines: string[] = [];
  let asked = 0;
  try {
    const say = (line: string) => lines.push(line);
    const trainer = new Trainer(run, { say, stopping: () => ++asked >= stopAfter, ...hooks });
    if (resume) await trainer.resume();
    else trainer.start();
    return { run, outcome: await trainer.train(), lines };
  } finally {
    run.model.dispose();
  }
}

const hash = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');

/** Hashes of every weights file of a run, by its path inside it. */
function weights(out: string): Record<string, string> {
  const files = ['best.safetensors', ...readdirSync(join(out, 'checkpoints')).map((name) => `checkpoints/${name}`)];
  return Object.fromEntries(files.map((name) => [name, hash(join(out, name))]));
}

function metrics(out: string): Record<string, unknown>[] {
  const text = readFileSync(join(out, 'metrics.jsonl'), 'utf8');
  expect(text.endsWith('\n')).toBe(true);
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

const withoutTime = (out: string) => metrics(out).map(({ secondsPerStep, ...rest }) => rest);

/** What TensorBoard shows of a run, but the times of its steps. */
const logOf = (out: string) => [...shownScalars(out)].filter(([tag]) => tag !== 'epoch/secondsPerStep').sort();

beforeAll(async () => {
  device = await testDevice();
  data = blobDataset();
  reference = temporaryFolder();
  finished = await train(reference);
});
afterAll(removeFolders);

describe('a finished run', () => {
  it('leaves one line of metrics an epoch, all losses finite, and the scores under their keys', () => {
    const lines = metrics(reference);
    expect(lines.map(({ epoch }) => epoch)).toEqual([1, 2]);
    for (const line of lines) {
      expect(Object.keys(line)).toEqual([
        'epoch',
        'steps',
        'lr',
        'secondsPerStep',
        'train',
        'validation',
        'iouMap',
        'boxMap30',
        'maskAP50',
        'boxAP50',
      ]);
      for (const key of ['train', 'validation'] as const) {
        const losses = line[key] as Record<string, number>;
        expect(Object.keys(losses)).toEqual(LOSSES);
        expect(Object.values(losses).every((value) => Number.isFinite(value) && value > 0)).toBe(true);
        const { total, ...parts } = losses;
        expect(total).toBeCloseTo(
          Object.values(parts).reduce((sum, value) => sum + value, 0),
          10,
        );
      }
      for (const key of ['iouMap', 'boxMap30', 'maskAP50', 'boxAP50']) {
        expect(line[key]).toBeGreaterThanOrEqual(0);
        expect(line[key]).toBeLessThanOrEqual(1);
      }
      expect(line.secondsPerStep).toBeGreaterThan(0);
    }
    expect(lines[0].steps).toBe(Math.ceil(finished.run.split.train.length / 2));
  });

  it('logs every step and every epoch for TensorBoard, over the steps done', () => {
    const shown = shownScalars(reference);
    const lines = metrics(reference) as unknown as EpochMetrics[];
    const [{ steps }] = lines;
    for (const name of [...LOSSES, 'lr']) {
      const points = shown.get(`step/${name}`) ?? [];
      expect(points.map(([step]) => step)).toEqual(Array.from({ length: 2 * steps }, (_, i) => i + 1));
    }
    const byEpoch = (tag: string, value: (line: EpochMetrics) => number) =>
      expect(shown.get(tag), tag).toEqual(lines.map((line) => [line.epoch * steps, Math.fround(value(line))]));
    for (const name of LOSSES) {
      byEpoch(`train/${name}`, ({ train }) => train[name]);
      byEpoch(`validation/${name}`, ({ validation }) => validation[name]);
    }
    byEpoch('scores/iouMap', ({ iouMap }) => iouMap ?? Number.NaN);
    byEpoch('scores/boxAP50', ({ boxAP50 }) => boxAP50);
    byEpoch('epoch/epoch', ({ epoch }) => epoch);
    byEpoch('epoch/secondsPerStep', ({ secondsPerStep }) => secondsPerStep);
    // The steps' own losses are those whose means the epoch has.
    for (const { epoch, train, lr } of lines) {
      const own = (name: string) => (shown.get(`step/${name}`) ?? []).slice((epoch - 1) * steps, epoch * steps);
      const mean = own('total').reduce((sum, [, value]) => sum + value, 0) / steps;
      expect(mean).toBeCloseTo(train.total, 5);
      expect(own('lr').at(-1)?.[1]).toBe(Math.fround(lr));
    }
  });

  it('tells the user each epoch with its losses and scores', () => {
    const epochs = finished.lines.filter((line) => line.startsWith('Epoch '));
    expect(epochs).toHaveLength(2);
    for (const part of [...LOSSES.slice(0, 5).map((name) => name.replace('loss_', '')), 'mask AP50', 'competition']) {
      expect(epochs[1]).toContain(part);
    }
  });

  it('leaves a checkpoint an epoch and the best, whose metadata hold no path, time or adapter', () => {
    expect(readdirSync(reference).sort()).toEqual([
      'best.safetensors',
      'checkpoints',
      'config.json',
      eventFileName(1),
      'metrics.jsonl',
      'split.json',
      'state.safetensors',
    ]);
    expect(readdirSync(join(reference, 'checkpoints')).sort()).toEqual([
      'epoch-001.safetensors',
      'epoch-002.safetensors',
    ]);
    const { info, file } = openCheckpoint(join(reference, 'best.safetensors'));
    file.close();
    expect(info).toMatchObject({ config: finished.run.model.config, classes: ['disc', 'oval'], resize: 1 });
    expect(info.thresholds.minScore).toHaveLength(3);
    expect(info.thresholds.maskThreshold).toHaveLength(3);
    const { metadata } = openSafetensors(join(reference, 'best.safetensors'));
    expect(Object.keys(metadata).sort()).toEqual(['classes', 'config', 'epoch', 'format', 'resize', 'thresholds']);
    expect(JSON.stringify(metadata)).not.toContain(reference);
  });

  it('leaves its split, which gives the same split again', () => {
    const { dataset, split } = finished.run;
    const path = join(reference, 'split.json');
    expect(readSplitFile(path, dataset.images)).toEqual(split);
    expect(JSON.parse(readFileSync(path, 'utf8'))).toMatchObject({ split: { method: 'balanced', validation: 0.3 } });
  });

  it('keeps the best epoch by score, its weights bit for bit those of its checkpoint', () => {
    if (finished.outcome.stopped) throw new Error('The run did not end.');
    const { best, final } = finished.outcome;
    const scores = metrics(reference).map(({ iouMap, maskAP50, validation }) => [
      iouMap as number,
      maskAP50 as number,
      -(validation as Record<string, number>).total,
    ]);
    const greater = (a: number[], b: number[]): boolean => {
      const at = a.findIndex((value, i) => value !== b[i]);
      return at >= 0 && a[at] > b[at];
    };
    expect(best.epoch).toBe(greater(scores[1], scores[0]) ? 2 : 1);
    const kept = openSafetensors(join(reference, 'best.safetensors'));
    const epoch = openSafetensors(join(reference, 'checkpoints', `epoch-00${best.epoch}.safetensors`));
    expect(kept.metadata.epoch).toBe(String(best.epoch));
    expect([...kept.tensors.keys()]).toEqual([...epoch.tensors.keys()]);
    for (const name of kept.tensors.keys()) expect(kept.readFloat32(name)).toEqual(epoch.readFloat32(name));
    kept.close();
    epoch.close();
    // Thresholds are chosen among those that include no worse than the ones of training.
    expect(final.scores.iouMap ?? 0).toBeGreaterThanOrEqual(best.iouMap);
  });

  it('gives the same bytes again from its config.json, and others from another seed', async () => {
    const again = temporaryFolder();
    await train(again, readTrainConfig(join(reference, 'config.json')));
    expect(weights(again)).toEqual(weights(reference));
    expect(hash(join(again, 'state.safetensors'))).toBe(hash(join(reference, 'state.safetensors')));
    expect(withoutTime(again)).toEqual(withoutTime(reference));
    const other = temporaryFolder();
    await train(other, { seed: 7, epochs: 1 });
    expect(hash(join(other, 'checkpoints/epoch-001.safetensors'))).not.toBe(
      hash(join(reference, 'checkpoints/epoch-001.safetensors')),
    );
  });
});

describe('a stopped run', () => {
  it.each([
    ['in the middle of the first epoch', 1],
    ['in the middle of the second', 4],
  ])('%s goes on to the same bytes', async (_, stopAfter) => {
    const out = temporaryFolder();
    const first = await train(out, {}, { stopAfter });
    expect(first.outcome).toEqual({ stopped: true });
    const given = readTrainConfig(join(out, 'config.json'));
    const second = await train(out, given, { resume: true });
    expect(second.outcome.stopped).toBe(false);
    expect(weights(out)).toEqual(weights(reference));
    expect(withoutTime(out)).toEqual(withoutTime(reference));
    expect(logOf(out)).toEqual(logOf(reference));
  });

  it('leaves no trace in the log of what it had done beyond its state when it was killed', async () => {
    const out = temporaryFolder();
    await train(out, {}, { stopAfter: 1 });
    // As a run leaves it that goes on after its last state and is killed within the second epoch.
    const log = RunLog.resume(out, 0, 1);
    const { steps } = (metrics(reference) as unknown as EpochMetrics[])[0];
    for (let step = 2; step <= steps + 1; step++) log.step(step, { loss_mask: 1000 }, 1000);
    log.epoch(steps, { ...(metrics(reference)[0] as unknown as EpochMetrics), iouMap: 0.999 });
    expect(metrics(out)).toHaveLength(1);
    await train(out, readTrainConfig(join(out, 'config.json')), { resume: true });
    expect(readdirSync(out).filter((name) => name.includes('tfevents'))).toEqual([1, 2, 3].map(eventFileName));
    expect(withoutTime(out)).toEqual(withoutTime(reference));
    expect(logOf(out)).toEqual(logOf(reference));
  });
});

describe('a profiled run', () => {
  const profile = async (given: GivenTrainOptions, stopAfter?: number): Promise<{ out: string; taken: Profile[] }> => {
    const out = temporaryFolder();
    const taken: Profile[] = [];
    await train(out, given, {
      stopAfter,
      profiled: async (profile) => {
        taken.push(profile);
        await device.gpu.trim();
      },
    });
    return { out, taken };
  };

  it('gives the same bytes, and times steps of one epoch after the first three', async (context) => {
    if (!device.gpu.device.features.has('timestamp-query')) context.skip('no timestamp queries');
    const { out, taken } = await profile({});
    expect(taken).toHaveLength(1);
    const [{ steps, spans, dispatches, wallMs }] = taken;
    // Two epochs of three steps: all of the second.
    expect(steps).toBe(3);
    expect(spans).toHaveLength(Math.round(dispatches * steps));
    expect(new Set(spans.map(({ module }) => module))).toContain('sgd');
    expect(wallMs).toBeGreaterThan(0);
    expect(weights(out)).toEqual(weights(reference));
    expect(withoutTime(out)).toEqual(withoutTime(reference));
  });

  it('takes what steps there are in a session that is short or stopped', async (context) => {
    if (!device.gpu.device.features.has('timestamp-query')) context.skip('no timestamp queries');
    const short = await profile({ epochs: 1 });
    expect(short.taken.map(({ steps }) => steps)).toEqual([1]);
    const stopped = await profile({}, 4);
    expect(stopped.taken.map(({ steps }) => steps)).toEqual([1]);
  });
});

describe('a run', () => {
  it('that has ended already changes nothing when it is gone on with', async () => {
    const [before, lines, files] = [weights(reference), metrics(reference), readdirSync(reference)];
    const { outcome } = await train(reference, readTrainConfig(join(reference, 'config.json')), { resume: true });
    expect(outcome.stopped).toBe(false);
    expect(weights(reference)).toEqual(before);
    expect(metrics(reference)).toEqual(lines);
    expect(readdirSync(reference)).toEqual(files);
  });

  it('tells once how many cells vanish at its resize factor', async () => {
    const resize = 0.5;
    const speck = `image-1,1 2,${WIDTH},${HEIGHT},disc\nimage-2,9 2,${WIDTH},${HEIGHT},disc\n`;
    const specks = blobDataset();
    appendFileSync(join(specks, 'train.csv'), speck);
    const { lines, run } = await train(temporaryFolder(), { data: specks, resize, epochs: 2 });
    const told = lines.filter((line) => line.startsWith('Cells that vanish'));
    const dropped = run.split.train.reduce((sum, record) => sum + loadSample(record, { resize }).dropped, 0);
    expect(dropped).toBeGreaterThan(0);
    expect(told).toEqual([`Cells that vanish at --resize ${resize} and are left out: ${dropped}`]);
  });

  it('whose state is of another model or no state is refused by name', async () => {
    const out = temporaryFolder();
    mkdirSync(join(out, 'checkpoints'));
    copyFileSync(join(reference, 'best.safetensors'), join(out, 'state.safetensors'));
    await expect(train(out, {}, { resume: true })).rejects.toThrow(
      `${join(out, 'state.safetensors')}: expected the state of an interrupted run`,
    );
  });
});

describe('a loss that is no number', () => {
  it('names loss and images, ends with 3 and keeps the last checkpoint', async () => {
    const out = temporaryFolder();
    // The first epoch is a good one; the second has a learning rate that no model survives.
    const training = train(out, { epochs: 3, warmupSteps: 0, stepLr: { size: 1, gamma: 1e30 } });
    const error: unknown = await training.then(
      () => undefined,
      (reason) => reason,
    );
    if (!(error instanceof NonFiniteLossError)) throw error ?? new Error('Training went on.');
    expect(error.exitCode).toBe(3);
    expect(error.message).toMatch(/^Training stopped: loss_\w+(, loss_\w+)* is not finite on the images image-\d/);
    expect(error.message).not.toContain('\n');
    expect(metrics(out).map(({ epoch }) => epoch)).toEqual([1]);
    for (const name of ['best.safetensors', 'checkpoints/epoch-001.safetensors']) {
      const { file } = openCheckpoint(join(out, name));
      for (const tensor of file.tensors.keys()) {
        expect(file.readFloat32(tensor).every(Number.isFinite), `${name} ${tensor}`).toBe(true);
      }
      file.close();
    }
    expect(existsSync(join(out, 'checkpoints/epoch-002.safetensors'))).toBe(false);
  });
});
