import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import { completeTrainOptions } from '../../src/train/options.ts';
import { learningRateCorners, readRun } from '../../src/train/runFolder.ts';
import { learningRate } from '../../src/train/schedule.ts';
import { writeWeights } from '../cli/support.ts';
import { removeFolders, temporaryFolder } from '../data/folders.ts';
import { smallestConfig } from './tinyRun.ts';

afterAll(removeFolders);

const line = (epoch: number): string =>
  `${JSON.stringify({ epoch, steps: 4, lr: 0.02, secondsPerStep: 0.1, train: { total: 3 }, validation: { total: 4 }, iouMap: 0.1 })}\n`;

let dir: string;
const at = (name: string): string => join(dir, name);
const read = () => readRun(dir, dir);

beforeEach(() => {
  dir = temporaryFolder();
  writeFileSync(at('config.json'), JSON.stringify(completeTrainOptions({ epochs: 3 })));
  writeFileSync(at('metrics.jsonl'), line(1) + line(2));
});

describe('readRun', () => {
  it('reads a folder that has the least that a run leaves', () => {
    const run = read();
    expect(run).toMatchObject({
      plannedEpochs: 3,
      bestEpoch: null,
      classes: [],
      final: null,
      environment: null,
      panels: null,
    });
    expect(run.epochs.map(({ epoch, scores }) => [epoch, scores])).toEqual([
      [1, { iouMap: 0.1 }],
      [2, { iouMap: 0.1 }],
    ]);
    expect(run.files.map(({ name, href }) => [name, href])).toEqual([
      ['metrics.jsonl', 'metrics.jsonl'],
      ['config.json', 'config.json'],
    ]);
    rmSync(at('metrics.jsonl'));
    expect(read()).toMatchObject({ epochs: [], learningRate: [] });
  });

  it('takes the best epoch, classes and thresholds from the weights, the scores from their file', () => {
    writeWeights(at('best.safetensors'), smallestConfig(), ['disc', 'oval']);
    writeFileSync(
      at('scores.json'),
      JSON.stringify({
        iouMap: 0.5,
        boxMap30: 1,
        coco: { bbox: [1] },
        perClass: [{ label: 1, instances: 3, iouMap: null }],
      }),
    );
    expect(read()).toMatchObject({
      bestEpoch: 1,
      classes: [
        { name: 'disc', minScore: 0.5, maskThreshold: 0.5 },
        { name: 'oval', minScore: 0.5, maskThreshold: 0.5 },
      ],
      final: { scores: { iouMap: 0.5, boxMap30: 1 }, perClass: [{ label: 1, instances: 3, scores: { iouMap: null } }] },
    });
  });

  it('lists files with their sizes and links from wherever the report is', () => {
    mkdirSync(at('checkpoints'));
    for (const name of ['a', 'b']) writeFileSync(at(`checkpoints/${name}`), '12345');
    writeFileSync(at('events.out.tfevents.0000000001.webgpu-mask-rcnn'), '1');
    writeFileSync(at('notes.txt'), 'not of the run');
    const elsewhere = readRun(dir, join(dir, 'some #where'));
    expect(elsewhere.files.map(({ name, href, bytes }) => [name, href, bytes])).toEqual([
      ['metrics.jsonl', '../metrics.jsonl', readFileSync(at('metrics.jsonl')).length],
      ['events.out.tfevents.0000000001.webgpu-mask-rcnn', '../events.out.tfevents.0000000001.webgpu-mask-rcnn', 1],
      ['config.json', '../config.json', readFileSync(at('config.json')).length],
      ['checkpoints/', '../checkpoints/', 10],
    ]);
    expect(elsewhere.files.at(-1)?.what).toContain('2 files');
  });

  it('does not mind a last line that a killed run left unfinished, but any other that is none', () => {
    appendFileSync(at('metrics.jsonl'), line(3).slice(0, 20));
    expect(read().epochs).toHaveLength(2);
    writeFileSync(at('metrics.jsonl'), `${line(1)}{"epoch": 2}\n${line(3)}`);
    expect(read).toThrow(`${at('metrics.jsonl')}, line 2: expected the metrics of an epoch.`);
  });

  it.each([
    ['environment.json', '{"sessions": []}', 'data'],
    ['environment.json', '{', 'expected JSON'],
    ['scores.json', '{"perClass": 1}', 'perClass'],
    ['best.safetensors', 'short', 'is not a safetensors file'],
    ['config.json', '{"lr": "fast"}', 'lr'],
    ['panels/panels.json', '[]', 'expected an index'],
  ])('refuses a wrong %s by its name', (name, text, fault) => {
    mkdirSync(at('panels'));
    writeFileSync(at(name), text);
    expect(read).toThrow(UserError);
    expect(read).toThrow(at(name));
    expect(read).toThrow(fault);
  });

  it('refuses a folder without a run', () => {
    rmSync(at('config.json'));
    expect(read).toThrow(`--run ${dir}: it holds no run (there is no config.json), expected the folder of a run.`);
    expect(() => readRun(at('none'), dir)).toThrow('no such folder');
    expect(existsSync(at('report.html'))).toBe(false);
  });
});

describe('learningRateCorners', () => {
  it.each([
    ['warm-up and a last stretch', { warmupSteps: 7, finalDecay: { share: 0.25, factor: 0.1 } }],
    ['StepLR', { warmupSteps: 0, stepLr: { size: 2, gamma: 0.5 } }],
    ['a constant rate', { warmupSteps: 0, finalDecay: null }],
  ])('joined by straight lines give the rate of every step: %s', (_, given) => {
    const steps = 10;
    const options = completeTrainOptions({ epochs: 6, ...given });
    const corners = learningRateCorners(options, steps, 6);
    expect(corners.length).toBeLessThan(12);
    expect(corners[0][0]).toBe(0);
    expect(corners.at(-1)?.[0]).toBe(6);
    for (let step = 0; step < 6 * steps; step++) {
      const x = step / steps;
      const next = corners.findIndex(([at]) => at >= x);
      const [x1, y1] = corners[next];
      const [x0, y0] = corners[Math.max(0, next - 1)];
      const rate = x1 === x0 ? y1 : y0 + ((y1 - y0) * (x - x0)) / (x1 - x0);
      expect(rate, `step ${step}`).toBeCloseTo(learningRate(step, steps, options), 9);
    }
  });
});
