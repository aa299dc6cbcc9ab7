import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { evaluate, openEvaluation } from '../../src/cli/evaluateCommand.ts';
import { openPrediction, predict } from '../../src/cli/predictCommand.ts';
import { train } from '../../src/cli/trainCommand.ts';
import { maskBox } from '../../src/data/dataset.ts';
import { readPng, writePng } from '../../src/data/png.ts';
import { rleDecode, rleRuns } from '../../src/data/rle.ts';
import { openWeightsFile } from '../../src/model/checkpoints/openWeightsFile.ts';
import { readPanelIndex } from '../../src/report/panelFolder.ts';
import { eventFileName } from '../../src/report/tensorboard.ts';
import type { Device } from '../../src/tensor/device.ts';
import { openCheckpoint, rewriteCheckpoint } from '../../src/train/checkpoint.ts';
import { completeTrainOptions } from '../../src/train/options.ts';
import { allocateRun, planRun } from '../../src/train/run.ts';
import { readEnvironment } from '../../src/train/runFolder.ts';
import { removeFolders, temporaryFolder } from '../data/folders.ts';
import { difference } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { readMarkup } from '../support/markup.ts';
import { blobDataset, EMPTY_ID, HEIGHT, WIDTH } from '../train/tinyRun.ts';
import { command, processOf, spawnProcess } from './support.ts';

const ADAPTER = ['--adapter', process.env.WEBGPU_ADAPTER ?? 'auto'];

/** Those of the run that all tests share. */
const options = () =>
  completeTrainOptions({ data, resize: 1, epochs: 1, validation: 0.3, lr: 1e-3, warmupSteps: 0, workers: 1 });

/** The run's weights under other thresholds, the same for all classes. */
function withThresholds(minScore: number, maskThreshold: number): string {
  const { info, file } = openCheckpoint(weights);
  file.close();
  const path = join(temporaryFolder(), 'w.safetensors');
  const thresholds = { minScore: [0, minScore, minScore], maskThreshold: [0, maskThreshold, maskThreshold] };
  rewriteCheckpoint(weights, path, { ...info, thresholds });
  return path;
}

let device: Device;
let data: string;
let out: string;
let weights: string;

/** Rows of a submission, each checked: disjoint runs inside the image; cells by image id. */
function submission(path: string, sizes: (id: string) => [width: number, height: number]): Map<string, number> {
  const rows = parse(readFileSync(path), { columns: true }) as { id: string; predicted: string }[];
  expect(Object.keys(rows[0])).toEqual(['id', 'predicted']);
  const cells = new Map<string, number>();
  const taken = new Map<string, Uint8Array>();
  for (const { id, predicted } of rows) {
    const [width, height] = sizes(id);
    // An empty row stands for an image without cells: it is the only one of its image.
    if (predicted === '') expect(cells.has(id)).toBe(false);
    cells.set(id, (cells.get(id) ?? 0) + (predicted === '' ? 0 : 1));
    const pixels = taken.get(id) ?? new Uint8Array(width * height);
    taken.set(id, pixels);
    const runs = rleRuns(predicted, width, height, id);
    for (let i = 0; i < runs.length; i += 2) {
      for (let pixel = runs[i]; pixel < runs[i] + runs[i + 1]; pixel++) expect(pixels[pixel]++).toBe(0);
    }
  }
  return cells;
}

beforeAll(async () => {
  device = await testDevice();
  data = blobDataset();
  out = join(temporaryFolder(), 'runs', '001');
  weights = join(out, 'best.safetensors');
  // So low a rate leaves the classifier undecided: many detections with scores about a third, enough to test what follows.
  await train(planRun(options(), data, out), false, device);
});
afterAll(removeFolders);

describe('train', () => {
  it('ends with weights, metrics, pictures, a report and a submission', () => {
    expect(readdirSync(out).sort()).toEqual([
      'best.safetensors',
      'checkpoints',
      'config.json',
      'environment.json',
      eventFileName(1),
      'metrics.jsonl',
      'overlay.png',
      'panels',
      'report.html',
      'scores.json',
      'split.json',
      'state.safetensors',
      'submission.csv',
    ]);
    const picture = readPng(join(out, 'overlay.png'));
    expect(picture.width).toBeGreaterThan(3 * WIDTH);
    expect(new Set(picture.data).size).toBeGreaterThan(50);
    const { split } = planRun(options(), data, out);
    const cells = submission(join(out, 'submission.csv'), () => [WIDTH, HEIGHT]);
    expect([...cells.keys()]).toEqual(split.validation.map(({ id }) => id));
  });
});

describe('the report', () => {
  it('of the run shows its validation images, scores and adapter', () => {
    const page = readMarkup(readFileSync(join(out, 'report.html'), 'utf8'));
    const { split } = planRun(options(), data, out);
    expect(page.filter(({ name }) => name === 'h3').map(({ text }) => text)).toEqual(
      split.validation.map(({ id }) => id),
    );
    const [{ text }] = page.filter(({ name }) => name === 'body');
    const scores = JSON.parse(readFileSync(join(out, 'scores.json'), 'utf8'));
    for (const part of [
      'Finished',
      device.gpu.opened.info.name,
      scores.maskAP50.toFixed(3),
      'disc',
      'oval',
      'Time of a step',
    ]) {
      expect(text).toContain(part);
    }
    for (const { attributes } of page.filter(({ name }) => name === 'a'))
      expect(existsSync(join(out, attributes.href))).toBe(true);
  });

  it('holds what the run ran on: this session, the data, the model', () => {
    const { sessions, data: summary, model } = readEnvironment(join(out, 'environment.json'));
    const [session] = sessions;
    expect(sessions).toHaveLength(1);
    expect(session.adapter).toMatchObject({ kind: device.gpu.opened.info.kind, name: device.gpu.opened.info.name });
    expect(session.versions.node).toBe(process.versions.node);
    expect(Date.parse(session.ended ?? '')).toBeGreaterThan(Date.parse(session.started));
    expect(summary).toMatchObject({
      images: { train: 5, validation: 2 },
      sizes: [{ width: WIDTH, height: HEIGHT, images: 7 }],
      cellsPerImage: { min: 0, median: 3, max: 3 },
    });
    expect(summary.cells.reduce((sum, cells) => sum + cells.train + cells.validation, 0)).toBe(18);
    expect(model.parameters).toBeGreaterThan(10_000);
    // No checkpoint tells the machine.
    const { file } = openCheckpoint(weights);
    file.close();
    expect(JSON.stringify(file.metadata)).not.toContain(session.adapter.name);
  });

  it('is written again of the folder alone, the same, and elsewhere with links that lead back', async () => {
    const before = readFileSync(join(out, 'report.html'), 'utf8');
    expect(await command('report', '--run', out)).toMatchObject({ code: 0, output: '' });
    expect(readFileSync(join(out, 'report.html'), 'utf8')).toBe(before);
    const elsewhere = join(temporaryFolder(), 'new', 'r.html');
    expect((await command('report', '--run', out, '--out', elsewhere)).code).toBe(0);
    const links = readMarkup(readFileSync(elsewhere, 'utf8')).filter(({ name }) => name === 'a');
    for (const { attributes } of links) expect(existsSync(join(elsewhere, '..', attributes.href))).toBe(true);
  });

  it('has as many pictures as asked for, predicted anew', async () => {
    const run = temporaryFolder();
    cpSync(out, run, { recursive: true });
    rmSync(join(run, 'panels'), { recursive: true });
    const { code } = await command('report', '--run', run, '--panels', '1', ...ADAPTER);
    expect(code).toBe(0);
    const [first] = readPanelIndex(join(out, 'panels'))!.panels;
    expect(readPanelIndex(join(run, 'panels'))!.panels).toEqual([first]);
    const picture = (dir: string): Buffer => readFileSync(join(dir, 'panels', first.file));
    expect(picture(run).equals(picture(out))).toBe(true);
    expect(readFileSync(join(run, 'report.html'), 'utf8').match(/<h3>/g)).toHaveLength(1);
  });
});

describe('panels', () => {
  it('shows the chosen images once each, with the score that evaluate gives them alone', async () => {
    const target = join(temporaryFolder(), 'new');
    const own = withThresholds(0.3, 0.4);
    const args = ['--weights', own, '--data', data, '--out', target, '--scale', '2'];
    const chosen = ['--images', `image-3,${EMPTY_ID}`, '--indices', '1,3'];
    const { code, output } = await command('panels', ...args, ...chosen, ...ADAPTER);
    expect(code).toBe(0);
    const { panels } = readPanelIndex(target)!;
    expect(panels.map(({ id }) => id)).toEqual(['image-3', EMPTY_ID, 'image-1']);
    expect(output.trimEnd().split('\n')).toHaveLength(3);
    for (const { id, score, counts, views } of panels) {
      const alone = await openEvaluation(own, data, 1);
      alone.dataset.images = alone.dataset.images.filter((image) => image.id === id);
      const scores = await evaluate(alone, device);
      expect(score).toBeCloseTo(scores?.iouMap ?? Number.NaN, 12);
      expect(counts.reduce((sum, { truth }) => sum + truth, 0)).toBe(scores?.instances);
      expect(views.prediction).toMatchObject({ width: 2 * WIDTH, height: 2 * HEIGHT });
      expect(output).toContain(`${join(target, `${id}.png`)}: ${id === EMPTY_ID ? 0 : 3} cells`);
    }
  });
});

describe('train --weights', () => {
  it('starts from the file’s values instead of the seed’s', async () => {
    const { file } = openCheckpoint(weights);
    const names = ['backbone.body.conv1.weight', 'backbone.body.bn1.running_mean', 'roi_heads.box_head.fc6.weight'];
    for (const start of [weights, null]) {
      const opened = start === null ? null : await openWeightsFile(start);
      const run = planRun({ ...options(), weights: start }, data, 'never written', opened);
      await allocateRun(run, device);
      opened?.close();
      for (const name of names) {
        const same = difference(await run.model.state.read(name), file.readFloat32(name)).relative === 0;
        expect(same, `${name} from ${start ?? 'the seed'}`).toBe(start !== null);
      }
      run.model.dispose();
    }
    file.close();
  });
});

describe('a run that is interrupted', () => {
  it('finishes its step, saves, ends with 130 and says how to go on', async () => {
    const run = join(temporaryFolder(), 'run');
    const given = ['--resize', '0.5', '--epochs', '500', '--workers', '0', ...ADAPTER];
    const child = spawnProcess('train', '--data', data, '--out', run, ...given);
    let error = '';
    let asked = false;
    child.stderr.on('data', (text) => {
      error += String(text);
      // Once: a second Ctrl-C, at the next line of progress, would end the process at once.
      if (!asked && String(text).includes('Epoch 1/500')) asked = child.kill('SIGINT');
    });
    const code = await new Promise((done) => child.on('exit', done));
    expect(error).toContain('Stopping after this step');
    expect(error).toContain(`npm run train -- --resume ${run}`);
    expect(code).toBe(130);
    expect(readdirSync(run)).toEqual(expect.arrayContaining(['state.safetensors', 'environment.json', 'report.html']));
    expect(readFileSync(join(run, 'report.html'), 'utf8')).toMatch(/No epoch finished yet|\d of 500 epochs done/);
  });
});

describe('evaluate', () => {
  it('prints and writes the scores of a data set', async () => {
    const folder = join(temporaryFolder(), 'deep');
    const [json, curves] = [join(folder, 'scores.json'), join(folder, 'curves.svg')];
    const given = ['--weights', weights, '--data', data, '--json', json, '--curves', curves, ...ADAPTER];
    const { code, output } = await command('evaluate', ...given);
    expect(code).toBe(0);
    const scores = JSON.parse(readFileSync(json, 'utf8'));
    const first = ['iouMap', 'boxMap30', 'computeMAP', 'maskAP50'];
    expect(Object.keys(scores).slice(0, 4)).toEqual(first);
    for (const key of [...first, 'boxAP50']) {
      expect(scores[key]).toBeGreaterThanOrEqual(0);
      expect(scores[key]).toBeLessThanOrEqual(1);
    }
    expect(scores).toMatchObject({ images: 7, instances: 18, perClass: [{ name: 'disc' }, { name: 'oval' }] });
    expect([scores.coco.segm.length, scores.coco.bbox.length]).toEqual([12, 12]);
    expect(scores.perImage).toHaveLength(7);
    const mean = scores.perImage.reduce((sum: number, { iouMap }: { iouMap: number }) => sum + iouMap, 0) / 7;
    expect(mean).toBeCloseTo(scores.iouMap, 12);
    expect(scores.perImage.map(({ id }: { id: string }) => id)).toContain(EMPTY_ID);
    for (const text of ['competition score', 'mask AP50', 'disc', 'oval', 'AR100', scores.maskAP50.toFixed(4)]) {
      expect(output).toContain(text);
    }
    expect(readFileSync(curves, 'utf8')).toMatch(/^<svg .*Masks, IoU ≥ 0\.50.*disc, AP/s);
  });

  it('does not depend on the batch size, and gives back its memory', async () => {
    const before = device.gpu.counters().inUse;
    const scores = async (batchSize: number) => {
      const part = await openEvaluation(weights, data, batchSize);
      part.dataset.images = part.dataset.images.slice(4);
      return evaluate(part, device);
    };
    const one = await scores(1);
    const three = await scores(3);
    expect(one).toMatchObject({ images: 3, instances: 6 });
    expect(three).toEqual(one);
    expect(device.gpu.counters().inUse).toBe(before);
  });

  it('gives the full competition score where the truth is what predict writes', async () => {
    const own = withThresholds(0, 0.3);
    const target = temporaryFolder();
    const [images, truth] = [temporaryFolder(), temporaryFolder()];
    for (const id of ['image-1', 'image-4']) copyFileSync(join(data, 'train', `${id}.png`), join(images, `${id}.png`));
    await predict(await openPrediction({ weights: own, images, out: target, batchSize: 2 }), device);
    const rows = parse(readFileSync(join(target, 'submission.csv')), { columns: true }) as Record<string, string>[];
    const lines = rows.map(({ id, predicted }) => `${id},${predicted},${WIDTH},${HEIGHT},disc`);
    writeFileSync(join(truth, 'train.csv'), ['id,annotation,width,height,cell_type', ...lines, ''].join('\n'));
    symlinkSync(images, join(truth, 'train'));
    const scores = await evaluate(await openEvaluation(own, truth, 2), device);
    // Every cell is met exactly but those of a single row or column, which have no box and are no truth.
    const hasBox = rows.map(({ predicted }) => {
      const box = maskBox(rleDecode(predicted, WIDTH, HEIGHT, 'row'), WIDTH, HEIGHT);
      return box !== undefined && box[0] < box[2] && box[1] < box[3];
    });
    const { dataset } = await openEvaluation(own, truth, 2);
    const shares = dataset.images.map(({ id }) => {
      const mine = hasBox.filter((_, i) => rows[i].id === id);
      return mine.filter(Boolean).length / mine.length;
    });
    expect(scores?.instances).toBe(hasBox.filter(Boolean).length);
    expect(scores?.iouMap).toBeCloseTo(shares.reduce((sum, share) => sum + share, 0) / shares.length, 9);
    // Other masks of the same detections meet it less often.
    const other = await evaluate(await openEvaluation(withThresholds(0, 0.5), truth, 2), device);
    expect(other?.iouMap).toBeLessThan(scores?.iouMap ?? 0);
  });
});

describe('predict', () => {
  it('writes a row per cell, an empty one for an image without, and an overlay per image, at each file’s own size', async () => {
    const images = temporaryFolder();
    for (const id of ['image-0', EMPTY_ID]) copyFileSync(join(data, 'train', `${id}.png`), join(images, `${id}.png`));
    const large = readPng(join(data, 'train', 'image-1.png'));
    const [width, height] = [WIDTH + 30, HEIGHT + 7];
    const pixels = new Uint8Array(width * height * 3).fill(128);
    for (let y = 0; y < HEIGHT; y++) pixels.set(large.data.subarray(y * WIDTH * 3, (y + 1) * WIDTH * 3), y * width * 3);
    writePng(join(images, 'large.PNG'), width, height, pixels);
    mkdirSync(join(images, 'folder'));

    const rows = async (minScore: number, resize?: number): Promise<Map<string, number>> => {
      const target = join(temporaryFolder(), 'new');
      const given = { weights: withThresholds(minScore, 0.3), images, out: target, resize, batchSize: 2 };
      await predict(await openPrediction(given), device);
      expect(readdirSync(target).sort()).toEqual(['overlays', 'predictions.jsonl', 'submission.csv']);
      expect(readdirSync(join(target, 'overlays')).sort()).toEqual(['image-0.png', `${EMPTY_ID}.png`, 'large.png']);
      const overlay = readPng(join(target, 'overlays', 'large.png'));
      expect([overlay.width, overlay.height]).toEqual([width, height]);
      return submission(join(target, 'submission.csv'), (id) => (id === 'large' ? [width, height] : [WIDTH, HEIGHT]));
    };
    for (const resize of [undefined, 0.5]) {
      const cells = await rows(0, resize);
      expect([...cells.keys()]).toEqual(['image-0', EMPTY_ID, 'large']);
      for (const [id, count] of cells) expect(count, id).toBeGreaterThan(0);
    }
    // No score passes 1: a row without runs for each image.
    expect([...(await rows(1))]).toEqual([
      ['image-0', 0],
      [EMPTY_ID, 0],
      ['large', 0],
    ]);
  });
});

describe('a loss that is no number', () => {
  it('ends the process with 3 and one sentence, and leaves no weights behind that never were', () => {
    const run = join(temporaryFolder(), 'run');
    const given = ['--resize', '0.5', '--lr', '1e30', '--warmup-steps', '0', '--epochs', '1', '--workers', '0'];
    const { code, error } = processOf('train', '--data', data, '--out', run, ...given, ...ADAPTER);
    expect(error).toMatch(/\nTraining stopped: loss_\w+.* is not finite on the images image-\d, image-\d \([^\n]*\n$/);
    expect(error).not.toContain('    at ');
    expect(code).toBe(3);
    expect(existsSync(join(run, 'best.safetensors'))).toBe(false);
  });
});
