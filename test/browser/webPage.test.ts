import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convertWeights } from '../../src/cli/convertWeightsCommand.ts';
import { loadImage } from '../../src/data/dataset.ts';
import { writePng } from '../../src/data/png.ts';
import { Random } from '../../src/data/random.ts';
import { selectInstances } from '../../src/eval/selectInstances.ts';
import { MaskRCNN } from '../../src/model/maskRcnn.ts';
import { type CheckpointInfo, saveCheckpoint } from '../../src/train/checkpoint.ts';
import { buildWeb } from '../../web/build.ts';
import { launchChromium } from '../support/chromium.ts';
import { testDevice } from '../support/device.ts';
import { scenarioBatch, scenarioConfig, scenarioWeights } from './scenario.ts';

const { browser, unfit } = await launchChromium();
const folder = mkdtempSync(join(tmpdir(), 'web-page-'));
afterAll(async () => {
  await browser?.close();
  rmSync(folder, { recursive: true });
});

const classes = ['bright', 'brighter'];
const resize = 0.5;

/** The built page, opened as a file, against the same weights and picture in Node. */
describe.skipIf(!browser)(`the page${unfit ? ` (skipped: ${unfit})` : ''}`, () => {
  const weights = join(folder, 'best.safetensors');
  const picture = join(folder, 'cells.png');
  let page: Page;
  const problems: string[] = [];
  /** Cells of each class that Node finds. */
  let expected: number[];

  const status = () => page.textContent('#status');
  const ready = () => page.waitForSelector('#status:not([data-kind=busy])', { timeout: 60_000 });
  const shown = () => page.evaluate("document.querySelector('canvas').toDataURL()");

  beforeAll(async () => {
    const { image } = scenarioBatch()[0];
    // Twice as large as the network sees it.
    const [width, height] = [2 * image.width, 2 * image.height];
    const pixels = Uint8Array.from({ length: width * height * 3 }, (_, i) => {
      const [x, y] = [(Math.floor(i / 3) % width) >> 1, Math.floor(i / 3 / width) >> 1];
      return Math.round(255 * Math.min(1, Math.max(0, image.data[(y * image.width + x) * 3 + (i % 3)])));
    });
    writePng(picture, width, height, pixels);
    const device = await testDevice();
    const model = new MaskRCNN(scenarioConfig());
    await model.allocate(device, new Random(0), scenarioWeights(model));
    const thresholds = { minScore: [0.1, 0.1, 0.1], maskThreshold: [0.3, 0.3, 0.3] };
    const info: CheckpointInfo = { config: model.config, classes, resize, thresholds, epoch: 1 };
    await saveCheckpoint(weights, model, info);
    const [found] = await model.predict([loadImage(picture, resize)], { outputSizes: [[height, width]] });
    const instances = selectInstances(found, thresholds, width, height);
    expected = classes.map((_, i) => instances.filter(({ label }) => label === i + 1).length);
    model.dispose();
    await device.gpu.sync();

    page = await browser!.newPage();
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('request', (request) => {
      if (!/^(file|data|blob):/.test(request.url())) problems.push(`it asks for ${request.url()}`);
    });
    await page.goto(pathToFileURL((await buildWeb(join(folder, 'web'))).page).href);
    await ready();
  });

  it('opens an adapter and says what it waits for', async () => {
    expect(await page.textContent('#adapter')).toMatch(/swiftshader/);
    expect(await status()).toMatch(/Choose weights and a picture/);
  });

  it('tells in one sentence that a file is no checkpoint or no picture', async () => {
    await page.setInputFiles('#weights', { name: 'a.safetensors', mimeType: '', buffer: Buffer.from('no weights') });
    await page.waitForSelector('#status[data-kind=error]');
    expect(await status()).toMatch(/^a\.safetensors is not a safetensors file: .*\.$/);
    await page.setInputFiles('#image', { name: 'b.png', mimeType: 'image/png', buffer: Buffer.from('no picture') });
    await page.waitForFunction("document.querySelector('#status').textContent.startsWith('b.png')");
    expect(await status()).toBe('b.png is not a picture that this browser can read, expected a PNG.');
  });

  it('outlines the cells that Node finds', async () => {
    await page.setInputFiles('#weights', weights);
    await page.setInputFiles('#image', picture);
    await page.waitForFunction("document.querySelector('#status').textContent.endsWith('found.')", null, {
      timeout: 60_000,
    });
    const total = expected.reduce((sum, count) => sum + count, 0);
    expect(total).toBeGreaterThan(0);
    expect(await page.textContent('#total')).toBe(String(total));
    expect(await page.locator('#classes b').allTextContents()).toEqual(expected.map(String));
    expect(await page.textContent('#time')).toMatch(/^\d+(\.\d+)? s$/);
    expect(await page.textContent('#picture-info')).toContain('160 × 128');
  });

  it('takes the same weights from a file of torch.save', async () => {
    const torch = join(folder, 'best.pth');
    await convertWeights(weights, torch, {});
    await page.setInputFiles('#weights', torch);
    await page.waitForFunction(
      "document.querySelector('#weights-info').textContent.startsWith('best.pth') && document.querySelector('#status').textContent.endsWith('found.')",
      null,
      { timeout: 60_000 },
    );
    expect(await page.locator('#classes b').allTextContents()).toEqual(expected.map(String));
  });

  it('hides and shows outlines', async () => {
    const all = await shown();
    await page.uncheck('#outlines');
    const bare = await shown();
    expect(bare).not.toBe(all);
    await page.check('#outlines');
    expect(await shown()).toBe(all);
    for (const box of await page.locator('#classes input').all()) await box.uncheck();
    expect(await shown()).toBe(bare);
  });

  it('runs without an error and without a network', () => {
    expect(problems).toEqual([]);
  });
});
