import { truncateSync } from 'node:fs';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import { NO_AUGMENTATION } from '../../src/data/augmentations.ts';
import { type Dataset, loadSample, openDataset } from '../../src/data/dataset.ts';
import { type Batch, Loader, type LoaderOptions, startSampleThreads } from '../../src/data/loader.ts';
import { Random } from '../../src/data/random.ts';
import { removeFolders, writeDataset } from './folders.ts';

const IDS = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];
const FLIPS = { ...NO_AUGMENTATION, hflip: 0.5, vflip: 0.5 };
const open: Loader[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((loader) => loader.close()));
});
afterAll(removeFolders);

/** Seven images of 12 × 10, two cells each, one of them a single pixel. */
function cells(): Dataset {
  const rows = IDS.flatMap((id, i) => [`${id},${14 + i} 3 ${26 + i} 3,12,10,x`, `${id},${80 + i} 1,12,10,y`]);
  return openDataset(writeDataset(rows, IDS));
}

function loaderOf(options: Partial<LoaderOptions> = {}): Loader {
  const dataset = options.dataset ?? cells();
  const loader = new Loader({ batchSize: 3, random: 11, ...options, dataset });
  open.push(loader);
  return loader;
}

async function epoch(loader: Loader): Promise<Batch[]> {
  const batches: Batch[] = [];
  for await (const batch of loader) batches.push(batch);
  return batches;
}

const idsOf = (batches: Batch[]): string[] => batches.flat().map(({ image }) => image.id);

describe('Loader', () => {
  it('gives every image once, in order, and keeps the last short batch', async () => {
    const loader = loaderOf();
    const batches = await epoch(loader);
    expect(loader.length).toBe(3);
    expect(batches.map((batch) => batch.length)).toEqual([3, 3, 1]);
    expect(idsOf(batches)).toEqual(IDS);
    expect(batches.flat()[2]).toEqual(loadSample(cells().images[2], { imageId: 2 }));
    expect(loader.droppedCells).toBe(7);
    await epoch(loader);
    expect(loader.droppedCells).toBe(7);
  });

  it('shuffles and flips the same whatever the number of workers', async () => {
    const dataset = cells();
    const options = { dataset, shuffle: true, augmentation: FLIPS, resize: 0.75 };
    const epochs: Batch[][][] = [];
    for (const [workers, prefetch] of [
      [0, 2],
      [1, 0],
      [2, 3],
    ]) {
      const loader = loaderOf({ ...options, workers, prefetch });
      epochs.push([await epoch(loader), await epoch(loader)]);
    }
    expect(epochs[1]).toEqual(epochs[0]);
    expect(epochs[2]).toEqual(epochs[0]);
    const [first, second] = epochs[0];
    expect(idsOf(first)).not.toEqual(IDS);
    expect(idsOf(first)).not.toEqual(idsOf(second));
    expect([...idsOf(first)].sort()).toEqual(IDS);
    const plain = new Map(dataset.images.map((record) => [record.id, loadSample(record, { resize: 0.75 }).image.data]));
    const changed = [...first, ...second]
      .flat()
      .filter(({ image }) => String(plain.get(image.id)) !== String(image.data));
    expect(changed.length).toBeGreaterThan(0);
    expect(changed.length).toBeLessThan(14);
  });

  it('loads the same by threads that loaders share, which outlive them and an epoch that was left', async () => {
    const dataset = cells();
    const options = { dataset, shuffle: true, augmentation: FLIPS };
    const threads = startSampleThreads(2);
    try {
      const own = await epoch(loaderOf({ ...options, workers: 1 }));
      const left = new Loader({ ...options, batchSize: 1, random: 3, workers: threads });
      for await (const _ of left) break;
      await left.close();
      for (let repeat = 0; repeat < 2; repeat++) {
        const loader = new Loader({ ...options, batchSize: 3, random: 11, workers: threads });
        expect(await epoch(loader)).toEqual(own);
        await loader.close();
      }
    } finally {
      await threads.close();
    }
  });

  it('leaves crowds out for training and gives them for evaluation, in whatever thread', async () => {
    const dataset = cells();
    for (const { annotations } of dataset.images) annotations[0].iscrowd = true;
    for (const workers of [0, 1]) {
      const targets = async (crowds?: boolean) =>
        (await epoch(loaderOf({ dataset, workers, crowds }))).flat().map(({ target }) => [...target.iscrowd]);
      expect(await targets()).toEqual(IDS.map(() => []));
      expect(await targets(true)).toEqual(IDS.map(() => [1]));
    }
  });

  it('goes on from a saved generator as if it had not stopped', async () => {
    const dataset = cells();
    const random = new Random(3);
    const loader = loaderOf({ dataset, random, shuffle: true, augmentation: FLIPS });
    await epoch(loader);
    const state = random.save();
    const expected = await epoch(loader);
    const resumed = loaderOf({ dataset, random: Random.restore(state), shuffle: true, augmentation: FLIPS });
    expect(await epoch(resumed)).toEqual(expected);
  });

  it('loads the records it is given only', async () => {
    const dataset = cells();
    expect(idsOf(await epoch(loaderOf({ dataset, records: dataset.images.slice(2, 4) })))).toEqual(['c', 'd']);
    expect(await epoch(loaderOf({ dataset, records: [] }))).toEqual([]);
  });

  it.each([0, 2])('tells a file that breaks as the same UserError, with %i workers, and can go on', async (workers) => {
    const dataset = cells();
    const path = dataset.images[4].path;
    truncateSync(path, 90);
    const loader = loaderOf({ dataset, workers });
    const error = await epoch(loader).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(UserError);
    expect((error as UserError).message).toBe(`${path} is a truncated PNG file (it ends after 90 bytes)`);
    expect((error as UserError).exitCode).toBe(2);
    for await (const batch of loader) {
      expect(batch.map(({ image }) => image.id)).toEqual(['a', 'b', 'c']);
      break;
    }
  });

  it('can be left in the middle of an epoch', async () => {
    const loader = loaderOf({ workers: 2, prefetch: 1, batchSize: 2 });
    for await (const batch of loader) {
      expect(batch).toHaveLength(2);
      break;
    }
    expect(idsOf(await epoch(loader))).toEqual(IDS);
  });

  it('fails instead of waiting for ever once it is closed', async () => {
    const loader = loaderOf({ workers: 1 });
    await loader.close();
    await expect(epoch(loader)).rejects.toThrow('closed');
  });

  it('refuses sizes that make no sense', () => {
    const dataset = cells();
    expect(() => new Loader({ dataset, batchSize: 0, random: 1 })).toThrow('batchSize');
    expect(() => new Loader({ dataset, batchSize: 1, random: 1, workers: -1 })).toThrow('workers');
    expect(() => new Loader({ dataset, batchSize: 1, random: 1, prefetch: 0.5 })).toThrow('prefetch');
  });
});
