import { Command, InvalidArgumentError, Option } from 'commander';
import { UserError } from '../src/cli/errors.ts';
import { adapterOption, interruptible, kernelsOption, say, tunerOption, withDevice } from '../src/cli/session.ts';
import { writeFileAtomic } from '../src/data/files.ts';
import type { FoundAdapter } from '../src/gpu/adapter.ts';
import { environment } from '../src/gpu/environment.ts';
import type { KernelFamily } from '../src/kernels/kernelChoice.ts';
import type { Device } from '../src/tensor/device.ts';
import { startProgress } from '../src/train/progress.ts';
import { acceptance } from './acceptance.ts';
import { type BenchGroup, matches, type Size, sizes } from './cases.ts';
import { benchGroups, defaultPython } from './groups.ts';
import { measure } from './measure.ts';
import { chooseEngines, closePeers, type Peer, restartPeer, startPeers } from './peerEngines.ts';
import { type BenchReport, type PeerReport, renderMarkdown, renderTables } from './report.ts';
import { readResults, writeSection } from './resultsFile.ts';
import { WHOLE_STEPS } from './steps.ts';

export interface BenchFlags {
  filter?: string;
  adapter: string;
  tuner?: boolean;
  kernels?: KernelFamily;
  size?: Size;
  rounds: number;
  list?: boolean;
  /** Names of engines, or true for all. */
  peers?: string | true;
  python?: string;
  json?: string;
  markdown?: string;
}

/** What the rounds of one group take: at least, where they are quick, and at most, give or take a round. */
const MILLISECONDS = { milliseconds: 1000, longest: 8000 };

/** The groups that `filter` selects. @throws UserError if there are none */
export function selectGroups(size: Size, filter?: string, python?: string): BenchGroup[] {
  const groups = benchGroups(size, python);
  const selected = filter === undefined ? groups : groups.filter((group) => matches(group, filter));
  if (selected.length === 0) {
    const tables = [...new Set(groups.map(({ table }) => table))];
    throw new UserError(`No case matches --filter ${filter}: expected words of one of ${tables.join('; ')}.`);
  }
  return selected;
}

/** Sizes of the real model are for real GPUs; a software adapter would take half an hour over the naive rungs. */
function defaultSize(device: Device): Size {
  return device.gpu.opened.info.kind === 'gpu' ? 'full' : 'small';
}

/** Measures on an open device, shows the tables and writes the files; sets the exit code. */
export async function runBench(device: Device, flags: BenchFlags): Promise<BenchReport> {
  const size = flags.size ?? defaultSize(device);
  const python = flags.python ?? defaultPython();
  const groups = selectGroups(size, flags.filter, python);
  if (flags.markdown !== undefined) readResults(flags.markdown);
  const adapter = device.gpu.opened.info;
  const peers = flags.peers === undefined ? [] : await startPeers(chooseEngines(flags.peers), python, adapter);
  for (const { engine, leftOut } of peers) if (leftOut) say(`Without ${engine.name}: ${leftOut}.`);
  const steps = groups.reduce((sum, { variants }) => sum + variants.length + 1, 0);
  const interrupt = interruptible();
  const bar = startProgress('Benchmarks', steps);
  const measured = await measure(device, groups, {
    rounds: flags.rounds,
    ...MILLISECONDS,
    stopping: interrupt.stopping,
    peers,
    peersIn: (group) => peersTakePart(adapter.kind, group),
    restartPeer: (peer) => restartPeer(peer, python, adapter),
    progress: (done, _total, what) => bar.update(done, what),
  }).finally(() => {
    bar.stop();
    interrupt.done();
    closePeers(peers);
  });
  const { records, peaks, stopped } = measured;
  const report: BenchReport = {
    ...environment(device.gpu.opened),
    size,
    date: new Date().toISOString(),
    peaks,
    peers: peers.map(peerReport),
    cases: records,
    acceptance: acceptance(records),
  };
  if (records.length > 0) console.log(renderTables(measured, report.peers, adapter.kind));
  if (stopped) {
    say(`Stopped after ${records.length} cases; nothing was written.`);
    process.exitCode = 130;
    return report;
  }
  if (flags.json !== undefined) writeFileAtomic(flags.json, `${JSON.stringify(report, null, 2)}\n`);
  if (flags.markdown !== undefined) writeSection(flags.markdown, renderMarkdown(report));
  const wrong = records.filter(({ check }) => !check.right);
  if (wrong.length > 0) {
    say(`Wrong results, not timed: ${wrong.map(({ name }) => name).join('; ')}.`);
    process.exitCode = 1;
  }
  return report;
}

/**
 * On SwiftShader other engines are ten times as slow as on lavapipe: the layers and whole models are measured without them,
 * which would take hours.
 */
function peersTakePart(kind: FoundAdapter['kind'], { uses, table }: BenchGroup): boolean {
  return kind !== 'swiftshader' || (uses === undefined && table !== WHOLE_STEPS);
}

function peerReport({ engine, ready, leftOut }: Peer): PeerReport {
  const { name, computesOn } = engine;
  return { name, computesOn, adapter: ready?.adapter ?? '', versions: ready?.versions ?? {}, leftOut };
}

function parseRounds(text: string): number {
  const rounds = Number(text);
  if (!Number.isInteger(rounds) || rounds < 1) throw new InvalidArgumentError('Expected a whole number from 1.');
  return rounds;
}

export function benchCommand(): Command {
  return new Command('bench')
    .description(
      'Time kernels from naive to best, the layers of ResNet-50-FPN Mask R-CNN, and whole steps; every result is checked first.',
    )
    .option('--filter <text>', 'only cases whose name has all these words, for instance "conv2d 3x3" or "layer"')
    .addOption(adapterOption())
    .addOption(kernelsOption())
    .addOption(tunerOption())
    .addOption(
      new Option(
        '--size <size>',
        'sizes of the real model, or smaller ones (default: full on a GPU, else small)',
      ).choices([...sizes]),
    )
    .option(
      '--rounds <n>',
      'interleaved rounds of each group (more where they are quick, fewer where they take seconds)',
      parseRounds,
      5,
    )
    .option(
      '--peers [names]',
      'the same work in other engines on the same adapter, in turn: all, or some of tfjs-webgpu, jax-js, onnxruntime-node, onnxruntime-web, tinygrad, torch; those of npm are installed into bench/peers at first use',
    )
    .option(
      '--python <file>',
      'a Python that has some of torch, torchvision, onnx, tinygrad, dawn-python',
      defaultPython(),
    )
    .option('--list', 'list the cases and end')
    .option('--json <file>', 'write all results here')
    .option('--markdown <file>', 'write the tables here, as the section of this adapter; those of others stay')
    .action(async (flags: BenchFlags) => {
      if (flags.peers !== undefined) chooseEngines(flags.peers);
      if (flags.markdown !== undefined) readResults(flags.markdown);
      if (flags.list) {
        for (const { name, variants } of selectGroups(flags.size ?? 'full', flags.filter)) {
          console.log(`${name}: ${variants.join(', ')}`);
        }
        return;
      }
      // A filter that selects nothing is told before an adapter is opened.
      const possible = flags.size ? [flags.size] : sizes;
      if (
        !possible.some(
          (size) =>
            flags.filter === undefined || benchGroups(size).some((group) => matches(group, flags.filter as string)),
        )
      ) {
        selectGroups(possible[0], flags.filter);
      }
      await withDevice(flags.adapter, async (device) => void (await runBench(device, flags)), flags);
    });
}
