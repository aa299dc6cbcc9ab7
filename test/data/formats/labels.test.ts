import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../../../src/cli/errors.ts';
import { loadSample, openDataset } from '../../../src/data/dataset.ts';
import { writePng } from '../../../src/data/png.ts';
import { noise, removeFolders, temporaryFolder } from '../folders.ts';
import { tiffFile } from '../tiffFile.ts';

afterAll(removeFolders);

const WIDTH = 6;
const HEIGHT = 4;
/** Two cells, 2 before 9 by number although 9 comes first in the image; cell 2 in two pieces. */
// biome-ignore format: an image
const LABELS = [
  0, 0, 9, 9, 0, 2,
  2, 2, 9, 9, 0, 0,
  2, 2, 0, 0, 0, 0,
  0, 0, 0, 0, 0, 0,
];
/** Starts and lengths of cell 2 and cell 9. */
const CELLS = ['6 3 13 2', '3 2 9 2'];

/** Files by path: a list is an image of numbers, `picture` one to look at, text is text. */
type Files = Record<string, number[] | 'picture' | string>;

function folder(files: Files, width = WIDTH): string {
  const dir = temporaryFolder();
  for (const [name, content] of Object.entries(files)) {
    const path = join(dir, name);
    mkdirSync(dirname(path), { recursive: true });
    if (content === 'picture') {
      if (name.endsWith('.png')) writePng(path, WIDTH, HEIGHT, noise(WIDTH, HEIGHT, 1));
      else writeFileSync(path, tiffFile(Buffer.alloc(WIDTH * HEIGHT), { width: WIDTH, height: HEIGHT }));
    } else if (typeof content === 'string') writeFileSync(path, content);
    else if (name.endsWith('.png')) writePng(path, width, content.length / width, Uint16Array.from(content));
    else {
      const data = Buffer.from(Uint16Array.from(content).buffer);
      writeFileSync(path, tiffFile(data, { bits: [16], width, height: content.length / width }));
    }
  }
  return dir;
}

const EMPTY = LABELS.map(() => 0);
const cellsOf = (dir: string) =>
  openDataset(dir).images.map(({ id, annotations }) => [id, ...annotations.map(({ rle }) => rle)]);

describe('label images', () => {
  it('give a cell for each number, in the order of the numbers', () => {
    const dir = folder({ 'b.png': 'picture', 'b_masks.png': LABELS, 'a.png': 'picture', 'a_masks.png': EMPTY });
    const dataset = openDataset(dir);
    expect(dataset.classes).toEqual(['cell']);
    const source = (name: string) => ({ file: join(dir, `${name}_masks.png`), item: 'label' });
    const image = { width: WIDTH, height: HEIGHT };
    expect(dataset.images).toEqual([
      { ...image, id: 'a', path: join(dir, 'a.png'), annotations: [], source: source('a') },
      {
        ...image,
        id: 'b',
        path: join(dir, 'b.png'),
        annotations: [
          { rle: CELLS[0], label: 1, line: 2 },
          { rle: CELLS[1], label: 1, line: 9 },
        ],
        source: source('b'),
      },
    ]);
    expect([...loadSample(dataset.images[1]).target.boxes]).toEqual([0, 0, 5, 2, 2, 0, 3, 1]);
  });

  it.each<[string, Files]>([
    ['Cellpose’s _img', { 'x_img.png': 'picture', 'x_masks.png': LABELS }],
    ['Cellpose’s results', { 'x.png': 'picture', 'x_cp_masks.png': LABELS, 'x_flows.tif': 'picture', 'x_seg.npy': '' }],
    ['TIFF', { 'x.tif': 'picture', 'x_masks.tiff': LABELS }],
    ['the part for training', { 'train/x.png': 'picture', 'train/x_masks.png': LABELS, 'test/y.png': 'picture' }],
    ['images and masks', { 'images/x.tif': 'picture', 'masks/x.tif': LABELS }],
    ['masks with an ending', { 'images/x.png': 'picture', 'masks/x_mask.png': LABELS }],
    [
      'both in a part',
      {
        'train/images/x.png': 'picture',
        'train/masks/x.png': LABELS,
        'test/images/x.png': 'picture',
        'test/masks/x.png': LABELS,
      },
    ],
    [
      'Data Science Bowl 2018',
      {
        'stage1_train/x/images/x.png': 'picture',
        'stage1_train/x/masks/1.png': LABELS.map((label) => (label === 2 ? 255 : 0)),
        'stage1_train/x/masks/2.png': LABELS.map((label) => (label === 9 ? 255 : 0)),
      },
    ],
    [
      'its inner folder',
      {
        'x/images/any.png': 'picture',
        'x/masks/1.png': LABELS.map((label) => (label === 2 ? 255 : 0)),
        'x/masks/2.png': LABELS.map((label) => (label === 9 ? 255 : 0)),
      },
    ],
  ])('are found by the names of %s', (_, files) => {
    expect(cellsOf(folder(files))).toEqual([['x', ...CELLS]]);
  });

  it('take their types from folders, where one name may be there twice', () => {
    const pair = { 'x.png': 'picture', 'x_masks.png': LABELS } as const;
    const inside = (name: string) =>
      Object.fromEntries(Object.entries(pair).map(([file, data]) => [`${name}/${file}`, data]));
    const dir = folder({
      ...inside('spindle'),
      ...inside('round'),
      'flat/images/y.png': 'picture',
      'flat/images/z.png': 'picture',
      'flat/masks/y.png': LABELS,
      'flat/masks/z.png': EMPTY,
    });
    const dataset = openDataset(dir);
    expect(dataset.classes).toEqual(['flat', 'round', 'spindle']);
    expect(dataset.images.map(({ id, annotations }) => [id, ...annotations.map(({ label }) => label)])).toEqual([
      ['flat_y', 1, 1],
      ['flat_z'],
      ['round_x', 2, 2],
      ['spindle_x', 3, 3],
    ]);
    expect(() => openDataset(dir, { classes: ['round', 'flat'] })).toThrow(
      `${join(dir, 'spindle/x_masks.png')}, label 2: unknown cell type "spindle", expected one of round, flat`,
    );
  });

  const typed = (...rows: string[]): string =>
    folder({
      'x.png': 'picture',
      'x_masks.png': LABELS,
      'cell_types.csv': ['id,label,cell_type', ...rows, ''].join('\n'),
    });

  it('take their types from a table', () => {
    const dataset = openDataset(typed('x,9,round', 'x,2,spindle'));
    expect(dataset.classes).toEqual(['round', 'spindle']);
    expect(dataset.images[0].annotations.map(({ label }) => label)).toEqual([2, 1]);
  });

  it('fit a checkpoint of one class, and one that knows "cell", where they have no types', () => {
    const dir = folder({ 'x.png': 'picture', 'x_masks.png': LABELS });
    const open = (...classes: string[]) => {
      const dataset = openDataset(dir, { classes });
      return [dataset.classes, dataset.images[0].annotations.map(({ label }) => label)];
    };
    expect(open('nuclei')).toEqual([['nuclei'], [1, 1]]);
    expect(open('debris', 'cell')).toEqual([
      ['debris', 'cell'],
      [2, 2],
    ]);
    expect(() => open('astro', 'cort')).toThrow('label 2: unknown cell type "cell", expected one of astro, cort (name');
  });

  it('end with the image that reaches the number of cells asked for', () => {
    const pair = (name: string): Files => ({ [`${name}.png`]: 'picture', [`${name}_masks.png`]: LABELS });
    const { images } = openDataset(folder({ ...pair('a'), ...pair('b'), ...pair('c') }), { maxRows: 3 });
    expect(images.map(({ id, annotations }) => [id, annotations.length])).toEqual([
      ['a', 2],
      ['b', 1],
    ]);
  });

  it.each<[string, () => string, string]>([
    [
      'another size',
      () => folder({ 'x.png': 'picture', 'x_masks.png': [...LABELS, 0, 0, 0, 0, 0, 0] }),
      'x_masks.png is 6 × 5, but its image ',
    ],
    ['no cell at all', () => folder({ 'x.png': 'picture', 'x_masks.png': EMPTY }), 'has no cells'],
    [
      'an image twice',
      () => folder({ 'x.png': 'picture', 'x.tif': 'picture', 'x_masks.png': LABELS }),
      'are both the image "x"',
    ],
    [
      'a label image twice',
      () => folder({ 'x.png': 'picture', 'x_masks.png': LABELS, 'x_masks.tif': LABELS }),
      'x_masks.png and x_masks.tif are both the label image of "x"',
    ],
    [
      'no label image',
      () => folder({ 'x.png': 'picture', 'y.png': 'picture', 'x_masks.png': LABELS }),
      'y.png has no label image',
    ],
    [
      'no image',
      () => folder({ 'x.png': 'picture', 'x_masks.png': LABELS, 'y_masks.png': LABELS }),
      'y_masks.png belongs to no',
    ],
    ['colours', () => folder({ 'x.png': 'picture', 'x_masks.png': 'picture' }), 'x_masks.png is a colour image'],
    [
      'two pictures of one image',
      () =>
        folder({
          'x/images/1.png': 'picture',
          'x/masks/1.png': LABELS,
          'y/images/1.png': 'picture',
          'y/images/2.png': 'picture',
        }),
      'holds 2 images, expected one',
    ],
    [
      'no masks',
      () => folder({ 'x/images/1.png': 'picture', 'x/masks/1.png': LABELS, 'y/images/1.png': 'picture' }),
      'no such folder',
    ],
    ['a type missing', () => typed('x,9,round'), 'cell_types.csv has no row for label 2 of image "x"'],
    [
      'a type twice',
      () => typed('x,9,round', 'x,9,flat'),
      'cell_types.csv, line 3: label 9 of image "x" is there twice',
    ],
    ['a type of no image', () => typed('y,9,round'), 'cell_types.csv, line 2: unknown image "y"'],
    ['a label in words', () => typed('x,nine,round'), 'cell_types.csv, line 2: expected the columns id, label'],
    ['a table of another form', () => typed('x,9'), 'cell_types.csv is not a valid CSV table'],
  ])('are refused in one sentence with %s', (_, make, part) => {
    const dir = make();
    expect(() => openDataset(dir)).toThrow(UserError);
    expect(() => openDataset(dir)).toThrow(part);
    expect(() => openDataset(dir)).toThrow(dir);
  });

  it('are refused where a value is no number of a cell', () => {
    const dir = folder({ 'x.png': 'picture' });
    const values = Buffer.from(Float32Array.from(LABELS, (label) => label / 2).buffer);
    writeFileSync(
      join(dir, 'x_masks.tif'),
      tiffFile(values, { bits: [32], sampleFormat: 3, width: WIDTH, height: HEIGHT }),
    );
    expect(() => openDataset(dir)).toThrow('x_masks.tif holds 4.5, expected labels');
  });
});

describe('a folder that is', () => {
  const pair: Files = { 'x.png': 'picture', 'x_masks.png': LABELS };
  it.each<[string, Files, string[]]>([
    [
      'no data set',
      { 'x.png': 'picture' },
      ['no train.csv in', 'no COCO file', 'no label images', 'expected one of them'],
    ],
    [
      'two',
      { ...pair, 'instances.json': '{}' },
      ['several data sets', 'the COCO file instances.json', 'label images in'],
    ],
    ['three', { ...pair, 'a.coco.json': '{}', 'annotations/b.json': '{}' }, ['a.coco.json', 'annotations/b.json']],
    [
      'seven',
      Object.fromEntries([1, 2, 3, 4, 5, 6, 7].map((i) => [`annotations/${i}.json`, '{}'])),
      ['annotations/5.json; 2 more', 'expected one: name the file or folder'],
    ],
    ['two ways of labelling', { ...pair, 'images/x.png': 'picture', 'masks/x.png': LABELS }, ['several data sets']],
  ])('%s is refused in one sentence', (_, files, parts) => {
    const dir = folder(files);
    for (const part of parts) expect(() => openDataset(dir)).toThrow(part);
    expect(() => openDataset(dir)).toThrow(UserError);
  });

  it('the competition’s stays it, whatever else lies there', () => {
    const dir = folder({ ...pair, 'train/a.png': 'picture', 'instances.json': '{}' });
    writeFileSync(join(dir, 'train.csv'), 'id,annotation,width,height,cell_type\na,1 3,6,4,round\n');
    expect(openDataset(dir).classes).toEqual(['round']);
  });
});
