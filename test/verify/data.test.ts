import { copyFileSync, existsSync, mkdtempSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import type { TensorToWrite } from '../../src/model/safetensors.ts';
import { needsDevice, runVerify } from '../../src/verify/runVerify.ts';
import { command } from '../cli/support.ts';
import { testDevice } from '../support/device.ts';
import { dataFolder, type SmallData } from './dataFolder.ts';
import { opsFolder, smallCases } from './folders.ts';

const tensorOf = (tensors: TensorToWrite[], name: string): TensorToWrite =>
  tensors.find((tensor) => tensor.name === name) ?? tensors[0];

async function off(golden: string): Promise<string[]> {
  const cases = await runVerify({ golden });
  return cases.flatMap(({ rows }) => rows.filter(({ ok }) => !ok).map(({ name }) => name));
}

describe('a data case made by hand', () => {
  test('holds, value by value, without a device', async () => {
    const golden = dataFolder();
    expect(needsDevice(golden)).toBe(false);
    const told: string[] = [];
    const [{ kind, rows, unknown }] = await runVerify({
      golden,
      progress: (_, done, total) => told.push(`${done}/${total}`),
    });
    expect([kind, unknown]).toEqual(['data', undefined]);
    expect(rows.filter(({ ok }) => !ok)).toEqual([]);
    expect(rows).toHaveLength(53);
    expect(new Set(rows.map(({ name }) => name)).size).toBe(rows.length);
    expect(told).toEqual(Array.from({ length: 9 }, (_, i) => `${i + 1}/9`));
  });

  test.each<[string, (values: SmallData, tensors: TensorToWrite[]) => void, string[]]>([
    ['a run length', ({ rle }) => rle.masks.push({ rle: '1 1 2 1', area: 2 }), ['rle.masks.1.rle']],
    ['an area', ({ rle }) => rle.masks[0].area++, ['rle.masks.0.area']],
    ['a pixel', ({ rleSmall }) => rleSmall[0].mask[0].splice(0, 1, 1), ['rleSmall.0.mask', 'rleSmall.0.rle']],
    ['a disjoint mask', ({ removeOverlaps: { out } }) => out.splice(1, 1, '4 3'), ['removeOverlaps.out.1']],
    ['the number of masks', ({ removeOverlaps: { out } }) => out.pop(), ['removeOverlaps.out']],
    ['a label', (_, tensors) => tensorOf(tensors, 'combine.out').data.fill(2, 0, 1), ['combine.out']],
    [
      'two grey levels',
      (_, tensors) => tensorOf(tensors, 'resize.image.out').data.fill(72, 3, 4),
      ['resize.image.out'],
    ],
    ['an odd size', (_, tensors) => tensorOf(tensors, 'resize.image.out_odd').data.fill(0), ['resize.image.out_odd']],
    ['an enlargement', (_, tensors) => tensorOf(tensors, 'resize.image.out_up').data.fill(68), ['resize.image.out_up']],
    [
      'a mask',
      (_, tensors) => tensorOf(tensors, 'resize.mask.out').data.fill(1, 3, 4).fill(1, 1, 2),
      ['resize.mask.out'],
    ],
    ['a box', ({ boxes }) => boxes[1].splice(3, 1, 1), ['boxes.1']],
    ['the number of boxes', ({ boxes }) => boxes.pop(), ['boxes']],
    ['the order of a split', ({ split }) => split[0].train.reverse(), ['split.0.train']],
    ['a side of a split', ({ split }) => split[0].test.push(3), ['split.0.test']],
    ['a mean', ({ describe: { byType } }) => (byType.a.mean += 1e-9), ['describe.byType.a']],
    ['a quantile', ({ describe: { byType } }) => (byType.b['75%'] = 11), ['describe.byType.b']],
    ['an edge', ({ describe: { qcut5Edges } }) => (qcut5Edges.b[3] += 1e-9), ['describe.qcut5Edges.b']],
    [
      'a type',
      ({ describe: { byType } }) => Object.assign(byType, { c: byType.a }),
      ['describe.byType', 'describe.byType.c'],
    ],
    [
      'a box score',
      ({ boxAP }) => (boxAP[0].meanAveragePrecisionForBoxes['0.5'].mAP -= 2e-6),
      ['boxAP.0.meanAveragePrecisionForBoxes.0.5.mAP'],
    ],
    [
      "a class's number of truths",
      ({ boxAP }) => (boxAP[0].meanAveragePrecisionForBoxes['0.5'].perClass['1'][1] = 2),
      ['boxAP.0.meanAveragePrecisionForBoxes.0.5.perClass.1'],
    ],
    [
      'a class of boxes',
      ({ boxAP }) => Object.assign(boxAP[0].meanAveragePrecisionForBoxes['0.5'].perClass, { 2: [1, 1] }),
      ['boxAP.0.meanAveragePrecisionForBoxes.0.5.perClass'],
    ],
    ['compute_mAP', ({ boxAP }) => (boxAP[0].computeMAP.mAP += 2e-6), ['boxAP.0.computeMAP.mAP']],
    [
      'one of its thresholds',
      ({ boxAP }) => (boxAP[0].computeMAP.perThreshold[8] = 0),
      ['boxAP.0.computeMAP.perThreshold'],
    ],
    ['a score of a set', ({ iouMap }) => (iouMap[0].score = 0.6), ['iouMap.0.score']],
    ['a score of an image', ({ iouMap }) => (iouMap[0].images[0].score = 0.6), ['iouMap.0.images.0.score']],
    [
      'a score at a threshold',
      ({ iouMap }) => (iouMap[0].images[0].perThreshold[5] = 1),
      ['iouMap.0.images.0.perThreshold'],
    ],
    ['a COCO number of masks', ({ coco }) => (coco[0].stats.segm[4] = 0), ['coco.0.stats.segm.4 (APm)']],
    ['a COCO number of boxes', ({ coco }) => (coco[0].stats.bbox[8] = 0.99), ['coco.0.stats.bbox.8 (AR100)']],
  ])('%s that is another is a row that fails', async (_, change, names) => {
    expect(await off(dataFolder(change))).toEqual(names);
  });

  test('a grey level of difference is allowed, and null stands for the deviation of one value', async () => {
    expect(await off(dataFolder((_, tensors) => tensorOf(tensors, 'resize.image.out').data.fill(71)))).toEqual([]);
    const single = dataFolder(
      ({ describe: table, splitTypes, split }) => {
        splitTypes.push('c');
        table.counts.push(5);
        // scikit-learn refuses a type of one image.
        split.pop();
        const one = { count: 1, mean: 5, std: 0, min: 5, '25%': 5, '50%': 5, '75%': 5, max: 5 };
        Object.assign(table.byType, { c: one });
        Object.assign(table.qcut5Edges, { c: Array(6).fill(5) });
      },
      (text) => text.replace('"std":0', '"std": NaN'),
    );
    expect(await off(single)).toEqual([]);
  });

  test('what the format does not know is told, and not compared', async () => {
    const golden = dataFolder((values, tensors) => {
      Object.assign(values, { watershed: [1, 2] });
      tensors.push({ name: 'extra.out', dtype: 'U8', shape: [1], data: Uint8Array.of(1) });
    });
    const { code, error, output } = await command('verify', '--golden', golden);
    expect([code, output.trim().split('\n').at(-1)]).toEqual([0, 'All 53 values hold.']);
    expect(error).toContain('also holds watershed, extra.out: unknown, not compared');
  });
});

describe('data cases that cannot be read', () => {
  async function refusal(golden: string): Promise<string> {
    const { code, error, output } = await command('verify', '--golden', golden, '--json', join(golden, 'out.json'));
    expect(error.trimEnd().split('\n')).toHaveLength(1);
    expect([code, output]).toEqual([2, '']);
    expect(existsSync(join(golden, 'out.json'))).toBe(false);
    expect(error).not.toContain('Computing on');
    return error;
  }

  const keys = ['rle', 'rleSmall', 'removeOverlaps', 'resizeMask', 'boxes', 'split', 'splitTypes', 'describe', 'boxAP'];
  test.each([...keys, 'iouMap', 'coco'])('a missing %s is named', async (key) => {
    const golden = dataFolder((values) => {
      delete (values as Record<string, unknown>)[key];
    });
    expect(await refusal(golden)).toContain(`${join(golden, 'data.json')} lacks '${key}', expected`);
  });

  test.each<[string, (values: SmallData, tensors: TensorToWrite[]) => void, string]>([
    [
      'an inner key',
      ({ rle }) => delete (rle.masks[0] as Partial<{ area: number }>).area,
      "lacks 'rle.masks.0.area', expected",
    ],
    ['a tensor', (_, tensors) => tensors.splice(1, 1), "data.safetensors has no tensor 'combine.out'"],
    ['another type', (values) => Object.assign(values.boxAP[0].computeMAP, { mAP: 'half' }), 'boxAP.0.computeMAP.mAP'],
    ['eleven COCO numbers', ({ coco }) => coco[0].stats.bbox.pop(), 'coco.0.stats.bbox'],
    [
      'a run outside its image',
      ({ removeOverlaps }) => (removeOverlaps.in[1] = '8 2'),
      'removeOverlaps.in.1: the run "8 2" ends',
    ],
    [
      'counts of other images',
      ({ describe: { counts } }) => counts.pop(),
      'describe.counts holds 7 values, but splitTypes 8',
    ],
    ['a split that is impossible', ({ split }) => (split[0].testSize = 7), 'cannot split by type'],
    [
      'rows of two lengths',
      ({ rleSmall }) => rleSmall[0].mask[0].pop(),
      'rleSmall.0.mask: expected rows of one length',
    ],
    [
      'a COCO mask of another size',
      ({ coco }) => coco[0].detections[0].segmentation.counts.pop(),
      'coco.0.detections: entry 0',
    ],
    [
      'a grey image',
      (_, tensors) => Object.assign(tensorOf(tensors, 'resize.image.in'), { shape: [2, 12] }),
      "the tensor 'resize.image.in' has the shape [2, 12], expected [height, width, 3]",
    ],
  ])('%s is told in one sentence', async (_, change, part) => {
    const golden = dataFolder(change);
    const error = await refusal(golden);
    expect(error).toContain(part);
    expect(error).toContain(golden);
  });

  test('text that is no JSON, a missing file of tensors', async () => {
    expect(await refusal(dataFolder(undefined, (text) => text.slice(0, -9)))).toContain(
      'data.json is not readable JSON',
    );
    const golden = dataFolder();
    renameSync(join(golden, 'data.safetensors'), join(golden, 'tensors.safetensors'));
    expect(await refusal(golden)).toContain('data.safetensors');
  });
});

describe('the verify command', () => {
  test('ends with 1 naming the value that is off, and writes all rows', async () => {
    const golden = dataFolder(({ iouMap }) => {
      iouMap[0].score = 0.6;
    });
    const json = join(golden, 'rows.json');
    const { code, error, output } = await command('verify', '--golden', golden, '--json', json);
    expect(code).toBe(1);
    expect(error.trimEnd()).toMatch(/^1 of 53 values is off: data-golden-\S+ iouMap\.0\.score\.$/);
    expect(output).toContain('at 0: 0.5, expected 0.6');
    expect(JSON.parse(readFileSync(json, 'utf8'))).toMatchObject({
      adapter: null,
      ok: false,
      cases: [{ kind: 'data' }],
    });
  });

  test('runs folders of all kinds, on a device where one is needed', async () => {
    const parent = mkdtempSync(join(tmpdir(), 'goldens-'));
    renameSync(dataFolder(), join(parent, 'data'));
    renameSync(opsFolder([smallCases[0]]), join(parent, 'ops'));
    expect(needsDevice(parent)).toBe(true);
    await expect(runVerify({ golden: parent })).rejects.toThrow('needs a device');
    const cases = await runVerify({ golden: parent, device: await testDevice() });
    expect(cases.map(({ name, kind, rows }) => [name, kind, rows.every(({ ok }) => ok)])).toEqual([
      ['data', 'data', true],
      ['small', 'ops', true],
    ]);
    // A fault in the last folder is told before the first is computed.
    writeFileSync(join(parent, 'ops', 'case.json'), '{');
    expect(() => needsDevice(parent)).toThrow(UserError);
  });
});

const shared = resolve(import.meta.dirname, '../../../shared/goldens/data');

describe.skipIf(!existsSync(shared))('the golden data', () => {
  test('hold', async () => {
    const [{ rows, unknown }] = await runVerify({ golden: shared });
    expect(rows.filter(({ ok }) => !ok)).toEqual([]);
    expect(rows.length).toBeGreaterThan(200);
    expect(unknown).toBeUndefined();
    // What the issue asks to be exact is, to the last bit.
    const exact = ['run lengths', 'overlap removal', 'combined masks', 'boxes of masks', 'split', 'describe'];
    for (const row of rows.filter(({ stage }) => exact.includes(stage))) expect(row.error, row.name).toBe(0);
  });

  test('and every number of theirs that is changed is found', async () => {
    const text = readFileSync(join(shared, 'data.json'), 'utf8');
    const folder = mkdtempSync(join(tmpdir(), 'spoiled-'));
    copyFileSync(join(shared, 'data.safetensors'), join(folder, 'data.safetensors'));
    const spoilers: [(values: SmallData) => void, string][] = [
      [({ rle }) => rle.masks[3].area++, 'rle.masks.3.area'],
      [({ removeOverlaps: { out } }) => (out[17] = `1 1 ${out[17]}`), 'removeOverlaps.out.17'],
      [({ boxes }) => boxes[5][2]++, 'boxes.5'],
      [({ split }) => split[2].test.reverse(), 'split.2.test'],
      [
        ({ describe: { qcut5Edges } }) => ((qcut5Edges as unknown as Record<string, number[]>).cort[1] += 1e-6),
        'describe.qcut5Edges.cort',
      ],
      [({ boxAP }) => (boxAP[3].computeMAP.perThreshold[4] += 1e-5), 'boxAP.3.computeMAP.perThreshold'],
      [({ iouMap }) => (iouMap[4].score += 1e-5), 'iouMap.4.score'],
      [({ coco }) => (coco[1].stats.segm[11] += 1e-5), 'coco.1.stats.segm.11 (ARl)'],
    ];
    const values = JSON.parse(text) as SmallData;
    for (const [spoil] of spoilers) spoil(values);
    writeFileSync(join(folder, 'data.json'), JSON.stringify(values));
    expect(await off(folder)).toEqual(spoilers.map(([, name]) => name));
  });
});
