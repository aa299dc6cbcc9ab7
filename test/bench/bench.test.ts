import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type BenchGroup, caseName, matches, sizes } from '../../bench/cases.ts';
import { relativeError } from '../../bench/check.ts';
import { benchCommand, runBench, selectGroups } from '../../bench/command.ts';
import { median } from '../../bench/comparison.ts';
import { benchGroups } from '../../bench/groups.ts';
import { resnet50Layers } from '../../bench/layers.ts';
import { measure } from '../../bench/measure.ts';
import { type BenchReport, layersShareOfPeak, renderMarkdown, renderTables } from '../../bench/report.ts';
import { withSection } from '../../bench/resultsFile.ts';
import { UserError } from '../../src/cli/errors.ts';
import { MaskRCNN } from '../../src/model/maskRcnn.ts';
import { presetConfig } from '../../src/model/presets.ts';
import { testDevice } from '../support/device.ts';

/** A group without any kernel of the project, whose second rung computes what `offset` says. */
function group(name: string, offset: number, ran: string[] = []): BenchGroup {
  const variants = ['naive', 'better'];
  return {
    table: 'Test',
    name,
    variants,
    open: (device) => ({
      cases: variants.map((variant, rung) => ({
        group: name,
        variant,
        name: caseName(name, variant),
        bytes: 4 * 2 ** 10,
        run() {
          ran.push(variant);
          device.full([2 ** 10], 1 + rung * offset);
        },
        async check() {
          const values = await device.full([2 ** 10], 1 + rung * offset).floats();
          return { error: relativeError(values, new Float32Array(2 ** 10).fill(1)), tolerance: 1e-6 };
        },
      })),
    }),
  };
}

describe('case list', () => {
  it.each(sizes)('of size %s is well formed', (size) => {
    const groups = benchGroups(size);
    const names = groups.flatMap(({ name, variants }) => variants.map((variant) => caseName(name, variant)));
    expect(new Set(names).size).toBe(names.length);
    for (const { table, name, variants } of groups) {
      expect(table).not.toBe('');
      expect(name).not.toBe('');
      expect(variants.length).toBeGreaterThan(0);
    }
    // Every ladder starts with a rung that the better one is measured against.
    for (const table of ['conv2d forward', 'conv2d input gradient', 'conv2d weight gradient', 'matmul']) {
      const ladders = groups.filter((one) => one.table === table);
      expect(ladders.length).toBeGreaterThan(1);
      for (const { variants } of ladders) expect(variants[0]).toBe('naive');
    }
  });

  it('has the layers of the real model: every shape of its convolutions, and no other', () => {
    const model = new MaskRCNN(presetConfig('resnet50', { numClasses: 4, inputSize: { width: 352, height: 256 } }));
    const inModel = [...model.state.entries.values()]
      // The transposed convolution of the mask head is a product of matrices.
      .filter(({ name, layout }) => ['conv', 'stem'].includes(layout.kind) && !name.includes('conv5_mask'))
      // On the device the stem sees a fourth channel.
      .map(({ shape, layout }) => (layout.kind === 'stem' ? [64, 4, 7, 7] : shape).join('×'));
    const layers = resnet50Layers(8);
    const listed = layers.map(({ shape }) => [shape.out, shape.in, shape.kernel, shape.kernel].join('×'));
    expect([...new Set(listed)].sort()).toEqual([...new Set(inModel)].sort());
    // The RPN's head runs on five levels, everything else once.
    const headConvolutions = 3;
    expect(layers.reduce((sum, { uses }) => sum + uses, 0)).toBe(inModel.length + 4 * headConvolutions);
    expect(new Set(layers.map(({ shape }) => JSON.stringify(shape))).size).toBe(layers.length);
  });

  it('is filtered by words, as one would type them', () => {
    const layers = selectGroups('small', 'layer');
    // Forward and backward.
    expect(layers.length).toBe(2 * resnet50Layers(8).length);
    expect(layers.every(({ name }) => name.startsWith('layer '))).toBe(true);
    const ladder = selectGroups('full', 'CONV2D forward 3x3 64->64');
    expect(ladder.map(({ name }) => name)).toEqual(['conv2d forward 3×3 64→64 @64×64']);
    expect(matches(group('add, 4 M floats', 0), 'add sub')).toBe(false);
    expect(() => selectGroups('small', 'no such case')).toThrow(UserError);
  });
});

describe('arithmetic', () => {
  it('median takes the middle, or the mean of the two middle ones', () => {
    expect(median([5, 1, 100])).toBe(5);
    expect(median([1, 100, 3, 5])).toBe(4);
    expect(median([10, 9, 2])).toBe(9);
  });

  it('relative error is infinite for what is no number or missing', () => {
    expect(relativeError([1, 2, -4], [1, 2, -4.4])).toBeCloseTo(0.4 / 4.4);
    expect(relativeError([Number.NaN], [1])).toBe(Number.POSITIVE_INFINITY);
    expect(relativeError([1], [1, 2])).toBe(Number.POSITIVE_INFINITY);
    expect(relativeError([0, 0], [0, 0])).toBe(0);
  });

  it('averages the share of the peak over layers by their operations in the model', () => {
    const record = { table: '', group: '', variant: '', name: '', check: { error: 0, tolerance: 0, right: true } };
    const timed = { rounds: 1, ms: 1, gflops: 1, gigabytesPerSecond: null, speedup: 1 };
    const layers = [
      { ...record, ...timed, uses: 3, flops: 10, percentOfPeak: 50 },
      { ...record, ...timed, uses: 1, flops: 30, percentOfPeak: 10 },
      { ...record, ...timed, flops: 1e9, percentOfPeak: 1 },
    ];
    expect(layersShareOfPeak(layers)).toBeCloseTo(30);
    expect(layersShareOfPeak(layers.slice(2))).toBeNull();
  });
});

describe('measuring', () => {
  it('warms up, then times the rungs of a group in turn', async () => {
    const ran: string[] = [];
    const options = { rounds: 3, milliseconds: 0, longest: 60_000 };
    const { records, peaks, stopped } = await measure(await testDevice(), [group('right', 0, ran)], options);
    expect(stopped).toBe(false);
    expect(ran).toEqual(Array.from({ length: 4 }, () => ['naive', 'better']).flat());
    expect(records.map(({ name }) => name)).toEqual(['right · naive', 'right · better']);
    expect(records[0].speedup).toBe(1);
    for (const { ms, rounds, check, gigabytesPerSecond, gflops, percentOfPeak } of records) {
      expect(ms).toBeGreaterThan(0);
      expect(rounds).toBe(3);
      expect(check.right).toBe(true);
      expect(gigabytesPerSecond).toBeCloseTo((4 * 2 ** 10) / (ms as number) / 1e6);
      expect(gflops).toBeNull();
      expect(percentOfPeak).toBeGreaterThan(0);
    }
    expect(peaks.gigabytesPerSecond).toBeGreaterThan(0);
    expect(peaks.gflops).toBeNull();
  });

  it('reports a case that computes wrongly and does not time it', async () => {
    const ran: string[] = [];
    const measured = await measure(await testDevice(), [group('wrong', 0.5, ran)], {
      rounds: 1,
      milliseconds: 0,
      longest: 60_000,
    });
    expect(new Set(ran)).toEqual(new Set(['naive']));
    const [naive, better] = measured.records;
    expect(naive.check.right).toBe(true);
    expect(better.check).toEqual({ error: 0.5, tolerance: 1e-6, right: false });
    expect(better.ms).toBeNull();
    expect(better.speedup).toBeNull();
    expect(renderTables(measured)).toContain('WRONG by 5.0e-1');
  });

  it('stops when asked, with what is complete', async () => {
    const ran: string[] = [];
    const groups = [group('first', 0), group('second', 0, ran)];
    const options = { rounds: 2, milliseconds: 0, longest: 60_000, stopping: () => ran.length > 0 };
    const { records, stopped } = await measure(await testDevice(), groups, options);
    expect(stopped).toBe(true);
    expect(records.map(({ group: name }) => name)).toEqual(['first', 'first']);
  });

  it('makes fewer rounds where they are long, and more where they are quick', async () => {
    const device = await testDevice();
    const long = await measure(device, [group('long', 0)], { rounds: 3, milliseconds: 0, longest: 0 });
    expect(long.records.map(({ rounds }) => rounds)).toEqual([1, 1]);
    const quick = await measure(device, [group('quick', 0)], { rounds: 1, milliseconds: 2000, longest: 2000 });
    for (const { rounds } of quick.records) expect(rounds).toBeGreaterThan(1);
  });

  it('gives all memory back', async () => {
    const device = await testDevice();
    const options = { rounds: 1, milliseconds: 0, longest: 60_000 };
    await measure(device, [group('once', 0)], options);
    const before = device.gpu.counters().inUse;
    await measure(device, [group('again', 0), ...selectGroups('small', 'sgd')], options);
    expect(device.gpu.counters().inUse).toBe(before);
  });
});

describe('command', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'bench-'));
  });
  afterEach(() => {
    vi.restoreAllMocks();
    process.exitCode = undefined;
    rmSync(folder, { recursive: true, force: true });
  });

  it('measures real cases end to end and writes JSON and Markdown', async () => {
    const shown = vi.spyOn(console, 'log').mockImplementation(() => undefined);
    vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    const json = join(folder, 'bench.json');
    const markdown = join(folder, 'bench.md');
    const flags = { filter: 'matmul 128', adapter: 'auto', size: 'small', rounds: 1, json, markdown } as const;
    await runBench(await testDevice(), flags);
    expect(process.exitCode).toBeUndefined();
    const report = JSON.parse(readFileSync(json, 'utf8')) as BenchReport;
    expect(report.cases.map(({ name }) => name)).toEqual(
      ['naive', 'tile from buffers', 'tile from textures', 'matmul'].map((rung) => `matmul 128³ · ${rung}`),
    );
    for (const { check, ms, gflops, percentOfPeak } of report.cases) {
      expect(check.right).toBe(true);
      expect(gflops).toBeCloseTo((2 * 128 ** 3) / (ms as number) / 1e6);
      expect(percentOfPeak).toBeGreaterThan(0);
    }
    expect(report.peaks.gflops).toBeGreaterThan(0);
    expect(Object.keys(report.versions)).toContain('webgpu');
    expect(report.adapter.name).not.toBe('');
    expect(readFileSync(markdown, 'utf8')).toBe(withSection('', renderMarkdown(report)));
    expect(readFileSync(markdown, 'utf8')).toContain('| matmul 128³ | matmul |');
    expect(shown.mock.calls.flat().join('\n')).toContain('matmul 128³');
    expect(readdirSync(folder).sort()).toEqual(['bench.json', 'bench.md']);
  });

  it('refuses unknown options and values before anything is opened or written', async () => {
    const json = join(folder, 'bench.json');
    const parse = (...args: string[]) =>
      benchCommand()
        .exitOverride()
        .configureOutput({ outputError: () => undefined })
        .parseAsync([...args, '--json', json], { from: 'user' });
    await expect(parse('--bogus')).rejects.toThrow("unknown option '--bogus'");
    await expect(parse('--rounds', '0')).rejects.toThrow('whole number from 1');
    await expect(parse('--size', 'huge')).rejects.toThrow('full');
    await expect(parse('--adapter', 'magic')).rejects.toThrow(UserError);
    await expect(parse('--filter', 'no such case')).rejects.toThrow('No case matches --filter no such case');
    expect(existsSync(json)).toBe(false);
  });
});
