import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Uint8ArrayReader, Uint8ArrayWriter, ZipReader } from '@zip.js/zip.js';
import { PNG } from 'pngjs';
import { afterAll, describe, expect, it } from 'vitest';
import { cocoRleDecode } from '../../src/data/cocoRle.ts';
import { encodePng, readPng, writePng } from '../../src/data/png.ts';
import { maskPolygons, ringArea } from '../../src/eval/contours.ts';
import { readCocoIds } from '../../src/predict/cocoIds.ts';
import { chooseFormats, parseFormats } from '../../src/predict/formats.ts';
import { cocoResults } from '../../src/predict/outputs/cocoResults.ts';
import { geojson } from '../../src/predict/outputs/geojson.ts';
import { encodeRoi } from '../../src/predict/outputs/imagejRoi.ts';
import { imagejZip } from '../../src/predict/outputs/imagejZip.ts';
import { writeImageOutputs } from '../../src/predict/outputs/imageOutputs.ts';
import { labelImage } from '../../src/predict/outputs/labelImage.ts';
import { submissionCsv } from '../../src/predict/outputs/submissionCsv.ts';
import type { ImagePrediction } from '../../src/predict/prediction.ts';
import { removeFolders, temporaryFolder } from '../data/folders.ts';
import { crop, TWO_CELLS } from './support.ts';

afterAll(removeFolders);

const CLASSES = ['round', 'long'];
const EMPTY: ImagePrediction = { id: 'nothing', position: 0, width: 3, height: 2, cells: [] };
const BOXES: ImagePrediction = { ...TWO_CELLS, cells: TWO_CELLS.cells.map(({ mask, ...cell }) => cell) };
const PICTURE = [
  '............',
  '..1111......',
  '..1..1......',
  '..1111......',
  '............',
  '............',
  '22..........',
  '22.2........',
  '............',
  '............',
].join('');

/** TWO_CELLS by number. */
const numbers = Array.from(PICTURE, (character) => (character === '.' ? 0 : Number(character)));

describe('submission.csv', () => {
  it('has a row per cell and an empty one for an image without', () => {
    const text = [...submissionCsv([EMPTY, TWO_CELLS])].join('');
    expect(text).toBe('id,predicted\nnothing,\nplate-1,15 4 27 1 30 1 39 4\nplate-1,73 2 85 2 88 1\n');
    expect(() => [...submissionCsv([BOXES])]).toThrow('box-only');
  });
});

describe('COCO results', () => {
  it('have the box head’s boxes, scores, and masks that decode to the cells', () => {
    const results = JSON.parse([...cocoResults([EMPTY, TWO_CELLS])].join(''));
    expect(results.map(({ segmentation, ...rest }: { segmentation: unknown }) => rest)).toEqual([
      { image_id: 5, category_id: 2, bbox: [1.5, 1, 3.75, 3], score: 0.9375 },
      { image_id: 5, category_id: 1, bbox: [0, 5, 4, 4], score: 0.5 },
    ]);
    results.forEach(({ segmentation }: { segmentation: { size: [number, number]; counts: string } }, i: number) => {
      expect(Array.from(cocoRleDecode(segmentation, 'here'))).toEqual(numbers.map((value) => Number(value === i + 1)));
    });
  });

  it('are an empty list without cells, and have no masks of a box-only model', () => {
    expect(JSON.parse([...cocoResults([EMPTY])].join(''))).toEqual([]);
    for (const result of JSON.parse([...cocoResults([BOXES])].join('')))
      expect(result).not.toHaveProperty('segmentation');
  });

  it('take the ids of a COCO file, by names', async () => {
    const path = join(temporaryFolder(), 'annotations.json');
    const write = (value: unknown) => writeFileSync(path, JSON.stringify(value));
    const images = [
      { id: 7, file_name: 'sub/other.tif' },
      { id: 90, file_name: 'sub/plate-1.tif', width: 12 },
    ];
    const categories = [
      { id: 3, name: 'long', supercategory: 'cell' },
      { id: 8, name: 'round' },
    ];
    write({ info: {}, annotations: [{ id: 1, segmentation: [[1, 2, 3]] }], images, categories });
    const ids = await readCocoIds(path, CLASSES);
    const results = JSON.parse([...cocoResults([TWO_CELLS], ids)].join(''));
    expect(results.map((result: Record<string, number>) => [result.image_id, result.category_id])).toEqual([
      [90, 3],
      [90, 8],
    ]);
    expect(() => ids.imageId(EMPTY)).toThrow(`${path}: it has no image "nothing"`);
    await expect(readCocoIds(path, ['cell'])).rejects.toThrow(
      'no category "cell", a class of the weights (it has long, round)',
    );
    write({ images: [...images, { id: 1, file_name: 'other.png' }], categories });
    await expect(readCocoIds(path, CLASSES)).rejects.toThrow('two of its images are called "other"');
    write({ images });
    await expect(readCocoIds(path, CLASSES)).rejects.toThrow('its "categories" is wrong');
    writeFileSync(path, '{"images": [}');
    await expect(readCocoIds(path, CLASSES)).rejects.toThrow(`${path} is no JSON`);
    await expect(readCocoIds('/nowhere.json', CLASSES)).rejects.toThrow('no such file: /nowhere.json');
  });
});

describe('label images', () => {
  it('number the cells from the best', () => {
    expect(Array.from(labelImage(TWO_CELLS))).toEqual(numbers);
    expect(() => labelImage(BOXES)).toThrow('box-only');
  });

  it('are grey 16-bit PNGs', () => {
    const pixels = Uint16Array.of(0, 1, 255, 256, 515, 65535);
    const png = PNG.sync.read(encodePng(3, 2, pixels), { skipRescale: true });
    expect(png).toMatchObject({ width: 3, height: 2, depth: 16, colorType: 0 });
    const rgba = png.data as unknown as Uint16Array;
    expect(Array.from(pixels, (_, i) => rgba[4 * i])).toEqual([...pixels]);
  });
});

describe('GeoJSON', () => {
  it('has closed rings, holes, parts, classes, colours and scores as QuPath reads them', () => {
    const { type, features } = JSON.parse(geojson(TWO_CELLS, CLASSES));
    expect(type).toBe('FeatureCollection');
    expect(features.map(({ geometry }: { geometry: { type: string } }) => geometry.type)).toEqual([
      'Polygon',
      'MultiPolygon',
    ]);
    expect(features[0]).toMatchObject({
      type: 'Feature',
      properties: {
        objectType: 'detection',
        classification: { name: 'long', color: [86, 180, 233] },
        measurements: { score: 0.9375 },
      },
    });
    expect(features[1].properties.classification).toEqual({ name: 'round', color: [230, 159, 0] });
    const polygons: [number, number][][][] = [features[0].geometry.coordinates, ...features[1].geometry.coordinates];
    // RFC 7946: rings are closed, the outer one has a positive area, holes a negative one.
    const areas = polygons.map((rings) =>
      rings.map((ring) => {
        expect(ring.at(-1)).toEqual(ring[0]);
        return ringArea(ring.slice(0, -1).flat());
      }),
    );
    expect(areas).toEqual([[12, -2], [4], [1]]);
  });

  it('is a valid empty collection without cells', () => {
    expect(JSON.parse(geojson(EMPTY, CLASSES))).toEqual({ type: 'FeatureCollection', features: [] });
    expect(() => geojson(BOXES, CLASSES)).toThrow('box-only');
  });
});

// Both were read by the Python package roifile 2026.2.10, which wrote the same bytes again: outlines, name, position, colour and
// properties were those given here.
const L_SHAPE =
  '496f757400e408000007000500090008000600000000000000000000000000000000000000000000ffe69f00000000000000' +
  '0000000000000000000300000058000100010003000300000000000000010001000200020000000000000000000000000000' +
  '00000000000000980000000a00000000000000000000000000000000000000ac0000001b0000000000000000000000000000' +
  '00000030003000300031002d0061007300740072006f0063006c006100730073003a00200061007300740072006f000a0073' +
  '0063006f00720065003a00200030002e0039003000300030000a';
const RING =
  '496f757400e40100000100020004000600000000000000000000000000000000000000000000001aff0102ff000000000000' +
  '00000000000000000000000000a80000000040c000003f8000003f80000040c00000408000003f8000004000000040800000' +
  '3f800000400000003f800000408000000000000040a00000404000003f80000040a00000400000003f800000404000004000' +
  '00003f80000040400000404000004080000000000000000000000000000000000000000000e8000000060000000000000000' +
  '000000000000000000000000000000000000000000000000000000000000000000720069006e0067002000b5';

describe('ImageJ regions', () => {
  it('are traced where they have one outline', () => {
    const roi = encodeRoi(maskPolygons(crop(['#..', '###'], 5, 7)), {
      name: '0001-astro',
      position: 3,
      colour: [230, 159, 0],
      properties: { class: 'astro', score: '0.9000' },
    });
    expect(Buffer.from(roi).toString('hex')).toBe(L_SHAPE);
  });

  it('are composites where they have a hole or parts', () => {
    const roi = encodeRoi(maskPolygons(crop(['####', '#..#', '####'], 2, 1)), {
      name: 'ring µ',
      position: 0,
      colour: [1, 2, 255],
    });
    expect(Buffer.from(roi).toString('hex')).toBe(RING);
  });

  it('refuse coordinates beyond 16 bits', () => {
    const far = maskPolygons(crop(['#'], 32767, 0));
    expect(() => encodeRoi(far, { name: '', position: 0, colour: [0, 0, 0] })).toThrow('32767');
  });

  it('come in a zip, best first, under names of their own, the same bytes each time', async () => {
    const zip = await imagejZip(TWO_CELLS, ['round', 'a/b']);
    expect(await imagejZip(TWO_CELLS, ['round', 'a/b'])).toEqual(zip);
    const entries = await new ZipReader(new Uint8ArrayReader(zip)).getEntries();
    expect(entries.map(({ filename }) => filename)).toEqual(['0001-a_b.roi', '0002-round.roi']);
    for (const entry of entries) {
      if (entry.directory) throw new Error('a folder in the zip');
      const roi = Buffer.from(await entry.getData(new Uint8ArrayWriter()));
      expect(roi.toString('latin1', 0, 4)).toBe('Iout');
      // The fifth image of its folder.
      expect(roi.readInt32BE(56)).toBe(5);
    }
    await expect(imagejZip(BOXES, CLASSES)).rejects.toThrow('box-only');
  });
});

describe('an image’s own files', () => {
  it('are written under the format’s folder', async () => {
    const out = temporaryFolder();
    const image = join(temporaryFolder(), 'plate-1.png');
    writePng(image, 12, 10, new Uint8Array(360).fill(90));
    const job = { image, out, classes: CLASSES, prediction: TWO_CELLS };
    await writeImageOutputs({ ...job, formats: ['labels', 'imagej', 'geojson', 'overlays'] });
    expect(readFileSync(join(out, 'geojson', 'plate-1.geojson'), 'utf8')).toBe(geojson(TWO_CELLS, CLASSES));
    const zip = await imagejZip(TWO_CELLS, CLASSES);
    expect(readFileSync(join(out, 'imagej', 'plate-1.zip'))).toEqual(Buffer.from(zip));
    const labels = readFileSync(join(out, 'labels', 'plate-1_masks.png'));
    expect(labels).toEqual(encodePng(12, 10, labelImage(TWO_CELLS)));
    const filled = readPng(join(out, 'overlays', 'plate-1.png')).data;
    // Outlines of boxes instead: of the first from (1, 1) to (6, 4), nothing within.
    await writeImageOutputs({ ...job, prediction: BOXES, formats: ['overlays'] });
    const { data } = readPng(join(out, 'overlays', 'plate-1.png'));
    expect(data).not.toEqual(filled);
    const pixel = (x: number, y: number) => Array.from(data.subarray(3 * (y * 12 + x), 3 * (y * 12 + x) + 3));
    expect(pixel(1, 1)).toEqual([86, 180, 233]);
    expect(pixel(5, 3)).toEqual([86, 180, 233]);
    expect(pixel(2, 2)).toEqual([90, 90, 90]);
    expect(pixel(6, 1)).toEqual([90, 90, 90]);
  });
});

describe('--formats', () => {
  it('reads a list, each format once', () => {
    expect(parseFormats('geojson, submission,geojson')).toEqual(['submission', 'geojson']);
    expect(() => parseFormats('submission,geo-json')).toThrow("there is no 'geo-json', did you mean geojson?");
    expect(() => parseFormats(' ,')).toThrow('expected one or more of submission, coco');
  });

  it('are those that the model can give', () => {
    expect(chooseFormats(undefined, true)).toEqual(['submission', 'overlays']);
    expect(chooseFormats(undefined, false)).toEqual(['coco', 'overlays']);
    expect(chooseFormats(['labels'], true)).toEqual(['labels']);
    for (const format of ['submission', 'labels', 'imagej', 'geojson'] as const) {
      expect(() => chooseFormats(['coco', format], false)).toThrow(`--formats ${format} needs masks`);
    }
  });
});
