import { Bench } from 'tinybench';
import type { Device } from '../src/tensor/device.ts';
import { calibrate, type Yardstick } from '../src/verify/calibration.ts';
import type { BenchCase, BenchGroup, Goal, OpenGroup, Verdict } from './cases.ts';
import { type Contender, median, medianRatio, type PeerOutcome, prepareContenders } from './comparison.ts';
import type { Peer } from './peerEngines.ts';

/** What was found out about one case. A case whose result is wrong is not timed. */
export interface CaseRecord {
  name: string;
  table: string;
  group: string;
  variant: string;
  uses?: number;
  flops?: number;
  bytes?: number;
  check: Verdict & { right: boolean };
  rounds: number;
  /** Median of the rounds: milliseconds from enqueueing to an empty queue. */
  ms: number | null;
  gflops: number | null;
  gigabytesPerSecond: number | null;
  /** How many times as fast as the group's first rung: median over rounds of the ratio within a round. */
  speedup: number | null;
  /** Of the multiply-add peak (cases with `flops`) or else of the copy peak (with `bytes`): median over rounds. */
  percentOfPeak: number | null;
  /** Medians of other engines on the same work, in milliseconds by name, measured in the same rounds. */
  peers?: Record<string, number>;
  /** Their times by ours, by name: medians over rounds of the ratio within a round; above 1 where ours is faster. */
  ratios?: Record<string, number>;
  /** That of the fastest WebGPU engine that does the same work; null where there is none. */
  ratio?: number | null;
  /** Milliseconds of each round, `ours` and theirs by name, from which the ratios come. */
  samples?: Record<string, number[]>;
  /** How each of them did, those without a time too. */
  outcomes?: PeerOutcome[];
  goal?: Goal;
}

/** Peaks of the adapter: medians over all rounds of all groups; null if nothing needed them. */
export interface Peaks {
  gflops: number | null;
  gigabytesPerSecond: number | null;
}

export interface MeasureOptions {
  /** Interleaved rounds of a group: more while they take less than `milliseconds`, fewer if they take `longest`. */
  rounds: number;
  milliseconds: number;
  /** Naive rungs of large shapes take seconds each on a software adapter. */
  longest: number;
  /** Other engines, measured in turn with the cases that have work for them; those rounds are at least {@link PEER_ROUNDS}. */
  peers?: readonly Peer[];
  /** In which groups they take part; in all by default. */
  peersIn?(group: BenchGroup): boolean;
  restartPeer?(peer: Peer): Promise<void>;
  /** True once the user wants to stop: what has been measured so far is returned. */
  stopping?(): boolean;
  /** Called before each case's check and each group's rounds. */
  progress?(done: number, total: number, what: string): void;
}

export interface Measured {
  records: CaseRecord[];
  peaks: Peaks;
  stopped: boolean;
}

const MAX_ROUNDS = 50;
/** Rounds in which other engines take part: at least, unless they would take longer than this in all (SwiftShader). */
const PEER_ROUNDS = 3;
const PEER_BUDGET_MS = 200_000;
/** Engines that take longer than this together are warm from being checked. */
const LONG_MS = 300;

interface Task {
  name: string;
  /** Does the work once; a number is the milliseconds that it took, by a clock of its own. */
  run(): Promise<number | undefined>;
}

/**
 * Times of each task in each round, in milliseconds: [task][round]. A round runs every task once, so that a change of the
 * host's speed meets all of them. The first round warms up and is not counted, unless all are `warm`.
 */
async function timeInRounds(
  tasks: readonly Task[],
  { rounds, milliseconds, longest, stopping }: MeasureOptions,
  warm: boolean,
): Promise<number[][]> {
  // One iteration is one round; the warm-up round, which is the first, is dropped here and not by tinybench, which would
  // warm each task up just before it.
  const bench = new Bench({ time: 0, iterations: 1, warmup: false, throws: true, retainSamples: true });
  for (const { name, run } of tasks) {
    const timed = async () => {
      const overriddenDuration = await run();
      return overriddenDuration === undefined ? undefined : { overriddenDuration };
    };
    bench.add(name, timed, { async: true });
  }
  const times: number[][] = tasks.map(() => []);
  let started = performance.now();
  for (let round = warm ? 1 : 0; round <= MAX_ROUNDS && !stopping?.(); round++) {
    // A task that has completed runs again only after a reset.
    bench.reset();
    await bench.run();
    if (round === 0) {
      started = performance.now();
      continue;
    }
    bench.tasks.forEach(({ result }, task) => {
      const [sample] = ('latency' in result && result.latency.samples) || [];
      if (sample === undefined) throw new Error(`${tasks[task].name} gave no sample.`);
      times[task].push(sample);
    });
    const elapsed = performance.now() - started;
    if (elapsed >= (round >= rounds ? milliseconds : longest)) break;
  }
  return times;
}

interface Timing {
  /** By case name, for the cases that are right. */
  cases: Map<string, number[]>;
  /** By engine. */
  peers: Map<string, number[]>;
  /** Operations or bytes per second, in units of 10⁹, round by round. */
  peaks: Record<'flops' | 'bytes', number[]>;
}

async function timeGroup(
  device: Device,
  cases: readonly BenchCase[],
  contenders: readonly Contender[],
  yardsticks: Record<'flops' | 'bytes', Yardstick>,
  given: MeasureOptions,
): Promise<Timing> {
  const whole = (run: () => void | Promise<void>) => async () => {
    await device.scope(async () => run());
    await device.gpu.sync();
    return undefined;
  };
  const options = { ...given };
  const peerMs = contenders.reduce((sum, { firstMs }) => sum + firstMs, 0);
  if (contenders.length > 0) {
    options.rounds = Math.max(1, Math.min(PEER_ROUNDS, Math.floor(PEER_BUDGET_MS / peerMs)));
    // So many, however long they take.
    options.longest = Number.POSITIVE_INFINITY;
  }
  const warm = peerMs > LONG_MS;
  if (warm) for (const one of cases) await whole(() => one.run())();
  const kinds = (['flops', 'bytes'] as const).filter((kind) => cases.some((one) => peakOf(one) === kind));
  const tasks = [
    ...kinds.map((kind) => ({ name: yardsticks[kind].name, run: whole(yardsticks[kind].run) })),
    ...cases.map((one) => ({ name: one.name, run: whole(() => one.run()) })),
    ...contenders.map(({ outcome, run }) => ({ name: outcome.engine, run })),
  ];
  const times = await timeInRounds(tasks, options, warm);
  const peaks: Timing['peaks'] = { flops: [], bytes: [] };
  kinds.forEach((kind, i) => {
    peaks[kind] = times[i].map((ms) => yardsticks[kind].amount / ms / 1e6);
  });
  const behind = kinds.length + cases.length;
  return {
    cases: new Map(cases.map(({ name }, i) => [name, times[kinds.length + i]])),
    peers: new Map(contenders.map(({ outcome }, i) => [outcome.engine, times[behind + i]])),
    peaks,
  };
}

/** What a case is compared with; arithmetic where both are known. */
function peakOf({ flops, bytes }: Pick<BenchCase, 'flops' | 'bytes'>): 'flops' | 'bytes' | null {
  if (flops !== undefined) return 'flops';
  return bytes === undefined ? null : 'bytes';
}

/** What a record tells of other engines: `ours` are the times of the rounds that theirs belong to. */
export function comparisonOf(
  ours: readonly number[],
  theirs: ReadonlyMap<string, readonly number[]>,
  outcomes: readonly PeerOutcome[],
): Pick<CaseRecord, 'peers' | 'ratios' | 'ratio' | 'samples' | 'outcomes'> {
  const failed = new Set(outcomes.flatMap(({ engine, failure }) => (failure === undefined ? [] : [engine])));
  const timed = [...theirs].filter(
    ([engine, times]) => !failed.has(engine) && ours.length > 0 && times.length === ours.length,
  );
  const peers = Object.fromEntries(timed.map(([engine, times]) => [engine, median(times)]));
  const same = outcomes.filter(({ engine, computesOn, near }) => engine in peers && computesOn === 'webgpu' && !near);
  const fastest = same.map(({ engine }) => engine).sort((a, b) => peers[a] - peers[b])[0];
  const ratios = Object.fromEntries(timed.map(([engine, times]) => [engine, medianRatio(ours, times)]));
  const samples = Object.fromEntries([['ours', ours], ...timed].map(([name, times]) => [name, [...times]]));
  return { peers, ratios, ratio: fastest === undefined ? null : ratios[fastest], samples, outcomes: [...outcomes] };
}

function recordOf(
  { name, group, variant, flops, bytes }: BenchCase,
  { table, uses, goal, variants }: BenchGroup,
  verdict: Verdict,
  first: readonly number[] | undefined,
  timing: Timing,
  outcomes: readonly PeerOutcome[],
): CaseRecord {
  const times = timing.cases.get(name) ?? [];
  const timed = times.length > 0;
  const ms = timed ? median(times) : null;
  const perSecond = (amount: number | undefined): number | null =>
    ms === null || amount === undefined ? null : amount / ms / 1e6;
  const kind = peakOf({ flops, bytes });
  const amount = flops ?? bytes ?? 0;
  return {
    name,
    table,
    group,
    variant,
    uses,
    flops,
    bytes,
    check: { ...verdict, right: isRight(verdict) },
    rounds: times.length,
    ms,
    gflops: perSecond(flops),
    gigabytesPerSecond: perSecond(bytes),
    speedup: timed && first?.length === times.length ? median(times.map((time, round) => first[round] / time)) : null,
    percentOfPeak:
      timed && kind
        ? median(times.map((time, round) => (100 * amount) / time / 1e6 / timing.peaks[kind][round]))
        : null,
    // Others do what the group's last variant does.
    ...(variant === variants.at(-1) && { goal }),
    ...(variant === variants.at(-1) && outcomes.length > 0 && comparisonOf(times, timing.peers, outcomes)),
  };
}

/** NaN is never right. */
function isRight({ error, tolerance }: Verdict): boolean {
  return error <= tolerance;
}

async function prepareOthers(
  group: BenchGroup,
  comparison: OpenGroup['comparison'],
  { peers = [], peersIn, stopping, restartPeer }: MeasureOptions,
  progress: (what: string) => void,
): ReturnType<typeof prepareContenders> {
  if (!comparison || peersIn?.(group) === false) return { contenders: [], outcomes: [] };
  return prepareContenders(comparison, peers, {
    stopping,
    restart: restartPeer,
    progress: (engine) => progress(`${engine}: checking ${group.name}`),
  });
}

/** Checks every case of the groups, then times those that are right, group by group. */
export async function measure(
  device: Device,
  groups: readonly BenchGroup[],
  options: MeasureOptions,
): Promise<Measured> {
  const { stopping = () => false, progress } = options;
  const total = groups.reduce((sum, { variants }) => sum + variants.length + 1, 0);
  let done = 0;
  const records: CaseRecord[] = [];
  const seen: Timing['peaks'] = { flops: [], bytes: [] };
  await device.scope(async () => {
    const yardsticks = await calibrate(device);
    for (const group of groups) {
      if (stopping()) return;
      await device.scope(async () => {
        const { cases, close, comparison } = await group.open(device);
        let contenders: readonly Contender[] = [];
        try {
          const verdicts = new Map<string, Verdict>();
          for (const one of cases) {
            if (stopping()) return;
            progress?.(done++, total, `checking ${one.name}`);
            verdicts.set(one.name, await device.scope(() => one.check()));
          }
          const right = cases.filter(({ name }) => isRight(verdicts.get(name) as Verdict));
          const others = await prepareOthers(group, comparison, options, (what) => progress?.(done, total, what));
          contenders = others.contenders;
          progress?.(done++, total, `timing ${group.name}`);
          const timing = await timeGroup(device, right, contenders, yardsticks, options);
          // A group that was interrupted has too few rounds to be told.
          if (stopping()) return;
          seen.flops.push(...timing.peaks.flops);
          seen.bytes.push(...timing.peaks.bytes);
          const first = timing.cases.get(cases[0].name);
          for (const one of cases) {
            records.push(recordOf(one, group, verdicts.get(one.name) as Verdict, first, timing, others.outcomes));
          }
        } finally {
          // Where a process has ended, the next work finds out and starts it again.
          for (const { release } of contenders) await release().catch(() => undefined);
          close?.();
        }
      });
      // The next group's buffers have other sizes.
      await device.gpu.trim();
    }
  });
  const middle = (values: readonly number[]): number | null => (values.length > 0 ? median(values) : null);
  return {
    records,
    peaks: { gflops: middle(seen.flops), gigabytesPerSecond: middle(seen.bytes) },
    stopped: stopping(),
  };
}
