import { mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import { loadImage, loadSample, openDataset } from '../../src/data/dataset.ts';
import { listImages, saveAsPng } from '../../src/data/images.ts';
import { readPng, readPngValues, writePng } from '../../src/data/png.ts';
import { readAnnotationTable } from '../../src/data/table.ts';
import { HEADER, noise, removeFolders, temporaryFolder, writeDataset } from './folders.ts';
import { hasRealData, realData } from './goldenData.ts';
import { tiffFile } from './tiffFile.ts';

afterAll(removeFolders);

/** 12 × 10 images: `b` holds two types, `c` no cell. Rows 2–3, columns 3–5 are "27 3 39 3" (start 1 + 2·12 + 2). */
const ROWS = [
  'b,27 3 39 3,12,10,spindle',
  'a,1 2 13 2,12,10,round',
  'b,101 2 113 2,12,10,round',
  'c,,12,10,',
  '"b","5 1",12,10,spindle',
];

const open = () => openDataset(writeDataset(ROWS, ['a', 'b', 'c']));

describe('openDataset', () => {
  it('groups rows by image, sorts images and classes, labels each annotation', () => {
    const dataset = open();
    expect(dataset.classes).toEqual(['round', 'spindle']);
    expect(dataset.images.map(({ id }) => id)).toEqual(['a', 'b', 'c']);
    expect(dataset.images[1].annotations).toEqual([
      { rle: '27 3 39 3', label: 2, line: 2 },
      { rle: '101 2 113 2', label: 1, line: 4 },
      { rle: '5 1', label: 2, line: 6 },
    ]);
    expect(dataset.images[2].annotations).toEqual([]);
  });

  it('takes columns in any order, further columns, a byte-order mark and Windows line ends', () => {
    const dir = writeDataset(
      ['x,round,10,a,12,1 2'],
      ['a'],
      12,
      10,
      '\ufeffplate,cell_type,height,id,width,annotation',
    );
    const table = join(dir, 'train.csv');
    writeFileSync(table, readFileSync(table, 'utf8').replaceAll('\n', '\r\n'));
    expect(openDataset(dir).images).toMatchObject([{ id: 'a', width: 12, height: 10 }]);
  });

  it('uses the competition’s classes on request where the types belong to it, or the classes given', () => {
    const dir = writeDataset(['a,1 2,12,10,shsy5y', 'a,1 2,12,10,cort'], ['a']);
    const labels = (options: Parameters<typeof openDataset>[1]): number[] =>
      openDataset(dir, options).images[0].annotations.map(({ label }) => label);
    expect(labels({})).toEqual([2, 1]);
    expect(labels({ competitionClasses: true })).toEqual([3, 2]);
    expect(labels({ classes: ['x', 'shsy5y', 'cort'] })).toEqual([2, 3]);
    expect(() => openDataset(dir, { classes: ['cort'] })).toThrow(
      'line 2: unknown cell type "shsy5y", expected one of cort',
    );
    const other = writeDataset(ROWS, ['a', 'b', 'c']);
    expect(openDataset(other, { competitionClasses: true }).classes).toEqual(['round', 'spindle']);
  });

  it('reads the first rows only where asked', () => {
    const dir = writeDataset(ROWS, ['a', 'b', 'c']);
    expect(openDataset(dir, { maxRows: 2 }).images.map(({ id }) => id)).toEqual(['a', 'b']);
    expect(readAnnotationTable(dir, 3)).toHaveLength(3);
  });

  it('reads TIFF images beside PNG, and refuses an id that has both', () => {
    const dir = writeDataset(['a,1 2,12,10,x', 'b,1 2,3,2,x'], ['a']);
    writeFileSync(join(dir, 'train/b.tif'), tiffFile(Buffer.of(1, 2, 3, 4, 5, 6)));
    const dataset = openDataset(dir);
    expect(dataset.images.map(({ path }) => path)).toEqual([join(dir, 'train/a.png'), join(dir, 'train/b.tif')]);
    expect([...loadSample(dataset.images[1]).image.data].filter((_, i) => i % 3 === 0)).toEqual(
      [1, 2, 3, 4, 5, 6].map((value) => Math.fround(value / 255)),
    );
    writePng(join(dir, 'train/b.png'), 3, 2, noise(3, 2, 1));
    expect(() => openDataset(dir)).toThrow(/line 3: image "b" is there twice, as b\.\w+ and as b\.\w+ in /);
  });

  const one = (row: string, header?: string) => writeDataset([row], ['a'], 12, 10, header);
  it.each<[string, () => string, string]>([
    ['no folder', () => join(temporaryFolder(), 'gone'), 'no such folder: '],
    ['no table', () => temporaryFolder(), 'no train.csv in '],
    ['a missing column', () => one('a,1 2,12,10', 'id,annotation,width,height'), 'lacks the column "cell_type"'],
    ['two missing columns', () => one('a,12,round', 'id,width,cell_type'), 'lacks the columns "annotation", "height"'],
    ['no rows', () => writeDataset([], []), 'has no rows'],
    ['no cells', () => one('a,,12,10,round'), 'has no cells'],
    ['an unknown image', () => one('zz,1 2,12,10,round'), 'train.csv, line 2: unknown image "zz"'],
    ['a row of the wrong length', () => one('a,1 2,12'), 'is not a valid CSV table'],
    ['an open quote', () => one('"a,1 2,12,10,round'), 'is not a valid CSV table'],
    ['no id', () => one(',1 2,12,10,round'), 'line 2: the id is empty'],
    ['no cell type', () => one('a,1 2,12,10,'), 'line 2: the cell_type is empty'],
    ['a width in words', () => one('a,1 2,wide,10,round'), 'line 2: width is "wide"'],
    ['a height of 0', () => one('a,1 2,12,0,round'), 'line 2: height is "0"'],
    ['another size', () => one('a,1 2,10,12,round'), 'width and height are 10 × 12, but '],
    [
      'an odd run-length text',
      () => one('a,1 2 3,12,10,round'),
      'train.csv, line 2: the run-length text holds 3 numbers',
    ],
    ['a run beyond the image', () => one('a,120 2,12,10,round'), 'train.csv, line 2: the run "120 2" ends beyond'],
    [
      'sizes that differ between rows',
      () => writeDataset(['a,1 2,12,10,x', 'a,1 2,12,11,x'], ['a']),
      'line 3: image "a" is 12 × 11 here, but 12 × 10 before',
    ],
    [
      'no images folder',
      () => {
        const dir = one('a,1 2,12,10,round');
        rmSync(join(dir, 'train'), { recursive: true });
        return dir;
      },
      'no such folder: ',
    ],
    [
      'a truncated image',
      () => {
        const dir = one('a,1 2,12,10,round');
        truncateSync(join(dir, 'train/a.png'), 100);
        return dir;
      },
      'train/a.png is a truncated PNG file',
    ],
  ])('refuses %s in one sentence', (_, make, part) => {
    const dir = make();
    let caught: unknown;
    try {
      openDataset(dir);
    } catch (error) {
      caught = error;
    }
    expect(caught).toBeInstanceOf(UserError);
    expect((caught as UserError).message).toContain(part);
    expect((caught as UserError).message).toContain(dir);
    expect((caught as UserError).message).not.toContain('\n');
    expect((caught as UserError).exitCode).toBe(2);
  });
});

describe('loadSample', () => {
  it('gives image, masks, inclusive boxes and labels, and drops cells without extent', () => {
    const record = open().images[1];
    const { image, target, dropped } = loadSample(record);
    const bytes = readPng(record.path).data;
    expect([image.id, image.width, image.height]).toEqual(['b', 12, 10]);
    expect(image.data).toEqual(Float32Array.from(bytes, (v) => v / 255));
    // The third cell is a single pixel.
    expect(dropped).toBe(1);
    expect([...target.boxes]).toEqual([2, 2, 4, 3, 4, 8, 5, 9]);
    expect([...target.labels]).toEqual([2, 1]);
    expect(target.masks.length).toBe(2 * 120);
    const covered = [...target.masks].flatMap((v, i) => (v === 1 ? [i] : []));
    expect(covered).toEqual([26, 27, 28, 38, 39, 40, 220, 221, 232, 233]);
  });

  it('resizes image and masks and drops what collapses', () => {
    const { image, target, dropped } = loadSample(open().images[1], { resize: 0.5 });
    expect([image.width, image.height, image.data.length]).toEqual([6, 5, 90]);
    // Halved, the first cell has one row and the second is one pixel: rows 2–3 → 1, rows 8–9 → 4.
    expect(dropped).toBe(3);
    expect([target.boxes.length, target.labels.length, target.masks.length]).toEqual([0, 0, 0]);
  });

  it('floors the sides, and refuses a factor that leaves nothing', () => {
    const record = open().images[0];
    const { image } = loadSample(record, { resize: 0.33 });
    expect([image.width, image.height]).toEqual([3, 3]);
    expect(() => loadSample(record, { resize: 0.05 })).toThrow(UserError);
  });

  it('leaves crowds out, or marks them where asked', () => {
    const [, record] = open().images;
    record.annotations[0].iscrowd = true;
    expect([...loadSample(record).target.labels]).toEqual([1]);
    expect(loadSample(record).dropped).toBe(1);
    const { target } = loadSample(record, { crowds: true });
    expect([[...target.labels], [...target.iscrowd]]).toEqual([
      [2, 1],
      [1, 0],
    ]);
  });

  it('names a file that has changed its size since it was listed', () => {
    const record = open().images[0];
    writePng(record.path, 4, 4, noise(4, 4, 1));
    expect(() => loadSample(record)).toThrow(`${record.path} is 4 × 4, but the table says 12 × 10`);
  });
});

describe('images without a table', () => {
  it('lists PNG and TIFF files in order and loads them at a factor', () => {
    const dir = temporaryFolder();
    for (const name of [
      'b.PNG',
      'a.png',
      '.c.png',
      'd.txt',
      'd_masks.png',
      'a_masks.png',
      'e_img.png',
      'e_cp_masks.png',
    ]) {
      writePng(join(dir, name), 9, 6, noise(9, 6, 1));
    }
    writeFileSync(join(dir, 'f.tiff'), tiffFile(Buffer.of(1, 2, 3, 4, 5, 6)));
    const paths = listImages(dir);
    // Label images beside their picture are none; without it they are.
    expect(paths).toEqual(['a.png', 'b.PNG', 'd_masks.png', 'e_img.png', 'f.tiff'].map((name) => join(dir, name)));
    expect(loadImage(paths[1], 0.5)).toMatchObject({ id: 'b', width: 4, height: 3, fileWidth: 9, fileHeight: 6 });
    expect(loadImage(paths[4])).toMatchObject({ id: 'f', width: 3, height: 2 });
  });

  it('says what is missing', () => {
    const dir = temporaryFolder();
    expect(() => listImages(dir)).toThrow(`no image files in ${dir}, expected .png, .tif or .tiff`);
    expect(() => listImages(join(dir, 'x'))).toThrow('no such folder');
    mkdirSync(join(dir, 'y'));
    writeFileSync(join(dir, 'y', 'train.csv'), HEADER);
    expect(() => listImages(join(dir, 'y', 'train.csv'))).toThrow('is not a folder');
    expect(() => loadImage(join(dir, 'x.jpg'))).toThrow('x.jpg is no image that is read, expected .png, .tif or .tiff');
  });

  it('saves as PNG without loss', () => {
    const dir = temporaryFolder();
    const [tif, png, copy] = ['a.tif', 'a.png', 'b.png'].map((name) => join(dir, name));
    const deep = Uint16Array.of(1, 300, 65535, 4, 5, 6);
    writeFileSync(tif, tiffFile(Buffer.from(deep.buffer), { bits: [16] }));
    saveAsPng(tif, png);
    expect(readPngValues(png).values).toEqual(deep);
    saveAsPng(png, copy);
    expect(readFileSync(copy)).toEqual(readFileSync(png));
  });
});

describe.skipIf(!hasRealData)('real cells', () => {
  it.each([
    ['dsb2018' as const, 60, 1777, ['nuclei'], 256, 256],
    ['usiigaci' as const, 60, 1904, ['usiigaci_a', 'usiigaci_b', 'usiigaci_c'], 704, 520],
  ])('opens %s', (name, images, instances, classes, width, height) => {
    const dataset = openDataset(realData[name]);
    expect(dataset.classes).toEqual(classes);
    expect(dataset.images).toHaveLength(images);
    expect(dataset.images.reduce((sum, { annotations }) => sum + annotations.length, 0)).toBe(instances);
    for (const record of dataset.images.slice(0, 3)) {
      const { image, target, dropped } = loadSample(record, { resize: 0.25 });
      expect([image.width, image.height]).toEqual([width / 4, height / 4]);
      expect(target.labels.length + dropped).toBe(record.annotations.length);
      expect(target.labels.length).toBeGreaterThan(0);
      expect(target.masks.length).toBe(target.labels.length * image.width * image.height);
      for (let i = 0; i < target.boxes.length; i += 4) {
        const [xmin, ymin, xmax, ymax] = target.boxes.subarray(i, i + 4);
        expect(xmin >= 0 && xmin < xmax && xmax < image.width && ymin >= 0 && ymin < ymax && ymax < image.height).toBe(
          true,
        );
      }
    }
  });
});
