import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../../../src/cli/errors.ts';
import { loadSample, openDataset } from '../../../src/data/dataset.ts';
import { writePng } from '../../../src/data/png.ts';
import { noise, removeFolders, temporaryFolder } from '../folders.ts';
import { tiffFile } from '../tiffFile.ts';
import { type CocoParts, cocoParts, square, writeCocoDataset } from './cocoFolder.ts';

afterAll(removeFolders);

const open = (parts?: Partial<CocoParts>) => openDataset(join(writeCocoDataset(parts), 'cells.json'));

describe('a COCO file', () => {
  it('gives its categories in the order of their ids, and its images by their names', () => {
    const dir = writeCocoDataset();
    const file = join(dir, 'cells.json');
    const dataset = openDataset(file);
    expect(dataset.dir).toBe(dir);
    // "never" is a category without cells, of id 9.
    expect(dataset.classes).toEqual(['spindle', 'round', 'never']);
    const source = { file, item: 'annotation' };
    expect(dataset.images).toEqual([
      {
        id: 'a',
        path: join(dir, 'images/a.png'),
        width: 12,
        height: 10,
        annotations: [
          { rle: '26 3 38 3 50 3', label: 2, line: 31 },
          { rle: '66 2 78 2', label: 1, line: 5 },
          { rle: '1 24', label: 1, line: 33, iscrowd: true },
        ],
        source,
      },
      { id: 'b', path: join(dir, 'images/b.png'), width: 8, height: 6, annotations: [], source },
    ]);
    const { target } = loadSample(dataset.images[0], { crowds: true });
    expect([[...target.labels], [...target.iscrowd]]).toEqual([
      [2, 1, 1],
      [0, 0, 1],
    ]);
  });

  it('is found in a folder by its name, or in a folder "annotations"', () => {
    for (const name of [
      'instances_train2017.json',
      'my.coco.json',
      'annotations/any.json',
      'annotations/LIVECell/x.json',
    ]) {
      const dir = writeCocoDataset({}, name);
      const dataset = openDataset(dir);
      expect([dataset.dir, dataset.images.length], name).toEqual([dir, 2]);
      expect(openDataset(join(dir, name)).images, name).toEqual(dataset.images);
    }
  });

  it('may keep annotations by id, before the images, as LIVECell’s do, with its images anywhere below', () => {
    const { images, annotations, categories } = cocoParts();
    const byId = Object.fromEntries(annotations.map((annotation) => [annotation.id, annotation]));
    const dir = temporaryFolder();
    const put = (path: string, data: Buffer): void => {
      mkdirSync(dirname(join(dir, path)), { recursive: true });
      writeFileSync(join(dir, path), data);
    };
    put('annotations/livecell_coco_train.json', Buffer.from(JSON.stringify({ annotations: byId, categories, images })));
    put('images/livecell_train_val_images/A172/a.tif', tiffFile(Buffer.alloc(120), { width: 12, height: 10 }));
    put('images/livecell_train_val_images/BV2/b.tif', tiffFile(Buffer.alloc(48), { width: 8, height: 6 }));
    for (const image of images) image.file_name = (image.file_name as string).replace('png', 'tif');
    put('annotations/livecell_coco_train.json', Buffer.from(JSON.stringify({ annotations: byId, categories, images })));
    const dataset = openDataset(dir);
    expect(dataset.images.map(({ path }) => path)).toEqual(
      ['A172/a.tif', 'BV2/b.tif'].map((name) => join(dir, 'images/livecell_train_val_images', name)),
    );
    const lines = ({ annotations }: (typeof dataset.images)[0]) => annotations.map(({ line }) => line);
    // An object's numbers come in ascending order.
    expect(lines(dataset.images[0])).toEqual([5, 31, 33]);

    put('images/livecell_train_val_images/BV2/a.tif', tiffFile(Buffer.alloc(120), { width: 12, height: 10 }));
    expect(() => openDataset(dir)).toThrow(
      /the image "a.tif" may be .*A172\/a.tif or .*BV2\/a.tif in .*, expected one/,
    );
    // The name with its folder tells which.
    for (const image of images) image.file_name = `${image.id === 70 ? 'A172' : 'BV2'}\\${image.file_name}`;
    put('annotations/livecell_coco_train.json', Buffer.from(JSON.stringify({ annotations: byId, categories, images })));
    expect(openDataset(dir).images.map(({ id, path }) => [id, path.slice(-10)])).toEqual([
      ['a', 'A172/a.tif'],
      ['b', '/BV2/b.tif'],
    ]);
  });

  it('names images by their folders where files of one name lie in several', () => {
    const { images } = cocoParts();
    const dir = writeCocoDataset({
      images: [
        { ...images[0], file_name: 'x/a.png' },
        { ...images[1], file_name: 'y/a.png' },
      ],
    });
    for (const [folder, width, height] of [
      ['x', 12, 10],
      ['y', 8, 6],
    ] as const) {
      mkdirSync(join(dir, folder));
      writePng(join(dir, folder, 'a.png'), width, height, noise(width, height, 1));
    }
    expect(openDataset(join(dir, 'cells.json')).images.map(({ id }) => id)).toEqual(['x_a', 'y_a']);
  });

  it('labels by the classes of a checkpoint, or the competition’s', () => {
    const labels = (...[parts, options]: [Partial<CocoParts>?, Parameters<typeof openDataset>[1]?]): number[] =>
      openDataset(join(writeCocoDataset(parts), 'cells.json'), options).images[0].annotations.map(({ label }) => label);
    expect(labels({}, { classes: ['x', 'round', 'spindle'] })).toEqual([2, 3, 3]);
    expect(() => labels({}, { classes: ['spindle'] })).toThrow(
      'annotation 31: unknown cell type "round", expected one of spindle',
    );
    const categories = [
      { id: 7, name: 'shsy5y' },
      { id: 3, name: 'cort' },
    ];
    expect(labels({ categories }, { competitionClasses: true })).toEqual([3, 2, 2]);
  });

  it('gives its first annotations only where asked, and the images that have them', () => {
    const dataset = openDataset(join(writeCocoDataset(), 'cells.json'), { maxRows: 2 });
    expect(dataset.images.map(({ id, annotations }) => [id, annotations.length])).toEqual([['a', 2]]);
  });

  const parts = cocoParts();
  const [a, b] = parts.images;
  const [first, ...others] = parts.annotations;
  const changed = (change: Record<string, unknown>) => () =>
    open({ annotations: [{ ...first, ...change }, ...others] });
  it.each<[string, () => unknown, string]>([
    ['a polygon of two points', changed({ segmentation: [[1, 1, 5, 5]] }), 'annotation 31: the polygon has 2 points'],
    [
      'a crowd of the wrong size',
      changed({ iscrowd: 1, segmentation: { size: [6, 8], counts: [48] } }),
      'annotation 31: the run lengths are for 8 × 6 pixels, but the image is 12 × 10',
    ],
    ['no outline', changed({ segmentation: undefined }), 'annotation 31: the segmentation is neither'],
    ['an unknown image', changed({ image_id: 99 }), 'annotation 31: there is no image 99 among the "images"'],
    ['an unknown category', changed({ category_id: 99 }), 'annotation 31: there is no category 99, expected 3, 7, 9'],
    ['an annotation without id', changed({ id: undefined }), 'annotation number 1: "id" is missing, expected a whole'],
    ['a crowd that is 2', changed({ iscrowd: 2 }), 'annotation number 1: "iscrowd" is 2, expected 0 or 1'],
    ['an annotation that is a number', () => open({ annotations: [7] as never }), 'it is 7, expected an object'],
    ['an annotation twice', () => open({ annotations: [first, { ...first }] }), 'annotation 31: the id is there twice'],
    ['an image twice', () => open({ images: [a, { ...b, id: 70 }] }), 'two images have the id 70 (a.png and b.png)'],
    ['a file twice', () => open({ images: [a, { ...a, id: 2 }] }), 'two images have the id "a" (a.png twice)'],
    [
      'a category twice',
      () => open({ categories: [...parts.categories, { id: 3, name: 'x' }] }),
      '3 "spindle" and 3 "x"',
    ],
    [
      'a name twice',
      () => open({ categories: [...parts.categories, { id: 4, name: 'round' }] }),
      '7 "round" and 4 "round"',
    ],
    [
      'a width in words',
      () => open({ images: [{ ...a, width: '12' }, b] }),
      'image number 1: "width" is "12", expected a',
    ],
    [
      'an image without a name',
      () => open({ images: [a, { ...b, file_name: '' }] }),
      '"file_name" is "", expected a text',
    ],
    ['another size', () => open({ images: [a, { ...b, width: 9 }] }), 'image 71: it is 9 × 6 there, but '],
    ['no such file', () => open({ images: [a, { ...b, file_name: 'c.png' }] }), 'there is no image "c.png" in '],
    ['no annotations', () => open({ annotations: [] }), 'has no cells: its "annotations" are empty'],
    ['no images', () => open({ images: [] }), 'annotation 31: there is no image 70'],
    [
      'no categories',
      () => open({ categories: undefined as never }),
      'has no "categories", expected a COCO instance file',
    ],
  ])('is refused in one sentence with %s', (_, make, part) => {
    expect(make).toThrow(UserError);
    expect(make).toThrow(part);
    expect(make).toThrow('cells.json');
  });

  it('keeps a cell that covers no pixel, which a sample then leaves out', () => {
    const { annotations } = cocoParts();
    annotations[0].segmentation = [square(5.1, 5.1, 0.2)];
    const [image] = open({ annotations }).images;
    expect(image.annotations[0].rle).toBe('');
    const { target, dropped } = loadSample(image);
    expect([target.labels.length, dropped]).toEqual([1, 1]);
  });
});
