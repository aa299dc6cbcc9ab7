import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openPrediction, predict } from '../../src/cli/predictCommand.ts';
import { readPng, writePng } from '../../src/data/png.ts';
import { Random } from '../../src/data/random.ts';
import type { MaskRCNNConfig } from '../../src/model/config.ts';
import { MaskRCNN } from '../../src/model/maskRcnn.ts';
import { JOURNAL } from '../../src/predict/journal.ts';
import { parseShard } from '../../src/predict/shards.ts';
import type { Device } from '../../src/tensor/device.ts';
import { saveCheckpoint } from '../../src/train/checkpoint.ts';
import { noise, removeFolders, temporaryFolder } from '../data/folders.ts';
import { testDevice } from '../support/device.ts';
import { smallestConfig } from '../train/tinyRun.ts';
import { command, spawnProcess } from './support.ts';

const ADAPTER = ['--adapter', process.env.WEBGPU_ADAPTER ?? 'auto'];
const COUNT = 12;

let device: Device;
let images: string;
let weights: string;
/** What one run without a stop writes. */
let expected: string;
let whole: string;

/** Weights as drawn, under thresholds that let much pass. */
async function drawnWeights(given: Partial<MaskRCNNConfig>): Promise<string> {
  const config = smallestConfig({ numClasses: 3, boxDetectionsPerImg: 12, ...given });
  const model = new MaskRCNN(config);
  await model.allocate(device, new Random(4));
  const path = join(temporaryFolder(), 'w.safetensors');
  const thresholds = { minScore: [0, 0.1, 0.1], maskThreshold: [0, 0.45, 0.45] };
  await saveCheckpoint(path, model, { config, classes: ['disc', 'oval'], resize: 1, thresholds, epoch: 1 });
  model.dispose();
  return path;
}

type Given = Partial<Parameters<typeof openPrediction>[0]>;

/** Runs in this process; threads take a second to start, so most tests do without. */
async function run(out: string, given: Given = {}): Promise<void> {
  await predict(await openPrediction({ weights, images, out, batchSize: 2, workers: 0, ...given }), device);
}

const submission = (out: string): string => readFileSync(join(out, 'submission.csv'), 'utf8');
const lines = (out: string): string[] => readFileSync(join(out, JOURNAL), 'utf8').trimEnd().split('\n');

/** Cuts a finished run back to its first images, as if it had been killed within the next. */
function cutBack(out: string, done: number): void {
  const [header, ...entries] = lines(out);
  const torn = entries[done].slice(0, 30);
  writeFileSync(join(out, JOURNAL), [header, ...entries.slice(0, done), torn].join('\n'));
  rmSync(join(out, 'submission.csv'));
}

beforeAll(async () => {
  device = await testDevice();
  images = temporaryFolder();
  for (let i = 0; i < COUNT; i++) {
    // Of two sizes, so that steps of two images are cut where they change.
    const [width, height] = i % 5 < 3 ? [64, 48] : [40, 72];
    writePng(join(images, `image-${String(i).padStart(2, '0')}.png`), width, height, noise(width, height, i));
  }
  weights = await drawnWeights({});
  whole = join(temporaryFolder(), 'whole');
  await run(whole);
  expected = submission(whole);
});
afterAll(removeFolders);

describe('predict', () => {
  it('has found enough to compare', () => {
    expect(expected.split('\n').filter((line) => /,\d/.test(line)).length).toBeGreaterThan(50);
    expect(new Set(expected.split('\n').map((line) => line.split(',')[0])).size).toBe(COUNT + 2);
  });

  it('goes on where a killed process stopped, to the same files', async () => {
    const out = join(temporaryFolder(), 'killed');
    const args = ['--weights', weights, '--images', images, '--out', out, '--batch-size', '2', '--workers', '1'];
    const child = spawnProcess('predict', ...args, ...ADAPTER);
    const ended = new Promise((done) => child.on('exit', (_, signal) => done(signal)));
    while (child.exitCode === null && !(existsSync(join(out, JOURNAL)) && lines(out).length > 4)) {
      await new Promise((done) => setTimeout(done, 2));
    }
    child.kill('SIGKILL');
    expect(await ended).toBe('SIGKILL');
    const before = lines(out).length - 1;
    expect(before).toBeGreaterThan(3);
    expect(before).toBeLessThan(COUNT);
    expect(existsSync(join(out, 'submission.csv'))).toBe(false);
    await run(out, { workers: 1 });
    expect(submission(out)).toBe(expected);
    expect(lines(out)).toEqual(lines(whole));
    expect(readdirSync(join(out, 'overlays'))).toEqual(readdirSync(images));
  });

  it('goes on within a step, and after a line that was cut off', async () => {
    const out = join(temporaryFolder(), 'out');
    await run(out);
    for (const done of [0, 1, 5]) {
      cutBack(out, done);
      await run(out);
      expect(submission(out)).toBe(expected);
    }
  });

  it('has nothing to compute when all is done, and writes more formats without a device', async () => {
    const out = join(temporaryFolder(), 'out');
    await run(out, { formats: ['submission'] });
    expect(readdirSync(out).sort()).toEqual([JOURNAL, 'submission.csv']);
    const args = [
      'predict',
      '--weights',
      weights,
      '--images',
      images,
      '--out',
      out,
      '--batch-size',
      '2',
      '--workers',
      '0',
    ];
    const { code, error } = await command(...args, '--formats', 'submission,coco,labels,imagej,geojson,overlays');
    expect(code).toBe(0);
    expect(error).toContain(`${COUNT} of ${COUNT} images are done already`);
    expect(error).not.toContain('Computing on');
    for (const format of ['labels', 'imagej', 'geojson', 'overlays']) {
      expect(readdirSync(join(out, format)), format).toHaveLength(COUNT);
    }
    const overlay = (dir: string) => readFileSync(join(dir, 'overlays', 'image-03.png'));
    expect(overlay(out)).toEqual(overlay(whole));
    expect(readPng(join(out, 'labels', 'image-03_masks.png'))).toMatchObject({ width: 40, height: 72 });
    expect(submission(out)).toBe(expected);
    const results = JSON.parse(readFileSync(join(out, 'coco-results.json'), 'utf8'));
    expect(results).toHaveLength(expected.split('\n').filter((line) => /,\d/.test(line)).length);
    expect(JSON.parse(lines(out)[0]).formats).toEqual(['labels', 'imagej', 'geojson', 'overlays']);
  });

  it('deals images to shards that merge to what one run writes', async () => {
    const root = temporaryFolder();
    const parts = ['1/3', '2/3', '3/3'].map((shard) => [shard, join(root, shard.replace('/', '-of-'))]);
    for (const [shard, out] of parts) await run(out, { shard: parseShard(shard) });
    const merged = join(root, 'submission.csv');
    const dirs = parts.map(([, out]) => out);
    const { code, error } = await command('merge', '--out', merged, ...dirs);
    expect([code, error]).toEqual([0, `${COUNT} images of 3 parts: ${merged}\n`]);
    expect(readFileSync(merged, 'utf8')).toBe(expected);
    // Another part in the same folder would overwrite the first.
    await expect(run(dirs[0], { shard: parseShard('2/3') })).rejects.toThrow('belongs to a run with --shard 1/3');
  });

  it('does a part without images', async () => {
    const out = join(temporaryFolder(), 'out');
    await run(out, { shard: { index: 20, of: 20 } });
    expect(submission(out)).toBe('id,predicted\n');
    expect(lines(out)).toHaveLength(1);
  });

  it('names an image that turns out broken, keeps those before it, and goes on once it is mended', async () => {
    const out = join(temporaryFolder(), 'out');
    const own = temporaryFolder();
    for (const name of readdirSync(images)) writeFileSync(join(own, name), readFileSync(join(images, name)));
    const path = join(own, 'image-07.png');
    const good = readFileSync(path);
    const bad = Buffer.from(good);
    bad[good.length >> 1] ^= 1;
    writeFileSync(path, bad);
    const broken = run(out, { images: own, batchSize: 1 });
    await expect(broken).rejects.toThrow(`${path} is a corrupt PNG file`);
    expect(lines(out)).toHaveLength(8);
    expect(existsSync(join(out, 'submission.csv'))).toBe(false);
    writeFileSync(path, good);
    await run(out, { images: own, batchSize: 1 });
    // Steps of another size change nothing.
    expect(submission(out)).toBe(expected);
  });

  it('refuses to go on with another run’s folder, unless told to begin anew', async () => {
    const out = join(temporaryFolder(), 'out');
    await run(out, { formats: ['submission'] });
    const before = lines(out);
    await expect(run(out, { resize: 0.5 })).rejects.toThrow('belongs to a run with --resize 1:');
    await expect(run(out, { weights: await drawnWeights({ boxDetectionsPerImg: 3 }) })).rejects.toThrow(
      'other weights',
    );
    expect(lines(out)).toEqual(before);
    await run(out, { formats: ['submission'], resize: 0.5, restart: true });
    expect(submission(out)).not.toBe(expected);
    await run(out, { formats: ['submission'], restart: true });
    expect(lines(out)).toEqual(before);
    expect(submission(out)).toBe(expected);
  });

  it('refuses two files that would be one image', async () => {
    const own = temporaryFolder();
    for (const name of ['a.png', 'a.PNG']) writePng(join(own, name), 12, 10, noise(12, 10, 1));
    await expect(run(join(temporaryFolder(), 'out'), { images: own })).rejects.toThrow('a.PNG and a.png would both be');
  });
});

describe('predict with a box-only model', () => {
  it('writes boxes: COCO results and overlays', async () => {
    const boxes = await drawnWeights({ masks: false });
    const out = join(temporaryFolder(), 'out');
    await run(out, { weights: boxes });
    expect(readdirSync(out).sort()).toEqual(['coco-results.json', 'overlays', JOURNAL]);
    const results = JSON.parse(readFileSync(join(out, 'coco-results.json'), 'utf8'));
    expect(results.length).toBeGreaterThan(10);
    for (const result of results) {
      expect(Object.keys(result)).toEqual(['image_id', 'category_id', 'bbox', 'score']);
      expect(result.bbox[2]).toBeGreaterThan(0);
    }
    const own = readPng(join(out, 'overlays', 'image-00.png'));
    expect(own.data).not.toEqual(readPng(join(images, 'image-00.png')).data);
    const refused = join(temporaryFolder(), 'out');
    await expect(run(refused, { weights: boxes, formats: ['submission'] })).rejects.toThrow('needs masks');
    expect(existsSync(refused)).toBe(false);
    // Merged they have COCO results, but no submission.
    const merged = join(temporaryFolder(), 'coco.json');
    expect((await command('merge', '--coco', merged, out)).code).toBe(0);
    expect(JSON.parse(readFileSync(merged, 'utf8'))).toEqual(results);
  });
});
