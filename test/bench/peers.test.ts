import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { acceptance, verdictOf } from '../../bench/acceptance.ts';
import { besideGroups } from '../../bench/beside.ts';
import type { BenchGroup } from '../../bench/cases.ts';
import { type Comparison, medianRatio, prepareContenders } from '../../bench/comparison.ts';
import { type CaseRecord, comparisonOf, measure } from '../../bench/measure.ts';
import {
  chooseEngines,
  npmReason,
  type Peer,
  type PeerEngine,
  peerEngines,
  startPeers,
} from '../../bench/peerEngines.ts';
import { PeerProcess } from '../../bench/peerProcess.ts';
import { permute, toHwio, toNchw, toNhwc, toOihw } from '../../bench/peers/serve.ts';
import { type BenchReport, renderMarkdown, renderTables } from '../../bench/report.ts';
import { readResults, withSection } from '../../bench/resultsFile.ts';
import { UserError } from '../../src/cli/errors.ts';
import { testDevice } from '../support/device.ts';

const script = join(import.meta.dirname, 'fakePeer.mjs');
const open: PeerProcess[] = [];

function fake(behaviour: string): PeerProcess {
  const process_ = new PeerProcess({ program: process.execPath, args: [script, behaviour] });
  open.push(process_);
  return process_;
}

async function fakePeer(name: string, behaviour: string): Promise<Peer> {
  const process_ = fake(behaviour);
  const engine: PeerEngine = { name, computesOn: 'webgpu', script };
  return { engine, process: process_, ready: await process_.start() };
}

afterEach(() => {
  for (const one of open.splice(0)) one.close();
});

const doubling: Comparison = {
  work: () => ({ op: 'matmul', n: 2 }),
  inputs: { a: { shape: [2, 2], data: Float32Array.of(1, -2, 3, 0.5) } },
  check: ({ y }) => ({
    error: Math.max(...[2, -4, 6, 1].map((value, i) => Math.abs(value - y.data[i]))),
    tolerance: 1e-6,
  }),
};

describe('protocol', () => {
  it('starts, prepares, runs and releases', async () => {
    const [contender] = (await prepareContenders(doubling, [await fakePeer('fake', 'right')])).contenders;
    expect(contender.outcome).toEqual({
      engine: 'fake',
      computesOn: 'webgpu',
      near: undefined,
      check: { error: 0, tolerance: 1e-6, right: true },
    });
    expect(await contender.run()).toBe(100);
    expect(await contender.run()).toBe(101);
    await contender.release();
  });

  it('times no engine whose result is wrong, and says what one cannot do', async () => {
    const peers = [
      await fakePeer('wrong', 'wrong'),
      await fakePeer('poor', 'refuses'),
      await fakePeer('good', 'right'),
    ];
    const { contenders, outcomes } = await prepareContenders(doubling, peers);
    expect(contenders.map(({ outcome }) => outcome.engine)).toEqual(['good']);
    expect(outcomes.map(({ failure }) => failure)).toEqual([
      'its result is wrong by 1.0e+0',
      'it has no matmul',
      undefined,
    ]);
    // Those that refused are still there for other work.
    expect(peers.every(({ process: one }) => one?.alive)).toBe(true);
  });

  it('tells of a process that ends, and starts it again for the next work', async () => {
    const peer = await fakePeer('mortal', 'dies');
    const first = await prepareContenders(doubling, [peer]);
    expect(first.outcomes[0].failure).toBe('its process ended (SIGKILL)');
    expect(peer.process?.alive).toBe(false);
    const restart = async (dead: Peer): Promise<void> => {
      dead.process = fake('right');
      await dead.process.start();
    };
    const second = await prepareContenders(doubling, [peer], { restart });
    expect(second.contenders).toHaveLength(1);
  });

  it('tells what a process said that ends before its first line', async () => {
    await expect(fake('silent').start()).rejects.toThrow('its process ended (fatal error: no adapter at all)');
    const missing = new PeerProcess({ program: join(tmpdir(), 'no such program'), args: [] });
    await expect(missing.start()).rejects.toThrow('ENOENT');
  });

  it('says why work cannot be had, and asks nothing of engines without the operator', async () => {
    const peers = [await fakePeer('one', 'right'), await fakePeer('two', 'right')];
    const work = () => Promise.reject(new Error('there is no model'));
    const { outcomes } = await prepareContenders({ ...doubling, work, without: ['two'] }, peers);
    expect(outcomes).toEqual([{ engine: 'one', computesOn: 'webgpu', near: undefined, failure: 'there is no model' }]);
  });
});

describe('ratios', () => {
  it('are medians over pairs, not ratios of medians', () => {
    // The machine is twice as slow in the second round, for both.
    expect(medianRatio([1, 2, 1], [6, 12, 5])).toBe(6);
    expect(medianRatio([1, 10], [4, 20])).toBe(3);
    expect(() => medianRatio([1], [1, 2])).toThrow();
  });

  it("count the fastest WebGPU engine that does the same work, and show every engine's", () => {
    const outcome = (engine: string, more = {}) => ({ engine, computesOn: 'webgpu' as const, ...more });
    const times = new Map([
      ['slow', [50, 60, 70]],
      ['fast', [20, 30, 40]],
      ['near', [1, 1, 1]],
      ['host', [2, 2, 2]],
    ]);
    const outcomes = [
      outcome('slow'),
      outcome('fast'),
      outcome('near', { near: 'something else' }),
      outcome('host', { computesOn: 'cpu' }),
      outcome('failed', { failure: 'it has none' }),
    ];
    const found = comparisonOf([2, 2, 10], times, outcomes);
    expect(found.peers).toEqual({ slow: 60, fast: 30, near: 1, host: 2 });
    expect(found.ratio).toBe(10);
    expect(found.ratios).toEqual({ slow: 25, fast: 10, near: 0.5, host: 1 });
    expect(found.samples).toEqual({ ours: [2, 2, 10], ...Object.fromEntries(times) });
    expect(comparisonOf([1], new Map([['host', [2]]]), outcomes.slice(3, 4)).ratio).toBeNull();
  });
});

/** A group of this program that takes next to no time, with work for other engines. */
function group(name: string): BenchGroup {
  return {
    table: 'Test',
    name,
    variants: ['ours'],
    goal: { what: name, against: 'webgpu', atLeast: 2 },
    open: (device) => ({
      cases: [
        {
          group: name,
          variant: 'ours',
          name: `${name} · ours`,
          flops: 1000,
          run: () => void device.full([4], 1),
          check: async () => ({ error: 0, tolerance: 0 }),
        },
      ],
      comparison: doubling,
    }),
  };
}

const report = z.object({
  machine: z.object({ processor: z.string(), cores: z.number(), memoryGiB: z.number(), system: z.string() }),
  adapter: z.object({ kind: z.string(), name: z.string(), driver: z.string() }),
  versions: z.record(z.string(), z.string()),
  peers: z.array(z.object({ name: z.string(), adapter: z.string(), versions: z.record(z.string(), z.string()) })),
  cases: z.array(
    z.object({
      name: z.string(),
      ms: z.number(),
      gflops: z.number(),
      peers: z.record(z.string(), z.number()),
      ratio: z.number(),
    }),
  ),
  acceptance: z.array(z.object({ what: z.string(), met: z.boolean().nullable() })),
});

describe('measuring beside engines', () => {
  it('takes turns, and the report has the form that is promised', async () => {
    const peers = [await fakePeer('fake', 'right'), await fakePeer('false', 'wrong'), await fakePeer('tired', 'tires')];
    const device = await testDevice();
    const options = { rounds: 1, milliseconds: 0, longest: 0, peers };
    const { records, peaks } = await measure(device, [group('doubling')], options);
    // However few rounds are asked for: three, after one that warms up.
    expect(records[0].rounds).toBe(3);
    expect(records[0].peers).toEqual({ fake: 102 });
    expect(records[0].ratio).toBeGreaterThan(0);
    const whole: BenchReport = {
      machine: { processor: 'P', cores: 2, memoryGiB: 4, system: 'S' },
      adapter: { kind: 'lavapipe', name: 'paper', driver: 'D' },
      versions: { node: '20' },
      size: 'small',
      date: '2026-01-02T03:04:05.000Z',
      peaks,
      peers: peers.map(({ engine, ready }) => ({
        name: engine.name,
        computesOn: 'webgpu',
        adapter: ready?.adapter ?? '',
        versions: ready?.versions ?? {},
      })),
      cases: records,
      acceptance: acceptance(records),
    };
    expect(() => report.parse(JSON.parse(JSON.stringify(whole)))).not.toThrow();
    expect(whole.acceptance).toEqual([
      {
        what: 'doubling',
        wanted: 'at least 2 times as fast',
        measured: `${(records[0].ratio as number).toFixed((records[0].ratio as number) < 10 ? 2 : 1)}× (fake, 102.0 ms)`,
        met: (records[0].ratio as number) >= 2,
      },
    ]);
    const markdown = renderMarkdown(whole);
    expect(markdown).toMatch(/^## lavapipe: paper\n/);
    expect(markdown).toContain('| work | ours | fake | false | tired | ratio |');
    expect(markdown).toContain('- false, doubling: its result is wrong by 1.0e+0.');
    expect(markdown).toContain('- tired, doubling: its process ended (exit code 4).');
    expect(markdown).toContain('- fake (fake 1.2.3) on paper');
    expect(renderTables({ records, peaks }, whole.peers)).toContain('The same work in other engines');
  });
});

describe('goals', () => {
  const base = {
    name: 'x · y',
    table: 'T',
    group: 'x',
    variant: 'y',
    check: { error: 0, tolerance: 0, right: true },
    rounds: 3,
    ms: 1,
    gflops: 1,
    gigabytesPerSecond: null,
    speedup: 1,
    percentOfPeak: 60,
  } satisfies CaseRecord;

  it('are met, missed or not measured', () => {
    const goal = { what: 'x', against: 'torch', atLeast: 1 };
    const verdicts = acceptance([
      { ...base, goal, ratios: { torch: 1.5 }, peers: { torch: 3 } },
      { ...base, goal, ratios: { torch: 0.5 }, peers: { torch: 3 } },
      { ...base, goal },
      {
        ...base,
        goal,
        outcomes: [{ engine: 'torch', computesOn: 'cpu', failure: 'it has none' }],
      },
    ]);
    expect(verdicts.map(verdictOf)).toEqual(['met', 'not met', 'not measured', 'not measured']);
    expect(verdicts.map(({ measured }) => measured)).toEqual([
      '1.50× (torch, 3.0 ms)',
      '0.50× (torch, 3.0 ms)',
      '',
      'torch: it has none',
    ]);
  });

  it("hold the layers' share of the peak and ROIAlign's gradient by its forward pass", () => {
    const layer = { ...base, uses: 1, flops: 10 };
    const roi = { ...base, table: 'ROIAlign' };
    const found = acceptance([
      layer,
      { ...layer, percentOfPeak: 20, flops: 30 },
      { ...roi, name: 'roiAlign 256 RoIs · naive', ms: 100 },
      { ...roi, name: 'roiAlign 256 RoIs · roiAlign', ms: 2 },
      { ...roi, name: 'roiAlign gradient 256 RoIs · gather', ms: 5 },
    ]);
    expect(found.map(({ measured, met }) => [measured, met])).toEqual([
      ['30.0 %', false],
      ['2.50×', true],
    ]);
  });

  it('are those of the issue for work in the sizes of the real model', () => {
    const goals = besideGroups().flatMap(({ goal }) => (goal ? [goal.atLeast] : []));
    expect(goals).toEqual([4, 5, 6, 5, 6, 5, 6, 5, 5]);
  });
});

describe('the document of results', () => {
  const lavapipe = '## lavapipe: llvmpipe (LLVM 15)\n\n- old\n\n### Table\n\n| a |\n';
  const swiftshader = '## swiftshader: SwiftShader\n\n- other\n';

  it('holds a section of each adapter, and replaces its own alone', () => {
    const both = withSection(withSection('', lavapipe), swiftshader);
    expect(both).toMatch(
      /^# Benchmarks\n\n[^\n]+\n\n## lavapipe:.*\n\n- old\n\n### Table\n\n\| a \|\n\n## swiftshader: /,
    );
    const newer = withSection(both, '## lavapipe: llvmpipe (LLVM 20)\n\n- new\n');
    expect(newer).toContain('- new\n\n## swiftshader: SwiftShader\n\n- other\n');
    expect(newer).not.toContain('old');
    expect(newer).not.toContain('LLVM 15');
    expect(withSection(newer, swiftshader)).toBe(newer);
    // Two GPUs are two sections.
    expect(withSection(withSection('', '## gpu: A\n'), '## gpu: B\n')).toContain('## gpu: A\n\n## gpu: B\n');
  });

  it('is not put over another file', () => {
    const folder = mkdtempSync(join(tmpdir(), 'results-'));
    const path = join(folder, 'notes.md');
    writeFileSync(path, '# Notes\n');
    expect(() => readResults(path)).toThrow(UserError);
    expect(readFileSync(path, 'utf8')).toBe('# Notes\n');
    expect(readResults(join(folder, 'new.md'))).toBe('');
    rmSync(folder, { recursive: true });
  });
});

describe('engines', () => {
  it('are chosen by name, and an unknown name is told', () => {
    expect(chooseEngines(true)).toEqual(peerEngines);
    expect(chooseEngines('torch, jax-js').map(({ name }) => name)).toEqual(['torch', 'jax-js']);
    expect(() => chooseEngines('tfjs-webgp')).toThrow("did you mean 'tfjs-webgpu'?");
  });

  it('of Python are left out with the reason where there is no such Python', async () => {
    const device = await testDevice();
    const peers = await startPeers(chooseEngines('torch,tinygrad'), 'no-such-python', device.gpu.opened.info);
    for (const { process: started, leftOut } of peers) {
      expect(started).toBeNull();
      expect(leftOut).toMatch(/^no-such-python does not run \(.*\); --python names another$/);
    }
  });

  it('have scripts, and the packages of npm are of the exact versions that the lock file has', () => {
    const folder = join(import.meta.dirname, '../../bench/peers');
    for (const engine of peerEngines) expect(existsSync(join(folder, engine.script))).toBe(true);
    const { dependencies } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    const { packages } = JSON.parse(readFileSync(join(folder, 'package-lock.json'), 'utf8'));
    for (const [name, version] of Object.entries(dependencies)) {
      expect(packages[`node_modules/${name}`].version).toBe(version);
    }
  });

  it("are installed, or npm's own words tell why not", () => {
    const said = [
      'npm warn deprecated x',
      'npm error code ECONNREFUSED',
      'npm error syscall connect',
      'npm error FetchError: request to http://a/b failed, reason: connect ECONNREFUSED',
      'npm error A complete log of this run can be found in: /c',
    ].join('\n');
    expect(npmReason(said)).toBe('FetchError: request to http://a/b failed, reason: connect ECONNREFUSED');
    expect(npmReason('npm error code E404\n')).toBe('code E404');
    expect(npmReason('')).toBeUndefined();
  });

  it('get their layouts: axes go there and back', () => {
    const x = { shape: [2, 3, 4, 5], values: Float32Array.from({ length: 120 }, (_, i) => i) };
    const nchw = permute(x, toNchw);
    expect(nchw.shape).toEqual([2, 5, 3, 4]);
    // n 1, c 2, h 0, w 3
    expect(nchw.values[((1 * 5 + 2) * 3 + 0) * 4 + 3]).toBe(((1 * 3 + 0) * 4 + 3) * 5 + 2);
    expect(permute(nchw, toNhwc)).toEqual(x);
    expect(permute(permute(x, toOihw), toHwio)).toEqual(x);
  });

  it('are known to the command, which tells an unknown one in one sentence', () => {
    const args = ['--import', 'tsx', 'bench/main.ts', '--peers', 'jaxjs', '--filter', 'matmul'];
    const root = join(import.meta.dirname, '../..');
    const { status, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' });
    expect(stderr).toMatch(/^--peers knows no 'jaxjs', expected some of onnxruntime-node, .*\n$/);
    expect(status).toBe(2);
  });
});
