import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import '../../src/kernels/index.ts';
import { chooseKernels } from '../../src/cli/kernels.ts';
import { trialTable } from '../../src/cli/tunerCommand.ts';
import { type KernelChoice, kernelChoice, setKernelChoice } from '../../src/kernels/kernelChoice.ts';
import type { TileShape } from '../../src/kernels/tile.ts';
import { Device } from '../../src/tensor/device.ts';
import { tunedFiles } from '../../src/tuner/cache.ts';
import { tileName } from '../../src/tuner/candidates.ts';
import { SampleRun } from '../../src/tuner/sampleRun.ts';
import { convolutionClasses, productClasses, type Sample } from '../../src/tuner/shapeClasses.ts';
import { kernelRecord, setKernelFamily, type TunedKernels } from '../../src/tuner/tunedChoice.ts';
import { tuneKernels } from '../../src/tuner/tuner.ts';
import { command } from '../cli/support.ts';
import { testDevice } from '../support/device.ts';

const base = { lanes: 8, lanesDown: 8, rows: 4, vectors: 1, source: 'buffer', parallelism: 4 } as const;
const direct: TileShape = { ...base, lanesDown: 1, spread: 'direct' };
/** Its lanes do not divide the block of a column tile: a part of it is never loaded. */
const wrong: TileShape = { ...base, lanes: 16, spread: 'workgroup' };
/** More lanes than any device allows. */
const impossible: TileShape = { ...base, lanes: 64, lanesDown: 64, spread: 'direct' };

/** One class of each kind: programs are compiled anew on the devices of the tuner, which takes SwiftShader most of the time. */
const names = ['row wide small', 'column narrow', '3×3 data narrow few'];
/** The same work on a few pixels and channels. */
const tiny = (sample: Sample, name: string): Sample | null =>
  names.includes(name)
    ? {
        ...sample,
        height: Math.min(sample.height, 8),
        width: Math.min(sample.width, 40),
        channels: Math.min(sample.channels, 8),
        outChannels: Math.min(sample.outChannels, 12),
      }
    : null;

describe('the tuner', () => {
  let device: Device;
  let table: KernelChoice;
  let tuned: TunedKernels;
  beforeAll(async () => {
    device = await testDevice();
    table = kernelChoice(device);
    tuned = await tuneKernels(async () => new Device(await device.gpu.opened.reopen()), {
      budget: 100_000,
      samples: tiny,
      candidates: (_, { direction }) => (direction === 'row' ? [direct, impossible] : [direct, wrong]),
    });
  });
  afterEach(() => {
    setKernelFamily(device, 'auto');
    setKernelChoice(device, table);
  });

  const trialsOf = (name: string) => tuned.classes.find((found) => found.name === name)?.trials ?? [];

  it('chooses for every class one of its candidates, which was not dropped', () => {
    expect(tuned.classes.map(({ name }) => name)).toEqual(names);
    expect(Object.keys(tuned.products)).toEqual(names.slice(0, 2));
    expect(Object.keys(tuned.convolutions)).toEqual(names.slice(2));
    for (const { name, trials } of tuned.classes) {
      const chosen = trials.filter((trial) => trial.chosen);
      expect(chosen, name).toHaveLength(1);
      expect(chosen[0].dropped).toBeNull();
      expect(chosen[0].ms).toBeGreaterThan(0);
      const choice =
        tuned.products[name as keyof typeof tuned.products] ??
        tuned.convolutions[name as keyof typeof tuned.convolutions];
      const named = choice === undefined || typeof choice === 'string' ? choice : tileName(choice);
      expect(chosen[0].kernel).toBe(named);
    }
  });

  it('times every candidate that was not dropped', () => {
    for (const { name, trials } of tuned.classes) {
      for (const { kernel, ms, dropped } of trials) expect(ms === null, `${name}: ${kernel}`).toBe(dropped !== null);
    }
  });

  it('drops what computes wrongly and what the device refuses, and says why', () => {
    for (const name of names.slice(0, 2)) {
      const bad = trialsOf(name).filter(({ dropped }) => dropped !== null);
      expect(bad.map(({ kernel }) => kernel)).toEqual([tileName(name.startsWith('row') ? impossible : wrong)]);
      expect(bad[0].dropped).toMatch(name.startsWith('row') ? /workgroup/i : /computes 3×3 to the weights .* wrongly/);
      expect(bad[0]).toMatchObject({ ms: null, chosen: false });
    }
  });

  it('shows candidates, times, the chosen and the built-in one', () => {
    const shown = trialTable(tuned);
    for (const { name, trials } of tuned.classes) {
      expect(shown).toContain(name);
      for (const { kernel } of trials) expect(shown).toContain(kernel);
    }
    expect(shown).toMatch(/dropped: computes/);
    expect(shown).toMatch(/chosen, built-in|chosen/);
    expect(shown).toMatch(/×1\.00/);
  });

  it('measures once on an adapter without a table, and every process after computes by that', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'tuner-'));
    const before = { cache: process.env.XDG_CACHE_HOME, tuner: process.env.WEBGPU_TUNER };
    process.env.XDG_CACHE_HOME = folder;
    delete process.env.WEBGPU_TUNER;
    const { opened } = device.gpu;
    const unknown = Object.create(device, {
      gpu: {
        value: Object.create(device.gpu, { opened: { value: { ...opened, info: { ...opened.info, kind: 'cpu' } } } }),
      },
    }) as Device;
    const said: string[] = [];
    const say = (line: string): void => void said.push(line);
    let measurements = 0;
    const measure = async (): Promise<TunedKernels> => {
      measurements++;
      return { ...tuned, key: { ...tuned.key, kind: 'cpu' } };
    };
    try {
      await chooseKernels(unknown, say, { tuner: false }, measure);
      await chooseKernels(unknown, say, { kernels: 'tile' }, measure);
      process.env.WEBGPU_TUNER = 'off';
      await chooseKernels(unknown, say, {}, measure);
      delete process.env.WEBGPU_TUNER;
      // The table was made for this one.
      await chooseKernels(device, say, {}, measure);
      expect(measurements).toBe(0);
      expect(kernelRecord(unknown)).toEqual({ origin: 'table' });
      await chooseKernels(unknown, say, {}, measure);
      expect(measurements).toBe(1);
      const record = kernelRecord(unknown);
      expect(record).toMatchObject({ origin: 'measured', products: tuned.products });
      await chooseKernels(unknown, say, {}, measure);
      expect(measurements).toBe(1);
      expect(kernelRecord(unknown)).toEqual(record);
      expect(tunedFiles()).toHaveLength(1);
      // A run goes on by what it was computed by, whatever is kept now.
      const answer = await command('tuner', '--clear');
      expect(answer).toMatchObject({ code: 0, output: '' });
      expect(answer.error).toBe(
        `Forgot the measured kernels of one adapter (${join(folder, 'webgpu-mask-rcnn', 'tuner')}).\n`,
      );
      const adapter = opened.info.name;
      await chooseKernels(unknown, say, { recorded: { adapter, kernels: record } }, measure);
      expect(kernelRecord(unknown)).toEqual(record);
      await chooseKernels(unknown, say, { recorded: { adapter, kernels: { origin: 'table' } } }, measure);
      expect(kernelRecord(unknown)).toEqual({ origin: 'table' });
      const family = { adapter, kernels: { origin: 'family', family: 'naive' } } as const;
      await chooseKernels(unknown, say, { recorded: family }, measure);
      expect(kernelRecord(unknown)).toEqual(family.kernels);
      // But not on another adapter, and not where something else is asked for.
      await chooseKernels(device, say, { recorded: { ...family, adapter: 'another' } }, measure);
      expect(kernelRecord(device)).toEqual({ origin: 'table' });
      await chooseKernels(unknown, say, { recorded: family, kernels: 'tile' }, measure);
      expect(kernelRecord(unknown)).toEqual({ origin: 'family', family: 'tile' });
      expect(measurements).toBe(1);
      expect(tunedFiles()).toHaveLength(0);
      expect(said).toEqual([]);
    } finally {
      for (const [name, value] of [
        ['XDG_CACHE_HOME', before.cache],
        ['WEBGPU_TUNER', before.tuner],
      ] as const) {
        if (value === undefined) delete process.env[name];
        else process.env[name] = value;
      }
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it('measures nothing unasked where the table is', async ({ skip }) => {
    const { kind, name } = device.gpu.opened.info;
    if (kind !== 'lavapipe' && kind !== 'swiftshader') skip();
    const answer = await command('tuner', '--adapter', kind);
    expect(answer.code).toBe(0);
    expect(answer.output).toBe(`${name} computes by the built-in table; --force measures beside it.\n`);
  });

  it('leaves a device whose choices compute rightly', async () => {
    const single: Sample[] = [
      { direction: 'forward', images: 1, height: 9, width: 10, channels: 7, outChannels: 70, kernel: 3 },
      { direction: 'inputGradient', images: 2, height: 6, width: 5, channels: 12, outChannels: 64, kernel: 3 },
      { direction: 'weightGradient', images: 1, height: 1, width: 300, channels: 33, outChannels: 21, kernel: 1 },
    ];
    const samples = device.hasHalves ? [...single, ...single.map((sample) => ({ ...sample, halves: true }))] : single;
    const say = (): void => undefined;
    const recorded = { adapter: tuned.key.name, kernels: { origin: 'measured' as const, ...tuned } };
    await chooseKernels(device, say, { recorded });
    expect(kernelRecord(device).origin).toBe('measured');
    for (const sample of samples) {
      await device.scope(async () => {
        const run = new SampleRun(device, sample);
        const first = await run.error();
        expect(first).toBeLessThan(sample.halves ? 1e-3 : 1e-5);
        expect(await run.error()).toBe(first);
      });
    }
  });
});

describe('on a real GPU the tuner', () => {
  it('compiles candidates side by side, and drops those that do not compile without another device', async () => {
    const { opened } = (await testDevice()).gpu;
    let devices = 0;
    const open = async (): Promise<Device> => {
      devices++;
      const other = await opened.reopen();
      return new Device({ ...other, info: { ...other.info, kind: 'gpu' } });
    };
    const tuned = await tuneKernels(open, {
      budget: 100_000,
      samples: (sample, name) => (name === 'row wide small' ? tiny(sample, name) : null),
      candidates: () => [direct, impossible],
    });
    const [{ trials }] = tuned.classes;
    expect(trials.find(({ kernel }) => kernel === tileName(impossible))?.dropped).toMatch(/workgroup/i);
    expect(trials.filter(({ dropped }) => dropped !== null)).toHaveLength(1);
    expect(tuned.products).toHaveProperty('row wide small');
    expect(devices).toBe(1);
  });
});

describe('the time that tuning takes', () => {
  const opened: Device[] = [];
  const open = async (): Promise<Device> => {
    const device = new Device(await (await testDevice()).gpu.opened.reopen());
    opened.push(device);
    return device;
  };
  afterAll(async () => {
    for (const device of opened) await device.gpu.close();
  });

  it('ends with the budget: what was not reached keeps the built-in kernels', async () => {
    // A clock that goes by the work: ten dispatches take a second.
    const now = (): number => opened.reduce((sum, { gpu }) => sum + 100 * gpu.counters().dispatches, 0);
    const few = (sample: Sample): Sample => ({ ...sample, height: 4, width: 20, channels: 8, outChannels: 12 });
    const tuned = await tuneKernels(open, { budget: 8_000, now, samples: few, candidates: () => [] });
    // The last step is not cut short.
    expect(tuned.seconds).toBeLessThan(12);
    expect(Object.keys(tuned.products).length).toBeGreaterThan(0);
    expect(tuned.classes.map(({ name }) => name)).toEqual([...productClasses, ...convolutionClasses]);
    const shed = tuned.classes.filter(({ trials }) => !trials.some(({ chosen }) => chosen)).map(({ name }) => name);
    expect(shed.length).toBeGreaterThan(0);
    for (const name of shed) {
      expect(tuned.products).not.toHaveProperty(name);
      expect(tuned.convolutions).not.toHaveProperty(name);
    }
    expect(trialTable(tuned)).toContain('no time: built-in');
  });

  it('is nothing where there is none', async () => {
    const tuned = await tuneKernels(open, { budget: 0 });
    expect(tuned.products).toEqual({});
    expect(tuned.convolutions).toEqual({});
  });
});
