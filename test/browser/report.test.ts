import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RgbImage } from '../../src/data/png.ts';
import { renderReport } from '../../src/report/reportPage.ts';
import type { ReportPanels } from '../../src/report/runReport.ts';
import { HOSTILE, sampleReport } from '../report/sampleRun.ts';
import { launchChromium } from '../support/chromium.ts';

const { browser, unfit } = await launchChromium();
const folder = mkdtempSync(join(tmpdir(), 'report-page-'));
afterAll(async () => {
  await browser?.close();
  rmSync(folder, { recursive: true });
});

/** A picture of three views of 40 × 30 dots: grey, then a red and a blue square drawn over it. */
function panels(): ReportPanels {
  const [width, height] = [120, 30];
  const picture: RgbImage = { width, height, data: new Uint8Array(3 * width * height).fill(90) };
  for (const [x, colour] of [
    [50, [255, 0, 0]],
    [90, [0, 0, 255]],
  ] as const) {
    for (let row = 10; row < 20; row++) {
      for (let column = x; column < x + 10; column++) picture.data.set(colour, 3 * (row * width + column));
    }
  }
  const place = (x: number) => ({ x, y: 0, width: 40, height: 30 });
  return {
    index: {
      epoch: 5,
      thresholds: { minScore: [0, 0.3], maskThreshold: [0, 0.5] },
      panels: [
        {
          id: `image ${HOSTILE}`,
          file: 'a.png',
          score: 0.5,
          boxes: 1,
          counts: [{ class: 'other', label: 2, truth: 1, found: 1, detected: 4 }],
          views: {
            image: place(0),
            truth: place(40),
            prediction: place(80),
            truthBoxes: place(40),
            predictedBoxes: place(80),
          },
        },
      ],
    },
    pictures: [{ image: picture, href: 'panels/a.png' }],
  };
}

/** The report as a reader opens it: a file, in a real browser. */
describe.skipIf(!browser)(`the report in a browser${unfit ? ` (skipped: ${unfit})` : ''}`, () => {
  let page: Page;
  const problems: string[] = [];
  const requests: string[] = [];

  beforeAll(async () => {
    const path = join(folder, 'report.html');
    writeFileSync(path, renderReport(sampleReport({ panels: panels() })));
    page = await browser!.newPage();
    page.on('console', (message) => problems.push(message.text()));
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('dialog', (dialog) => problems.push(dialog.message()));
    page.on('request', (request) => requests.push(request.url()));
    await page.goto(pathToFileURL(path).href);
  });

  it('asks for nothing beside itself and runs nothing', async () => {
    expect(requests.filter((url) => !url.startsWith('data:'))).toEqual([
      pathToFileURL(join(folder, 'report.html')).href,
    ]);
    expect(problems).toEqual([]);
    expect(await page.evaluate('document.scripts.length')).toBe(0);
    expect(await page.title()).toBe(`Training run run ${HOSTILE}`);
  });

  it.each([320, 390, 768, 1280, 1920])('fits a window of %d pixels, letters of a legible size', async (width) => {
    await page.setViewportSize({ width, height: 900 });
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(width);
    const letters = (await page.evaluate(`[...document.querySelectorAll('.chart text')].map((text) => {
      const { height } = text.getBoundingClientRect();
      return height;
    })`)) as number[];
    expect(letters.length).toBeGreaterThan(50);
    expect(Math.min(...letters)).toBeGreaterThanOrEqual(7);
  });

  it('lays what was found over the image, in the colours it was drawn in', async () => {
    await page.setViewportSize({ width: 1280, height: 900 });
    for (const [label, colour] of [
      [`Truth of image image ${HOSTILE}`, [255, 0, 0]],
      [`Cells found in image image ${HOSTILE}`, [0, 0, 255]],
    ] as const) {
      const shot = await page.getByLabel(label, { exact: true }).screenshot();
      const pixels = (await page.evaluate(`(async () => {
        const bitmap = await createImageBitmap(await (await fetch('data:image/png;base64,${shot.toString('base64')}')).blob());
        const canvas = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
        canvas.drawImage(bitmap, 0, 0);
        const at = (x, y) => [...canvas.getImageData(Math.round(x * bitmap.width), Math.round(y * bitmap.height), 1, 1).data];
        return [at(0.375, 0.5), at(0.75, 0.5)];
      })()`)) as number[][];
      expect(pixels).toEqual([
        [...colour, 255],
        [90, 90, 90, 255],
      ]);
    }
  });
});
