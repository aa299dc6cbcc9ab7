import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { userCache } from '../../src/gpu/cacheFolder.ts';
import type { TileShape } from '../../src/kernels/tile.ts';
import type { Device } from '../../src/tensor/device.ts';
import { cachedKernels, clearTuned, keepTuned, tunedFile, tunedFiles } from '../../src/tuner/cache.ts';
import { tileIsLegal } from '../../src/tuner/candidates.ts';
import { type AdapterKey, adapterKey, kernelsVersion, type TunedKernels } from '../../src/tuner/tunedChoice.ts';
import { testDevice } from '../support/device.ts';

const limits = {
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupSizeY: 256,
  maxComputeWorkgroupStorageSize: 16384,
};
/** As much of a device as its limits: no subgroups. */
const device = {
  gpu: { limits, opened: { subgroupMinSize: 0, subgroupMaxSize: 0 }, device: { features: new Set<string>() } },
} as unknown as Device;

const key: AdapterKey = {
  name: 'Imaginary GPU (rev. 2)',
  kind: 'gpu',
  vendor: 'none',
  architecture: 'a1',
  device: '0x1',
  driver: 'driver 1.0',
  subgroups: '0…0',
  features: 'timestamp-query',
  kernels: 'abcd',
};
const tile: TileShape = {
  lanes: 8,
  lanesDown: 8,
  rows: 4,
  vectors: 1,
  spread: 'workgroup',
  source: 'buffer',
  parallelism: 256,
};
const tuned: TunedKernels = {
  key,
  measured: '2026-01-02T03:04:05.000Z',
  seconds: 1.5,
  products: { 'row wide large': tile, 'column narrow': 'naive' },
  convolutions: { '3×3 data wide many': 'winograd' },
  classes: [],
};

describe('the folder for what can be made again', () => {
  it('is the one that the system has for it', () => {
    expect(userCache({ XDG_CACHE_HOME: '/x' }, 'linux')).toBe('/x');
    expect(userCache({ XDG_CACHE_HOME: '/x' }, 'win32')).toBe('/x');
    expect(userCache({}, 'linux')).toBe(join(homedir(), '.cache'));
    expect(userCache({}, 'darwin')).toBe(join(homedir(), 'Library', 'Caches'));
    expect(userCache({ LOCALAPPDATA: 'C:\\Local' }, 'win32')).toBe('C:\\Local');
    expect(userCache({}, 'win32')).toBe(join(homedir(), 'AppData', 'Local'));
  });
});

describe('measured kernels in files', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'tuned-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('are found again by the same adapter, and leave nothing else behind', () => {
    expect(cachedKernels(device, key, folder)).toBeNull();
    expect(keepTuned(tuned, { folder })).toEqual(tuned);
    expect(cachedKernels(device, key, folder)).toEqual(tuned);
    expect(readdirSync(folder)).toHaveLength(1);
    expect(readdirSync(folder)[0]).toMatch(/^Imaginary-GPU-rev-2-.*\.json$/);
  });

  it('of another adapter are another file; of another driver or kernels they are of no use', () => {
    keepTuned(tuned, { folder });
    expect(cachedKernels(device, { ...key, device: '0x2' }, folder)).toBeNull();
    expect(cachedKernels(device, { ...key, driver: 'driver 2.0' }, folder)).toMatch(
      /was measured with another driver \(driver 1\.0\); the kernels are measured anew\.$/,
    );
    expect(cachedKernels(device, { ...key, kernels: 'ef01' }, folder)).toMatch(/other versions of the kernels/);
    expect(cachedKernels(device, { ...key, subgroups: '8…8' }, folder)).toMatch(/another subgroups \(0…0\)/);
    // What is of no use is replaced without being asked.
    const anew = { ...tuned, key: { ...key, driver: 'driver 2.0' } };
    expect(keepTuned(anew, { folder })).toEqual(anew);
    expect(cachedKernels(device, anew.key, folder)).toEqual(anew);
  });

  it('that are cut, changed by hand or beyond the adapter are told in one sentence', () => {
    const path = tunedFile(key, folder);
    keepTuned(tuned, { folder });
    const text = readFileSync(path, 'utf8');
    const spoiled = [
      '',
      text.slice(0, -20),
      '[]',
      text.replace('"winograd"', '"fastest"'),
      text.replace('"lanes": 8', '"lanes": 0'),
      text.replace('"row wide large"', '"row huge"'),
    ];
    for (const content of spoiled) {
      writeFileSync(path, content);
      const told = cachedKernels(device, key, folder);
      expect(told, content.slice(0, 80)).toMatch(/does not hold measured kernels .* measured anew\.$/);
    }
    writeFileSync(path, text.replace('"lanesDown": 8', '"lanesDown": 64'));
    expect(cachedKernels(device, key, folder)).toMatch(/names kernels that Imaginary GPU .* cannot run/);
    keepTuned(tuned, { folder });
    writeFileSync(path, text.replace('"spread": "workgroup"', '"spread": "subgroup"'));
    expect(cachedKernels(device, key, folder)).toMatch(/cannot run/);
  });

  it('of the process that ends first are everybody’s', () => {
    keepTuned(tuned, { folder });
    const later = { ...tuned, measured: '2026-02-02T03:04:05.000Z', convolutions: {} };
    expect(keepTuned(later, { folder })).toEqual(tuned);
    expect(cachedKernels(device, key, folder)).toEqual(tuned);
    expect(keepTuned(later, { folder, replace: true })).toEqual(later);
    expect(cachedKernels(device, key, folder)).toEqual(later);
    expect(readdirSync(folder)).toHaveLength(1);
  });

  it('are forgotten together', () => {
    keepTuned(tuned, { folder });
    keepTuned({ ...tuned, key: { ...key, name: 'Other' } }, { folder });
    expect(tunedFiles(folder)).toHaveLength(2);
    expect(clearTuned(folder)).toBe(2);
    expect(tunedFiles(folder)).toEqual([]);
    expect(existsSync(folder)).toBe(true);
    expect(clearTuned(join(folder, 'none'))).toBe(0);
  });

  it('hold for the adapter that is open and the kernels that are written now', async () => {
    const { opened } = (await testDevice()).gpu;
    const own = adapterKey(opened);
    expect(own).toMatchObject({ name: opened.info.name, kind: opened.info.kind, kernels: kernelsVersion() });
    expect(own.driver).not.toBe('');
    expect(kernelsVersion()).toMatch(/^[0-9a-f]{8}$/);
  });
});

describe('tiles that can be written and run', () => {
  const has = { limits, subgroup: 8 };
  const legal = (change: Partial<TileShape>, direction: 'row' | 'column' = 'row'): boolean =>
    tileIsLegal({ ...tile, ...change }, direction, has);

  it('keep to the limits of lanes and of workgroup memory', () => {
    expect(legal({})).toBe(true);
    expect(legal({ lanes: 16, lanesDown: 32 })).toBe(false);
    const wide = { lanes: 16, lanesDown: 16, rows: 8, vectors: 2 };
    expect(legal(wide)).toBe(true);
    expect(
      tileIsLegal({ ...tile, ...wide }, 'row', {
        subgroup: 8,
        limits: { ...limits, maxComputeWorkgroupStorageSize: 16383 },
      }),
    ).toBe(false);
  });

  it('share the loads of a block evenly', () => {
    const odd = { lanes: 16, lanesDown: 8 };
    expect(legal(odd)).toBe(true);
    expect(legal(odd, 'column')).toBe(false);
    expect(legal({ rows: 6 })).toBe(false);
  });

  it('of subgroups have exactly their size', () => {
    const one = { spread: 'subgroup', lanesDown: 1, rows: 16 } as const;
    expect(legal({ ...one, lanes: 8 })).toBe(true);
    expect(legal({ ...one, lanes: 4 })).toBe(false);
    expect(legal({ ...one, lanes: 8, rows: 12 })).toBe(false);
    expect(legal({ ...one, lanes: 8, lanesDown: 2 })).toBe(false);
    expect(tileIsLegal({ ...tile, ...one }, 'row', { limits, subgroup: null })).toBe(false);
  });
});
