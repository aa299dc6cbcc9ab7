import { resolve } from 'node:path';
import { build } from 'esbuild';
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AdapterKind } from '../../src/gpu/adapter.ts';
import { launchChromium } from '../support/chromium.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import type { Engine } from './page.ts';
import { runScenario, type ScenarioResult } from './scenario.ts';

const { browser, unfit } = await launchChromium();
afterAll(() => browser?.close());

/** The same engine, model and training step in a real browser as in Node. */
describe.skipIf(!browser)(`the engine in a browser${unfit ? ` (skipped: ${unfit})` : ''}`, () => {
  let page: Page;
  let fromBrowser: Awaited<ReturnType<Engine['run']>>;
  let fromNode: ScenarioResult;
  let nodeKind: AdapterKind;

  beforeAll(async () => {
    // Nothing of Node may be reachable from the page: esbuild fails on a `node:` import for the platform `browser`.
    const bundle = await build({
      entryPoints: [resolve(import.meta.dirname, 'page.ts')],
      bundle: true,
      write: false,
      format: 'esm',
      platform: 'browser',
      target: 'es2022',
    });
    page = await browser!.newPage();
    // WebGPU needs a secure context; no request leaves the machine.
    await page.route('**/*', (route) =>
      route.fulfill({ contentType: 'text/html', body: '<!doctype html><title>engine</title>' }),
    );
    await page.goto('https://engine.test/');
    await page.addScriptTag({ type: 'module', content: bundle.outputFiles[0].text });
    await page.waitForFunction('globalThis.engine !== undefined');
    fromBrowser = (await page.evaluate('globalThis.engine.run()')) as typeof fromBrowser;
    const device = await testDevice();
    nodeKind = device.gpu.opened.info.kind;
    fromNode = await runScenario(device);
    await device.gpu.sync();
  });

  it('opens an adapter behind the same interface', () => {
    const { info, found, why, limit, offered, subgroupMinSize, subgroupMaxSize } = fromBrowser;
    expect(info).toMatchObject({ usable: true, kind: 'swiftshader' });
    expect(found).toContainEqual(info);
    expect(why).toContain(info.name);
    expect(limit).toBe(offered);
    expect([subgroupMinSize, subgroupMaxSize]).toEqual([4, 4]);
  });

  it('computes rightly there', () => {
    expect(fromBrowser.scenario.selfTest).toHaveLength(3);
    for (const { name, error, tolerance } of fromBrowser.scenario.selfTest) {
      expect(error, name).toBeLessThanOrEqual(tolerance);
    }
  });

  it('has the losses of Node', () => {
    const { losses } = fromBrowser.scenario;
    expect(Object.keys(losses)).toHaveLength(5);
    expect(Object.keys(losses)).toEqual(Object.keys(fromNode.losses));
    for (const [name, loss] of Object.entries(losses)) {
      expect(loss, name).toBeGreaterThan(0);
      expectClose([loss], [fromNode.losses[name]], 1e-4, name);
    }
  });

  it('changes the weights in one step as Node does', () => {
    const { info, scenario } = fromBrowser;
    const { updates } = scenario;
    // Another adapter adds in another order, and gradients of single weights are small differences of large numbers.
    const tolerance = info.kind === nodeKind ? 1e-4 : 1e-3;
    expect(Object.keys(updates)).toEqual(Object.keys(fromNode.updates));
    for (const [name, update] of Object.entries(updates)) {
      expect(
        update.some((value) => value !== 0),
        `${name} changes`,
      ).toBe(true);
      expectClose(update, fromNode.updates[name], tolerance, name);
    }
  });

  it('has the detections of Node', () => {
    const { detections } = fromBrowser.scenario;
    expect(detections.map(({ labels }) => labels)).toEqual(fromNode.detections.map(({ labels }) => labels));
    expect(detections.flatMap(({ labels }) => labels).length).toBeGreaterThan(0);
    for (const [i, { boxes, scores, masks }] of detections.entries()) {
      const expected = fromNode.detections[i];
      expectClose(boxes, expected.boxes, 1e-4, 'boxes');
      expectClose(scores, expected.scores, 1e-4, 'scores');
      expect(masks).toHaveLength(scores.length);
      for (const [k, mask] of masks.entries()) {
        expect({ ...mask, data: null }).toEqual({ ...expected.masks[k], data: null });
        expectClose(mask.data, expected.masks[k].data, 1e-4, 'mask');
      }
    }
  });

  it.each([
    ['tooLarge', 'out-of-memory', /a buffer of this adapter holds at most/],
    ['doesNotCompile', 'validation', /WGSL of testBroken does not compile[\s\S]*y\[i\] = nothingOfThatName;/],
    ['lost', 'lost', /The device was lost/],
  ] as const)('tells errors of the device: %s', async (name, kind, message) => {
    const failure = (await page.evaluate(`globalThis.engine.failures.${name}()`)) as { kind: string; message: string };
    expect(failure.message).toMatch(message);
    expect(failure.kind).toBe(kind);
  });
});
