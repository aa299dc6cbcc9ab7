import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { evaluate, openEvaluation } from '../../src/cli/evaluateCommand.ts';
import { openPrediction } from '../../src/cli/predictCommand.ts';
import { describeSelected, epochTable, openSelection, select } from '../../src/cli/selectCommand.ts';
import { train } from '../../src/cli/trainCommand.ts';
import { openTuning, thresholdTable, tune } from '../../src/cli/tuneCommand.ts';
import { loadSample } from '../../src/data/dataset.ts';
import { cropRle, selectInstances } from '../../src/eval/submission.ts';
import { openSafetensors } from '../../src/model/safetensors.ts';
import type { Device } from '../../src/tensor/device.ts';
import { openCheckpoint, rewriteCheckpoint } from '../../src/train/checkpoint.ts';
import type { GivenTrainOptions } from '../../src/train/options.ts';
import { HEADER, removeFolders, temporaryFolder } from '../data/folders.ts';
import { testDevice } from '../support/device.ts';
import { blobDataset, HEIGHT, smallestConfig, smallestRun, WIDTH } from '../train/tinyRun.ts';
import { command, writeWeights } from './support.ts';

const GRID = { scores: [0.1, 0.2, 0.3, 0.4], masks: [0.3, 0.5], batchSize: 2 };

let device: Device;
let data: string;
/** A finished run of three epochs with masks, and one of a box-only model. */
let masks: string;
let boxes: string;

async function finished(given: GivenTrainOptions): Promise<string> {
  const out = join(temporaryFolder(), 'run');
  await train(smallestRun(data, out, { epochs: 3, lr: 0.01, ...given }), false, device);
  return out;
}

/** A copy of a run that a test may change. */
function copyOf(run: string): string {
  const copy = temporaryFolder();
  cpSync(run, copy, { recursive: true });
  return copy;
}

const best = (run: string): string => join(run, 'best.safetensors');
const epoch = (run: string, number: number): string => join(run, 'checkpoints', `epoch-00${number}.safetensors`);

function infoOf(path: string) {
  const { info, file } = openCheckpoint(path);
  file.close();
  return info;
}

function lines(run: string) {
  const text = readFileSync(join(run, 'metrics.jsonl'), 'utf8').trimEnd();
  return text.split('\n').map((line) => JSON.parse(line));
}

function stateBest(run: string) {
  const file = openSafetensors(join(run, 'state.safetensors'));
  file.close();
  return JSON.parse(file.metadata.position).best;
}

/** Asks the operation to stop, as Ctrl-C does, once it has begun. */
async function interrupted<T>(operation: Promise<T>): Promise<T> {
  const timer = setInterval(() => {
    if (process.listenerCount('SIGINT') === 0) return;
    clearInterval(timer);
    process.emit('SIGINT');
  }, 1);
  try {
    return await operation;
  } finally {
    clearInterval(timer);
    process.exitCode = undefined;
  }
}

beforeAll(async () => {
  device = await testDevice();
  data = blobDataset();
  masks = await finished({});
  boxes = await finished({ model: { masks: false } });
});
afterAll(removeFolders);

describe('select', () => {
  it('gives the scores that training wrote, and its best weights bit for bit', async () => {
    const run = copyOf(masks);
    const expected = readFileSync(best(run));
    rmSync(best(run));
    const before = device.gpu.counters().inUse;
    const selected = await select(await openSelection(run), device);
    expect(device.gpu.counters().inUse).toBe(before);
    const told = selected?.epochs.map(({ score, scores }) => [
      score.epoch,
      scores.iouMap,
      scores.boxMap30,
      scores.maskAP50,
      scores.boxAP50,
      score.validationLoss,
    ]);
    const trained = lines(run).map((line) => [
      line.epoch,
      line.iouMap,
      line.boxMap30,
      line.maskAP50,
      line.boxAP50,
      line.validation.total,
    ]);
    expect(told).toEqual(trained);
    expect(selected).toMatchObject({ metric: 'iouMap', previous: null, path: best(run) });
    expect(readFileSync(best(run))).toEqual(expected);
    expect(stateBest(run)).toEqual(stateBest(masks));
    // What people read of the run follows.
    expect(JSON.parse(readFileSync(join(run, 'scores.json'), 'utf8'))).toHaveProperty('perClass');
    expect(readFileSync(join(run, 'report.html'), 'utf8')).toContain('<h1');
  });

  it('goes by another metric, tells the run’s state, and the run goes on from there', async () => {
    const run = copyOf(masks);
    // The epoch that training took for the best is made the worst: its weights become zeros.
    const spoiled = infoOf(best(run)).epoch;
    const { config, classes } = infoOf(best(run));
    const zeros = writeWeights(join(temporaryFolder(), 'w.safetensors'), config, classes);
    rewriteCheckpoint(zeros, epoch(run, spoiled), infoOf(epoch(masks, spoiled)));
    const selected = await select(await openSelection(run, 'boxAP50'), device);
    if (!selected) throw new Error('It was stopped.');
    const others = lines(run).filter((line) => line.epoch !== spoiled);
    const highest = Math.max(...others.map((line) => line.boxAP50));
    const winner = infoOf(best(run));
    expect(others.find((line) => line.epoch === winner.epoch)?.boxAP50).toBe(highest);
    const table = epochTable(selected);
    expect(table).toMatch(new RegExp(`│ +${winner.epoch} │.*│ best │`));
    expect(table).toContain('box AP50 *');
    expect(describeSelected(selected, run)).toEqual([
      `Best is epoch ${winner.epoch}: ${best(run)}`,
      expect.stringContaining(`still those of epoch ${spoiled}`),
    ]);
    expect(stateBest(run)).toMatchObject({ epoch: winner.epoch });
    const chosen = openSafetensors(best(run));
    const weights = openSafetensors(epoch(run, winner.epoch));
    for (const name of weights.tensors.keys()) expect(chosen.readFloat32(name)).toEqual(weights.readFloat32(name));
    chosen.close();
    weights.close();
    // Going on with the run, which has ended, keeps the choice.
    await train(smallestRun(data, run, { epochs: 3, lr: 0.01 }), true, device);
    expect(infoOf(best(run))).toEqual(winner);
  });

  it('keeps the thresholds before any tuning where the run was told to', async () => {
    const run = copyOf(masks);
    const config = JSON.parse(readFileSync(join(run, 'config.json'), 'utf8'));
    writeFileSync(join(run, 'config.json'), JSON.stringify({ ...config, tune: false }));
    await select(await openSelection(run), device);
    expect(infoOf(best(run)).thresholds).toEqual({ minScore: [0.5, 0.5, 0.5], maskThreshold: [0.5, 0.5, 0.5] });
  });

  it('writes nothing when it is stopped', async () => {
    const run = copyOf(masks);
    rmSync(best(run));
    expect(await interrupted(select(await openSelection(run), device))).toBeNull();
    expect(existsSync(best(run))).toBe(false);
  });
});

describe('tune', () => {
  /** Images whose truth is what the weights find at these thresholds, the same for all classes. */
  async function foundBy(weights: string, minScore: number, maskThreshold: number): Promise<string> {
    const dir = temporaryFolder();
    const own = join(temporaryFolder(), 'w.safetensors');
    const thresholds = { minScore: [0, minScore, minScore], maskThreshold: [0, maskThreshold, maskThreshold] };
    rewriteCheckpoint(weights, own, { ...infoOf(weights), thresholds });
    const { stored, dataset } = await openEvaluation(own, data, 2);
    await stored.allocate(device);
    const lines = [HEADER];
    for (const record of dataset.images.slice(0, 4)) {
      const { image } = loadSample(record);
      const [detections] = await stored.model.predict([image]);
      const cells = selectInstances(detections, thresholds, WIDTH, HEIGHT);
      expect(cells.length, record.id).toBeGreaterThan(0);
      for (const { mask, label } of cells) {
        lines.push(`${record.id},${cropRle(mask, WIDTH)},${WIDTH},${HEIGHT},${dataset.classes[label - 1]}`);
      }
    }
    stored.model.dispose();
    writeFileSync(join(dir, 'train.csv'), `${lines.join('\n')}\n`);
    symlinkSync(join(data, 'train'), join(dir, 'train'));
    return dir;
  }

  it('finds the thresholds that the truth was made with, stores them, and leaves the weights as they are', async () => {
    const weights = join(temporaryFolder(), 'w.safetensors');
    copyFileSync(epoch(masks, 1), weights);
    const truth = await foundBy(weights, 0.1, 0.3);
    const before = device.gpu.counters().inUse;
    const tuned = await tune(await openTuning({ weights, data: truth, ...GRID }), device);
    if (!tuned) throw new Error('It was stopped.');
    expect(device.gpu.counters().inUse).toBe(before);
    expect(tuned.thresholds.before).toEqual(infoOf(epoch(masks, 1)).thresholds);
    expect(infoOf(weights)).toEqual({ ...infoOf(epoch(masks, 1)), thresholds: tuned.thresholds.after });
    // Cells of a single row or column have no box and are no truth: not all may be met.
    expect(tuned.scores.before.iouMap).toBeLessThan(0.5);
    expect(tuned.scores.after.iouMap).toBeGreaterThan(0.9);
    expect(tuned.thresholds.after.maskThreshold.slice(1)).toContain(0.3);
    const scores = await evaluate(await openEvaluation(weights, truth, 2), device);
    expect(scores?.iouMap).toBe(tuned.scores.after.iouMap);
    const untuned = await evaluate(await openEvaluation(epoch(masks, 1), truth, 2), device);
    expect(untuned?.iouMap).toBe(tuned.scores.before.iouMap);
    const [a, b] = [openSafetensors(weights), openSafetensors(epoch(masks, 1))];
    expect([...a.tensors.keys()]).toEqual([...b.tensors.keys()]);
    for (const name of b.tensors.keys()) expect(a.readFloat32(name)).toEqual(b.readFloat32(name));
    a.close();
    b.close();
  });

  it('takes a run’s best weights and validation images, prints the table, and writes a copy where told', async () => {
    const run = copyOf(masks);
    const kept = readFileSync(best(run));
    const copy = join(temporaryFolder(), 'deep', 'tuned.safetensors');
    const tuned = await tune(await openTuning({ run, out: copy, ...GRID }), device);
    if (!tuned) throw new Error('It was stopped.');
    const output = thresholdTable(tuned, ['disc', 'oval']);
    expect(readFileSync(best(run))).toEqual(kept);
    const { thresholds } = infoOf(copy);
    const split = (await openTuning({ run, ...GRID })).records;
    const { validation } = smallestRun(data, 'never written').split;
    expect(split.map(({ id }) => id)).toEqual(validation.map(({ id }) => id));
    for (const part of ['disc', 'oval', `all, ${split.length} images`, '→']) expect(output).toContain(part);
    for (const label of [1, 2]) {
      expect(output).toContain(`→ ${thresholds.minScore[label]} / ${thresholds.maskThreshold[label]}`);
    }
  });

  it('takes the validation images of a split file only', async () => {
    const splitFile = join(masks, 'split.json');
    const { records } = await openTuning({ weights: best(masks), data, splitFile, ...GRID });
    expect(records.map(({ id }) => id)).toEqual(JSON.parse(readFileSync(splitFile, 'utf8')).validation);
    expect((await openTuning({ weights: best(masks), data, ...GRID })).records).toHaveLength(7);
    const none = join(temporaryFolder(), 'split.json');
    writeFileSync(none, JSON.stringify({ train: Array.from({ length: 7 }, (_, i) => `image-${i}`), validation: [] }));
    const open = openTuning({ weights: best(masks), data, splitFile: none, ...GRID });
    await expect(open).rejects.toThrow(`${none} has no validation image`);
  });

  it('writes nothing when it is stopped', async () => {
    const out = join(temporaryFolder(), 'tuned.safetensors');
    const tuning = await openTuning({ weights: best(masks), data, out, ...GRID });
    expect(await interrupted(tune(tuning, device))).toBeNull();
    expect(existsSync(out)).toBe(false);
  });
});

describe('a box-only run', () => {
  it('ends with the epoch of the best box score, and without a submission', () => {
    const decisive = lines(boxes).map(({ boxMap30, boxAP50, validation }) => [boxMap30, boxAP50, -validation.total]);
    const order = decisive
      .map((_, i) => i)
      .sort((a, b) => {
        const at = decisive[a].findIndex((value, k) => value !== decisive[b][k]);
        return decisive[b][at] - decisive[a][at];
      });
    expect(lines(boxes)[0]).toMatchObject({ iouMap: null, maskAP50: null });
    expect(lines(boxes)[0].train).not.toHaveProperty('loss_mask');
    expect(infoOf(best(boxes))).toMatchObject({ epoch: order[0] + 1, config: { masks: false } });
    expect(existsSync(join(boxes, 'submission.csv'))).toBe(false);
  });

  it('is selected by box score, and refuses a metric of masks', async () => {
    const run = copyOf(boxes);
    const selected = await select(await openSelection(run), device);
    expect(selected).toMatchObject({ metric: 'boxMap30', best: { score: { epoch: infoOf(best(boxes)).epoch } } });
    expect(readFileSync(best(run))).toEqual(readFileSync(best(boxes)));
    await expect(openSelection(run, 'maskAP50')).rejects.toThrow('box-only, expected boxMap30 or boxAP50');
  });

  it('is evaluated by its boxes, and has nothing to tune', async () => {
    const scores = await evaluate(await openEvaluation(best(boxes), data, 2), device);
    expect(scores).toMatchObject({ iouMap: null, maskAP50: null, instances: 18 });
    await expect(openTuning({ run: boxes, ...GRID })).rejects.toThrow('a box-only model has no competition score');
  });
});

describe('predictResize', () => {
  it('is kept in the weights, and decides how predict sees images unless an option does', async () => {
    const out = join(temporaryFolder(), 'run');
    await train(smallestRun(data, out, { epochs: 1, resize: 0.5, predictResize: 1 }), false, device);
    const weights = best(out);
    expect(infoOf(weights)).toMatchObject({ resize: 0.5, predictResize: 1 });
    expect(infoOf(best(masks))).not.toHaveProperty('predictResize');
    const images = temporaryFolder();
    symlinkSync(join(data, 'train', 'image-0.png'), join(images, 'image-0.png'));
    const target = { images, out: join(temporaryFolder(), 'found'), batchSize: 1 };
    expect((await openPrediction({ weights, ...target })).run.header.resize).toBe(1);
    expect((await openPrediction({ weights, ...target, resize: 0.25 })).run.header.resize).toBe(0.25);
    expect((await openPrediction({ weights: best(masks), ...target })).run.header.resize).toBe(1);
    // Thresholds are chosen at the size of validation.
    expect((await openTuning({ run: out, ...GRID })).stored.info.resize).toBe(0.5);
  });
});

describe('refusals', () => {
  it('name what is missing or does not fit, before a device is opened', async () => {
    const weights = writeWeights(join(temporaryFolder(), 'w.safetensors'), smallestConfig(), ['disc', 'oval']);
    const empty = temporaryFolder();
    const begun = temporaryFolder();
    copyFileSync(join(masks, 'config.json'), join(begun, 'config.json'));
    mkdirSync(join(begun, 'checkpoints'));
    const changed = copyOf(masks);
    const other = join(temporaryFolder(), 'data');
    cpSync(data, other, { recursive: true });
    const table = readFileSync(join(data, 'train.csv'), 'utf8').replaceAll('oval', 'other');
    writeFileSync(join(other, 'train.csv'), table);
    const config = JSON.parse(readFileSync(join(masks, 'config.json'), 'utf8'));
    writeFileSync(join(changed, 'config.json'), JSON.stringify({ ...config, data: other }));
    for (const [args, parts] of [
      [['tune'], ['Expected --run DIR, or --weights FILE and --data DIR.']],
      [
        ['tune', '--run', masks, '--data', data],
        ['--run', 'without --data'],
      ],
      [
        ['tune', '--run', masks, '--split-file', join(masks, 'split.json')],
        ['--run', 'without --split-file'],
      ],
      [['tune', '--weights', weights, '--data', '/nowhere'], ['no such folder: /nowhere']],
      [
        ['tune', '--weights', weights, '--data', data, '--scores', '0.2,1'],
        ['--scores', '0 to below 1'],
      ],
      [
        ['tune', '--weights', weights, '--data', data, '--masks', ''],
        ['--masks', 'expected a number'],
      ],
      [
        ['tune', '--weights', weights, '--data', data, '--out', join(weights, 'x.safetensors')],
        ['--out', 'is a file'],
      ],
      [
        ['tune', '--weights', weights, '--data', data, '--out', empty],
        ['--out', empty, 'is a folder'],
      ],
      [['tune', '--run', empty], [join(empty, 'best.safetensors')]],
      [['select'], ['--run', 'not specified']],
      [
        ['select', '--run', '/nowhere'],
        ['/nowhere', 'no such folder'],
      ],
      [
        ['select', '--run', empty],
        [empty, 'no run'],
      ],
      [
        ['select', '--run', begun],
        [begun, 'no checkpoint yet'],
      ],
      [
        ['select', '--run', masks, '--metric', 'boxAP'],
        ['boxAP', 'boxAP50'],
      ],
      [
        ['select', '--run', changed],
        [other, 'disc, other', 'disc, oval'],
      ],
      [
        ['tune', '--run', changed],
        [other, 'disc, other', 'disc, oval'],
      ],
    ] as [string[], string[]][]) {
      const { code, error, output } = await command(...args);
      expect([code, output], error).toEqual([2, '']);
      expect(error.trimEnd().split('\n'), error).toHaveLength(1);
      for (const part of parts) expect(error).toContain(part);
    }
  });
});
