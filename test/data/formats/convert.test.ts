import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../../../src/cli/errors.ts';
import { type Dataset, openDataset } from '../../../src/data/dataset.ts';
import { convertDataset, type DataFormat, dataFormats } from '../../../src/data/formats/convert.ts';
import { readPng, readPngValues, writePng } from '../../../src/data/png.ts';
import { HEADER, noise, removeFolders, temporaryFolder, writeDataset } from '../folders.ts';
import { hasRealData, realData } from '../goldenData.ts';
import { tiffFile } from '../tiffFile.ts';
import { writeCocoDataset } from './cocoFolder.ts';

afterAll(removeFolders);

/** Converts what is at `path` and gives the new folder and what was lost. */
async function convert(path: string, format: DataFormat): Promise<{ out: string; losses: string[]; cells: number }> {
  const out = join(temporaryFolder(), 'out');
  const written = await convertDataset({ dataset: openDataset(path), format, out });
  if (written === null) throw new Error('nothing stopped it');
  return { out, ...written };
}

/** What does not depend on where a data set lies and how it is kept. */
const contents = ({ classes, images }: Dataset) => ({
  classes,
  images: images.map(({ id, path, width, height, annotations }) => ({
    id,
    pixels: createHash('sha256').update(readPng(path).data).digest('hex'),
    width,
    height,
    cells: annotations.map(({ rle, label, iscrowd }) => ({ rle, label, iscrowd })),
  })),
});

/** Cells of two types beside each other in one image, of one in the other, none in the third. */
const ROWS = ['a,1 3 13 3,12,10,round', 'a,4 1 16 1,12,10,spindle', 'b,60 5 72 2,12,10,round', 'c,,12,10,'];
const competition = () => writeDataset(ROWS, ['a', 'b', 'c']);

describe('convertDataset', () => {
  it('keeps a competition’s data set, byte for byte, through COCO and through label images', async () => {
    const dir = competition();
    for (const format of dataFormats) {
      const { out, losses, cells } = await convert(dir, format);
      expect([losses, cells], format).toEqual([[], 3]);
      expect(contents(openDataset(out)), format).toEqual(contents(openDataset(dir)));
      const back = (await convert(out, 'competition')).out;
      expect(readFileSync(join(back, 'train.csv'), 'utf8'), format).toBe(`${HEADER}\n${ROWS.join('\n')}\n`);
      for (const name of ['a.png', 'b.png', 'c.png']) {
        expect(readFileSync(join(back, 'train', name))).toEqual(readFileSync(join(dir, 'train', name)));
      }
    }
  });

  it('keeps label images, and needs no table of types for mere cells', async () => {
    const dir = temporaryFolder();
    writePng(join(dir, 'x.png'), 4, 2, noise(4, 2, 1));
    writePng(join(dir, 'x_masks.png'), 4, 2, Uint16Array.of(1, 1, 0, 2, 1, 3, 3, 2));
    for (const format of dataFormats) {
      const { out } = await convert((await convert(dir, format)).out, 'labels');
      expect(readdirSync(out), format).toEqual(['x.png', 'x_masks.png']);
      for (const name of readdirSync(out)) expect(readFileSync(join(out, name))).toEqual(readFileSync(join(dir, name)));
    }
  });

  it('writes COCO’s ids from 1, areas, boxes and crowds', async () => {
    const { out, cells } = await convert(join(writeCocoDataset(), 'cells.json'), 'coco');
    expect(cells).toBe(3);
    const file = JSON.parse(readFileSync(join(out, 'annotations/instances.json'), 'utf8'));
    expect(file).toEqual({
      images: [
        { id: 1, file_name: 'a.png', width: 12, height: 10 },
        { id: 2, file_name: 'b.png', width: 8, height: 6 },
      ],
      categories: [
        { id: 1, name: 'spindle' },
        { id: 2, name: 'round' },
        { id: 3, name: 'never' },
      ],
      // Counts as pycocotools' encode gives them.
      annotations: [
        {
          id: 1,
          category_id: 2,
          segmentation: { size: [10, 12], counts: '<37000^2' },
          area: 9,
          bbox: [1, 2, 3, 3],
          iscrowd: 0,
        },
        {
          id: 2,
          category_id: 1,
          segmentation: { size: [10, 12], counts: 'g1280]1' },
          area: 4,
          bbox: [5, 5, 2, 2],
          iscrowd: 0,
        },
        {
          id: 3,
          category_id: 1,
          segmentation: { size: [10, 12], counts: '0280000000000000000000000' },
          area: 24,
          bbox: [0, 0, 12, 2],
          iscrowd: 1,
        },
      ].map((annotation) => ({ ...annotation, image_id: 1 })),
    });
  });

  it('tells what a format cannot hold', async () => {
    const crowd = join(writeCocoDataset(), 'cells.json');
    const lost = ['Crowds (regions of many cells), which this format does not have, left out: 1'];
    for (const format of ['competition', 'labels'] as const) {
      const { losses, cells } = await convert(crowd, format);
      expect([losses, cells], format).toEqual([lost, 2]);
    }
    // The second cell loses two pixels, the third all of its own.
    const rows = ['a,1 4,12,10,cell', 'a,3 4,12,10,cell', 'a,2 2 6 1,12,10,cell'];
    const { out, losses } = await convert(writeDataset(rows, ['a']), 'labels');
    expect(losses).toEqual([
      'Cells that overlap others before them and keep only their free pixels: 1',
      'Cells wholly under others, left out: 1',
    ]);
    expect([...readPngValues(join(out, 'a_masks.png')).values].slice(0, 7)).toEqual([1, 1, 1, 1, 2, 2, 0]);
  });

  it('keeps the depth of TIFF images', async () => {
    const dir = writeDataset(['a,1 2,3,2,x'], []);
    const pixels = Uint16Array.of(1, 300, 65535, 4, 5, 6);
    writeFileSync(join(dir, 'train/a.tif'), tiffFile(Buffer.from(pixels.buffer), { bits: [16] }));
    const { out } = await convert(dir, 'coco');
    expect(readPngValues(join(out, 'images/a.png')).values).toEqual(pixels);
  });

  it('leaves nothing where it fails or is stopped, and takes an empty folder', async () => {
    const dataset = openDataset(competition());
    const folder = temporaryFolder();
    const out = join(folder, 'new/out');
    let seen = 0;
    const progress = (done: number): void => {
      seen = done;
    };
    expect(await convertDataset({ dataset, format: 'coco', out, progress, stopping: () => seen === 2 })).toBeNull();
    expect([seen, readdirSync(join(folder, 'new'))]).toEqual([2, []]);
    const broken = {
      ...dataset,
      images: [dataset.images[0], { ...dataset.images[1], path: join(folder, 'gone.png') }],
    };
    await expect(convertDataset({ dataset: broken, format: 'coco', out })).rejects.toThrow('gone.png');
    expect(readdirSync(join(folder, 'new'))).toEqual([]);
    mkdirSync(out);
    await convertDataset({ dataset, format: 'coco', out });
    expect(existsSync(join(out, 'annotations/instances.json'))).toBe(true);
    await expect(convertDataset({ dataset, format: 'coco', out })).rejects.toThrow(`--out ${out}: the folder is there`);
  });

  it('refuses what the format cannot hold at all', async () => {
    const dataset = openDataset(competition());
    const [image] = dataset.images;
    const out = join(temporaryFolder(), 'out');
    const labels = (changed: Partial<typeof image>) =>
      convertDataset({ dataset: { ...dataset, images: [{ ...image, ...changed }] }, format: 'labels', out });
    await expect(labels({ id: 'x_masks' })).rejects.toThrow('image "x_masks" cannot have a label image');
    const [cell] = image.annotations;
    await expect(labels({ annotations: Array.from({ length: 65536 }, () => cell) })).rejects.toThrow(
      'image "a" has 65536 cells, but a label image of 16 bits holds 65535',
    );
    await expect(labels({ annotations: [{ ...cell, iscrowd: true }] })).rejects.toThrow(UserError);
    expect(existsSync(out)).toBe(false);
  });
});

describe.skipIf(!hasRealData)('real cells', () => {
  it('come back from COCO and label images as they were', async () => {
    const whole = openDataset(realData.dsb2018);
    const dataset = { ...whole, images: whole.images.slice(0, 4) };
    for (const format of dataFormats) {
      const out = join(temporaryFolder(), 'out');
      await convertDataset({ dataset, format, out });
      expect(contents(openDataset(out)), format).toEqual(contents(dataset));
    }
  });
});
