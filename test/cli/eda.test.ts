import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openDataset } from '../../src/data/dataset.ts';
import { readPng } from '../../src/data/png.ts';
import { summarizeData } from '../../src/report/eda.ts';
import { removeFolders, temporaryFolder, writeDataset } from '../data/folders.ts';
import { tiffFile } from '../data/tiffFile.ts';
import { launchChromium } from '../support/chromium.ts';
import { command } from './support.ts';

afterAll(removeFolders);

/** Five images of "oval", the i-th with i + 1 cells, two of a type with a hostile name, one without cells. */
const HOSTILE = '<b>"x"&/../y';
const IDS = [...'abcdefgh'];
const LINES = [
  ...[...'abcde'].flatMap((id, i) => Array.from({ length: i + 1 }, () => `${id},2 2 14 2,12,10,oval`)),
  ...['f', 'g', 'g', 'g'].map((id) => `${id},12 2,12,10,"${HOSTILE.replaceAll('"', '""')}"`),
  'h,,12,10,',
];

describe('summarizeData', () => {
  const summary = summarizeData(openDataset(writeDataset(LINES, IDS)));

  it('counts images and cells of each type, most first', () => {
    expect([summary.images, summary.cells, summary.imagesWithoutCells]).toEqual([8, 19, 1]);
    const [hostile, oval] = summary.classes;
    expect([hostile.name, hostile.images, hostile.cells]).toEqual([HOSTILE, 2, 4]);
    expect([oval.name, oval.images, oval.cells]).toEqual(['oval', 5, 15]);
    expect(summary.rows.map(({ id, cells }) => `${id}${cells}`).join(' ')).toBe('e5 d4 c3 g3 b2 a1 f1');
    expect(oval.description).toMatchObject({ count: 5, mean: 3, min: 1, '50%': 3, max: 5 });
    expect(summary.description).toMatchObject({ count: 7, max: 5 });
    // Image h has no row.
    expect(summary.imageDescription).toMatchObject({ count: 8, min: 0, max: 5 });
    expect(oval.example?.id).toBe('c');
  });

  it('puts images into quintiles, and measures cells', () => {
    const [hostile, oval] = summary.classes;
    expect(oval.quantiles.map(({ images, cells }) => [images, cells])).toEqual([1, 2, 3, 4, 5].map((n) => [1, n]));
    expect(oval.edges).toHaveLength(6);
    expect(summary.rows[0].quantile).toBe('(4.2, 5.0]');
    expect(oval.areas).toEqual(Array(15).fill(4));
    expect(oval.boxSides).toEqual(Array(15).fill(2));
    // This cell's run ends in the next row.
    expect(hostile.boxSides).toEqual(Array(4).fill(12));
    expect(summary.sizes).toEqual([{ width: 12, height: 10, images: 8 }]);
  });

  it('tells how many images have more cells than a model gives back', () => {
    const lines = [...Array.from({ length: 103 }, () => 'a,1 2,12,10,round'), 'b,1 2,12,10,round'];
    const { limits } = summarizeData(openDataset(writeDataset(lines, ['a', 'b'])));
    expect(limits).toEqual([
      { detections: 100, images: 1, cells: 3 },
      { detections: 540, images: 0, cells: 0 },
    ]);
  });
});

describe('eda', () => {
  it('writes a page that needs no other file, its text, table and pictures', async () => {
    const data = writeDataset(LINES, IDS);
    const out = join(temporaryFolder(), 'deep', 'eda');
    const { code, output, error } = await command('eda', '--data', data, '--out', out);
    expect(code, error).toBe(0);
    expect(error).toContain(join(out, 'eda.html'));
    expect(readdirSync(out).sort()).toEqual([
      'box-side.svg',
      'cell-area.svg',
      'cells-per-image.svg',
      'cells-per-type.svg',
      'counts.csv',
      'eda.html',
      'eda.txt',
      'example-1-_b_x_y.png',
      'example-2-oval.png',
      'images-per-type.svg',
      'quintiles-1-_b_x_y.svg',
      'quintiles-2-oval.svg',
    ]);
    const text = readFileSync(join(out, 'eda.txt'), 'utf8');
    expect(output.trim()).toBe(text.trim());
    for (const part of [
      '8 images, 19 cells, 1 of the images without any',
      'Quintiles of oval',
      '(4.2, 5.0]',
      '12 × 10',
    ]) {
      expect(text).toContain(part);
    }
    expect(readFileSync(join(out, 'counts.csv'), 'utf8').split('\n').slice(0, 3)).toEqual([
      'id,cell_type,annotation,quantiles',
      'e,oval,5,"(4.2, 5.0]"',
      'd,oval,4,"(3.4, 4.2]"',
    ]);
    // Twelve columns are enlarged to 348, twice, with a gap.
    expect(readPng(join(out, 'example-2-oval.png')).width).toBe(2 * 348 + 6);
    const page = readFileSync(join(out, 'eda.html'), 'utf8');
    expect(page).not.toContain('<b>');
    expect(page).not.toMatch(/(?:src|href)="(?!data:|#)/);
    expect(page.match(/<svg/g)).toHaveLength(7);
    expect(page.match(/src="data:image\/png;base64,/g)).toHaveLength(2);
  });

  it('is shown by a browser without an error, nothing wider than the window', async ({ skip }) => {
    const { browser, unfit } = await launchChromium();
    if (!browser) return skip(unfit);
    try {
      const out = temporaryFolder();
      await command('eda', '--data', writeDataset(LINES, IDS), '--out', out);
      for (const width of [1200, 420]) {
        const page = await browser.newPage({ viewport: { width, height: 800 } });
        const faults: string[] = [];
        page.on('pageerror', (fault) => faults.push(String(fault)));
        page.on('requestfailed', (request) => faults.push(request.url()));
        await page.goto(`file://${join(out, 'eda.html')}`);
        expect(faults).toEqual([]);
        expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
        const loaded = await page.evaluate(() => [...document.images].map((image) => image.naturalWidth));
        expect(loaded).toHaveLength(2);
        expect(Math.min(...loaded)).toBeGreaterThan(0);
        await page.close();
      }
    } finally {
      await browser.close();
    }
  });

  it('takes a COCO file with a TIFF picture, its crowds counted nowhere', async () => {
    const data = temporaryFolder();
    const annotation = { image_id: 1, category_id: 3, area: 4, bbox: [1, 1, 2, 2] };
    const segmentation = { size: [10, 12], counts: [11, 2, 8, 2, 97] };
    const annotations = [
      { ...annotation, id: 1, iscrowd: 0, segmentation },
      { ...annotation, id: 2, iscrowd: 1, segmentation },
    ];
    const images = [{ id: 1, file_name: 'a.tif', width: 12, height: 10 }];
    const categories = [{ id: 3, name: 'round' }];
    writeFileSync(join(data, 'cells.json'), JSON.stringify({ images, annotations, categories }));
    writeFileSync(join(data, 'a.tif'), tiffFile(Buffer.alloc(120, 90), { width: 12, height: 10 }));
    const out = temporaryFolder();
    const { code, output, error } = await command('eda', '--data', join(data, 'cells.json'), '--out', out);
    expect(code, error).toBe(0);
    expect(output).toContain('1 image, 1 cell\n');
    expect(readdirSync(out)).toContain('example-1-round.png');
  });

  it('reads the first 5000 rows in test mode', async () => {
    const lines = Array.from({ length: 5002 }, (_, i) => `${i < 4000 ? 'a' : 'b'},1 2,12,10,round`);
    const out = temporaryFolder();
    const { code, output } = await command(
      'eda',
      '--data',
      writeDataset(lines, ['a', 'b']),
      '--out',
      out,
      '--test-mode',
    );
    expect(code).toBe(0);
    expect(output).toContain('2 images, 5,000 cells');
  });

  it('refuses wrong input in one sentence and writes nothing', async () => {
    const folder = temporaryFolder();
    const data = writeDataset(LINES, IDS);
    writeFileSync(join(folder, 'file'), '');
    const cases: [string[], string][] = [
      [['--data', '/nowhere/cells', '--out', join(folder, 'out')], 'no such folder: /nowhere/cells'],
      [['--data', data, '--out', join(folder, 'file')], 'is a file, expected a folder'],
      [['--data', data, '--out', data], 'it holds a data set'],
      [['--data', writeDataset(['a,119 9,12,10,round'], ['a']), '--out', join(folder, 'out')], 'line 2'],
      [['--out', folder], '--data'],
    ];
    for (const [args, part] of cases) {
      const { code, error, output } = await command('eda', ...args);
      expect(error).toContain(part);
      expect(error.trimEnd().split('\n')).toHaveLength(1);
      expect([code, output]).toEqual([2, '']);
    }
    expect(readdirSync(folder)).toEqual(['file']);
    expect(existsSync(join(data, 'eda.html'))).toBe(false);
  });
});
