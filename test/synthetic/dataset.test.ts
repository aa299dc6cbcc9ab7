import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import { openDataset } from '../../src/data/dataset.ts';
import { readPng } from '../../src/data/png.ts';
import { rleDecode } from '../../src/data/rle.ts';
import { ensureSyntheticDataset, syntheticCacheDir, syntheticImage } from '../../src/data/synthetic.ts';
import { syntheticCellTypes } from '../../src/data/syntheticShapes.ts';
import { components, otsuLevel, otsuSegments, segmentAP50 } from '../reference/otsu.ts';

interface Row {
  id: string;
  annotation: string;
  width: string;
  height: string;
  cell_type: string;
}

const IMAGES = 12;
const [WIDTH, HEIGHT] = [384, 256];
const folder = mkdtempSync(join(tmpdir(), 'synthetic-'));
const first = join(folder, 'first');
const reported: [number, number][] = [];
let rows: Row[] = [];

beforeAll(() => {
  const progress = (done: number, total: number) => reported.push([done, total]);
  expect(ensureSyntheticDataset({ dir: first, images: IMAGES, progress })).toBe(first);
  rows = parse(readFileSync(join(first, 'train.csv')), { columns: true });
});
afterAll(() => rmSync(folder, { recursive: true }));

/** One hash over names and bytes of all files. */
function fingerprint(dir: string): string {
  const hash = createHash('sha256');
  for (const name of readdirSync(dir, { recursive: true }).map(String).sort()) {
    hash.update(name);
    if (/\.(png|csv)$/.test(name)) hash.update(readFileSync(join(dir, name)));
  }
  return hash.digest('hex');
}

/** Masks of each image. */
function masksById(): Map<string, Uint8Array[]> {
  const images = new Map<string, Uint8Array[]>();
  for (const [i, row] of rows.entries()) {
    const mask = rleDecode(row.annotation, WIDTH, HEIGHT, `row ${i}`);
    images.set(row.id, [...(images.get(row.id) ?? []), mask]);
  }
  return images;
}

describe('ensureSyntheticDataset', () => {
  it('writes the same bytes for the same seed, others for another', () => {
    const again = ensureSyntheticDataset({ dir: join(folder, 'again'), images: IMAGES, seed: 1 });
    expect(fingerprint(again)).toBe(fingerprint(first));
    const other = ensureSyntheticDataset({ dir: join(folder, 'other'), images: 2, seed: 2 });
    expect(readdirSync(join(other, 'train')).some((name) => existsSync(join(first, 'train', name)))).toBe(false);
  });

  it('reports each image, leaves no temporary folder and does not write a set again', () => {
    expect(reported).toEqual(Array.from({ length: IMAGES }, (_, i) => [i + 1, IMAGES]));
    expect(readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([]);
    const calls: number[] = [];
    ensureSyntheticDataset({ dir: first, images: IMAGES, progress: (done) => calls.push(done) });
    expect(calls).toEqual([]);
  });

  it('leaves nothing behind when it is interrupted', () => {
    const dir = join(folder, 'interrupted');
    const stop = () => {
      throw new Error('stop');
    };
    expect(() => ensureSyntheticDataset({ dir, images: 2, progress: stop })).toThrow('stop');
    expect(readdirSync(folder).filter((name) => name.startsWith('interrupted'))).toEqual([]);
  });

  it('refuses a folder that is something else, in one sentence', () => {
    const dir = join(folder, 'mine');
    mkdirSync(dir);
    expect(() => ensureSyntheticDataset({ dir })).toThrow(UserError);
    expect(() => ensureSyntheticDataset({ dir })).toThrow('no train.csv');
  });

  it('names its cache folder by version and parameters, below XDG_CACHE_HOME', () => {
    const before = process.env.XDG_CACHE_HOME;
    process.env.XDG_CACHE_HOME = folder;
    try {
      const dir = syntheticCacheDir();
      expect(dir.startsWith(join(folder, 'webgpu-mask-rcnn', 'synthetic-v3-'))).toBe(true);
      expect(syntheticCacheDir({ seed: 1, images: 72 })).toBe(dir);
      expect(syntheticCacheDir({ seed: 2 })).not.toBe(dir);
      expect(ensureSyntheticDataset({ images: 1, width: 100, height: 80, cells: [2, 2] })).toBe(
        syntheticCacheDir({ images: 1, width: 100, height: 80, cells: [2, 2] }),
      );
    } finally {
      if (before === undefined) delete process.env.XDG_CACHE_HOME;
      else process.env.XDG_CACHE_HOME = before;
    }
  });
});

describe('synthetic images', () => {
  it('are a data set in the competition format: opens, sizes agree, all types present, mixed and unmixed images', () => {
    const dataset = openDataset(first);
    expect(dataset.classes).toEqual([...syntheticCellTypes]);
    expect(dataset.images).toHaveLength(IMAGES);
    const kinds = dataset.images.map((image) => new Set(image.annotations.map((a) => a.label)).size);
    expect(kinds).toContain(1);
    expect(Math.max(...kinds)).toBeGreaterThan(1);
    for (const image of dataset.images) {
      expect([image.width, image.height]).toEqual([WIDTH, HEIGHT]);
      expect(image.annotations.length).toBeGreaterThanOrEqual(8);
      expect(image.annotations.length).toBeLessThanOrEqual(16);
    }
    expect(Object.keys(rows[0])).toHaveLength(9);
  });

  it('have disjoint masks, each in one piece and of a cell’s size, many of them touching', () => {
    let touching = 0;
    for (const masks of masksById().values()) {
      const owner = new Uint8Array(WIDTH * HEIGHT);
      for (const [k, mask] of masks.entries()) {
        expect(mask.some((value, i) => value !== 0 && owner[i] !== 0)).toBe(false);
        mask.forEach((value, i) => {
          if (value !== 0) owner[i] = k + 1;
        });
        const parts = components(Array.from(mask, Boolean), WIDTH, 1);
        expect(parts).toHaveLength(1);
        expect(parts[0].length).toBeGreaterThanOrEqual(200);
        expect(parts[0].length).toBeLessThan(2500);
      }
      for (let k = 1; k <= masks.length; k++) {
        const meets = owner.some((value, i) => {
          const right = owner[i + 1] ?? 0;
          const below = owner[i + WIDTH] ?? 0;
          return value === k && ((right !== 0 && right !== k) || (below !== 0 && below !== k));
        });
        if (meets) touching++;
      }
    }
    expect(touching).toBeGreaterThan(0.25 * rows.length);
  });

  it('have cells of about the background’s grey, on grey that is neither black nor white', () => {
    const differences: number[] = [];
    for (const [id, masks] of masksById()) {
      const { data } = readPng(join(first, 'train', `${id}.png`));
      const sums = [0, 0];
      const counts = [0, 0];
      for (let i = 0; i < WIDTH * HEIGHT; i++) {
        const cell = Number(masks.some((mask) => mask[i] !== 0));
        sums[cell] += data[3 * i];
        counts[cell]++;
      }
      const [ground, cells] = [sums[0] / counts[0], sums[1] / counts[1]];
      expect(ground).toBeGreaterThan(90);
      expect(ground).toBeLessThan(150);
      differences.push(cells - ground);
    }
    // Uneven light alone shifts single images; over the set, cells are no more than a little darker.
    expect(Math.abs(differences.reduce((sum, value) => sum + value, 0) / differences.length)).toBeLessThan(20);
  });

  it('defeat Otsu’s threshold with connected components: mask AP50 below .35 at half size, whatever its options', () => {
    const [width, height] = [WIDTH / 2, HEIGHT / 2];
    const quarters = (x: number, y: number) => {
      const at = 2 * y * WIDTH + 2 * x;
      return [at, at + 1, at + WIDTH, at + WIDTH + 1];
    };
    const halves = [...masksById()].map(([id, masks]) => {
      const { data } = readPng(join(first, 'train', `${id}.png`));
      const grey = new Float64Array(width * height);
      const truth = masks.map(() => new Set<number>());
      for (let i = 0; i < grey.length; i++) {
        const four = quarters(i % width, Math.floor(i / width));
        grey[i] = four.reduce((sum, at) => sum + data[3 * at], 0) / 4;
        for (const [k, mask] of masks.entries()) if (four.some((at) => mask[at] !== 0)) truth[k].add(i);
      }
      return { grey, truth };
    });
    for (const bright of [true, false]) {
      for (const score of ['area', 'contrast'] as const) {
        for (const fill of [true, false]) {
          const found = halves.map(({ grey, truth }) => ({
            segments: otsuSegments(grey, width, { bright, score, fill }),
            truth,
          }));
          expect(found.some(({ segments }) => segments.length > 0)).toBe(true);
          expect(segmentAP50(found)).toBeLessThan(0.35);
        }
      }
    }
  });

  it('are independent of each other: image 5 alone is image 5 of the set', () => {
    const image = syntheticImage(5);
    expect(image.width * image.height).toBe(image.pixels.length);
    const stored = readPng(join(first, 'train', `${image.id}.png`)).data.filter((_, i) => i % 3 === 0);
    expect(stored).toEqual(image.pixels);
  });
});

describe('the Otsu reference', () => {
  it('finds plain bright discs, so that its failure on the cells says something', () => {
    const width = 60;
    const discs = [
      [12, 12],
      [40, 15],
      [25, 42],
    ];
    const grey = new Float64Array(width * width).fill(40);
    const truth = discs.map(([cx, cy]) => {
      const disc = new Set<number>();
      for (let i = 0; i < grey.length; i++)
        if (Math.hypot((i % width) - cx, Math.floor(i / width) - cy) < 7) disc.add(i);
      for (const i of disc) grey[i] = 200;
      return disc;
    });
    expect(otsuLevel(grey)).toBeGreaterThanOrEqual(40);
    expect(otsuLevel(grey)).toBeLessThan(200);
    const segments = otsuSegments(grey, width, { bright: true, score: 'area', fill: false });
    expect(segmentAP50([{ segments, truth }])).toBe(1);
    expect(segmentAP50([{ segments: segments.slice(1), truth }])).toBeCloseTo(2 / 3, 12);
  });
});
