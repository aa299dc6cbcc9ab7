import { quantile } from '../data/statistics.ts';
import { GpuError } from '../gpu/gpuError.ts';
import type { ProgramUse } from '../gpu/programCache.ts';
import { type KernelChoice, setKernelChoice } from '../kernels/kernelChoice.ts';
import type { Device } from '../tensor/device.ts';
import { SampleRun } from './sampleRun.ts';
import { type Sample, sampleName } from './shapeClasses.ts';
import type { Trial } from './tunedChoice.ts';

/** A class may take this part of what is left, so that a slow adapter comes to more than one. */
const CLASS_SHARE = 0.4;
/** Of it, for compiling and checking: most of the time on software adapters. */
const CHECK_SHARE = 0.7;
const ROUNDS = 5;
/** A candidate is timed over as many runs as take about so long: waiting for a device costs a part of a millisecond. */
const SAMPLE_MS = 8;
const MOST_RUNS = 64;
/** Candidates that are slower than the fastest by this factor at first are not timed again. */
export const HOPELESS = 2;
/** The built-in kernel stays unless another takes less than this part of its time. */
const WORTH_IT = 0.95;

/** Of the largest sum, where results are rounded to float16: each by 2⁻¹¹ of itself. A wrong element makes more than 1e-2 of it. */
const HALF_TOLERANCE = 2e-3;

/** One way to compute a class. */
export interface Candidate<C> {
  value: C;
  name: string;
  builtIn: boolean;
  choice: (device: Device) => KernelChoice;
  /** What it must compute rightly before it is timed, and before it is trusted. */
  first: Sample[];
  all: Sample[];
  tolerance: number;
  /** What to compile beside others, where that pays. */
  programs: ProgramUse[];
}

export class OutOfTime extends Error {}

/** Compiling and checking a candidate, timing it, and checking the fastest in all its forms. */
type Step = 'check' | 'time' | 'trust';

/**
 * Time that is spent in steps which cannot be interrupted: a step is begun only if one that takes as long as the last of its kind would end in
 * time (after a long one, half as long: what compiles once is quick the next time). Of a class's time a part is left for timing what could be
 * checked until then.
 */
export class Budget {
  readonly #now: () => number;
  readonly #end: number;
  #classEnd: Record<Step, number>;
  #expected: Record<Step, number> = { check: 0, time: 0, trust: 0 };

  constructor(milliseconds: number, now: () => number) {
    this.#now = now;
    this.#end = now() + milliseconds;
    this.#classEnd = { check: this.#end, time: this.#end, trust: this.#end };
  }

  startClass(): void {
    const now = this.#now();
    const share = (this.#end - now) * CLASS_SHARE;
    this.#classEnd = { check: now + share * CHECK_SHARE, time: now + share, trust: this.#end };
  }

  /** @throws OutOfTime before a step that would pass the end */
  async step(kind: Step, body: () => Promise<void>): Promise<void> {
    const start = this.#now();
    if (start + this.#expected[kind] >= this.#classEnd[kind]) throw new OutOfTime();
    try {
      await body();
    } finally {
      this.#expected[kind] = Math.max(this.#now() - start, this.#expected[kind] / 2);
    }
  }
}

/** A device to try things on, replaced by a new one when something has broken it. */
export class Laboratory {
  readonly #open: () => Promise<Device>;
  #device: Device | null = null;

  constructor(open: () => Promise<Device>) {
    this.#open = open;
  }

  async device(): Promise<Device> {
    this.#device ??= await this.#open();
    return this.#device;
  }

  /** Runs `body` in a scope. What the device refuses is returned, and the device given up. */
  async attempt(body: (device: Device) => Promise<void>): Promise<GpuError | null> {
    const device = await this.device();
    try {
      await device.scope(() => body(device));
      return null;
    } catch (error) {
      if (!(error instanceof GpuError)) throw error;
      this.#device = null;
      // It failed already; whether it also fails to close tells nothing more.
      await device.gpu.close().catch(() => undefined);
      return error;
    }
  }

  async close(): Promise<void> {
    await this.#device?.gpu.close();
    this.#device = null;
  }
}

/** The candidates of a class on their way to a choice. */
export class Contest<C> {
  readonly #lab: Laboratory;
  readonly #budget: Budget;
  readonly #now: () => number;
  readonly #sample: Sample;
  readonly #entries = new Map<Candidate<C>, Trial>();

  constructor(lab: Laboratory, budget: Budget, now: () => number, sample: Sample) {
    this.#lab = lab;
    this.#budget = budget;
    this.#now = now;
    this.#sample = sample;
  }

  get trials(): Trial[] {
    return [...this.#entries.values()];
  }

  get #alive(): Candidate<C>[] {
    return [...this.#entries].filter(([, { dropped }]) => dropped === null).map(([candidate]) => candidate);
  }

  #drop(candidate: Candidate<C>, reason: string): void {
    const trial = this.#entries.get(candidate);
    if (trial) [trial.dropped, trial.ms] = [reason, null];
  }

  /** Milliseconds of a candidate; infinite where it was not timed. */
  ms(candidate: Candidate<C>): number {
    return this.#entries.get(candidate)?.ms ?? Number.POSITIVE_INFINITY;
  }

  /** Those still in, the fastest first. */
  ranked(): Candidate<C>[] {
    const ms = (candidate: Candidate<C>): number => this.ms(candidate);
    return this.#alive.filter((candidate) => ms(candidate) < Number.POSITIVE_INFINITY).sort((a, b) => ms(a) - ms(b));
  }

  /** Takes candidates in and times those that compute the first sample rightly, with the ones named again beside them. */
  async enter(candidates: readonly Candidate<C>[], again: readonly Candidate<C>[] = []): Promise<void> {
    for (const candidate of candidates) {
      const { name, builtIn } = candidate;
      this.#entries.set(candidate, { kernel: name, builtIn, chosen: false, ms: null, dropped: null });
    }
    const right: Candidate<C>[] = [];
    try {
      await this.#compile(candidates);
      for (const candidate of candidates) {
        if (this.#entries.get(candidate)?.dropped !== null) continue;
        await this.#budget.step('check', async () => {
          if (await this.#isRight(candidate, candidate.first)) right.push(candidate);
        });
      }
    } catch (error) {
      // Those that are known to be right may still be compared.
      if (!(error instanceof OutOfTime)) throw error;
    }
    if (right.length > 0) await this.#time([...again, ...right]);
  }

  /** On a real GPU drivers compile side by side; software adapters take turns, and SwiftShader's programs become slower by it. */
  async #compile(candidates: readonly Candidate<C>[]): Promise<void> {
    const device = await this.#lab.device();
    if (device.gpu.opened.info.kind !== 'gpu') return;
    await this.#budget.step('check', async () => {
      const verdicts = candidates.map(async (candidate) => {
        const errors = await device.gpu.prepare(candidate.programs);
        const error = errors.find((found) => found !== null);
        if (error) this.#drop(candidate, reasonOf(error));
      });
      await Promise.all(verdicts);
    });
  }

  async #isRight(candidate: Candidate<C>, samples: readonly Sample[]): Promise<boolean> {
    for (const sample of samples) {
      let error = Number.POSITIVE_INFINITY;
      const refused = await this.#lab.attempt(async (device) => {
        setKernelChoice(device, candidate.choice(device));
        error = await new SampleRun(device, sample).error();
      });
      if (refused) this.#drop(candidate, reasonOf(refused));
      else if (!(error <= Math.max(candidate.tolerance, sample.halves ? HALF_TOLERANCE : 0))) {
        this.#drop(candidate, `computes ${sampleName(sample)} wrongly: off by ${error.toExponential(1)}`);
      } else continue;
      return false;
    }
    return true;
  }

  /** Median times in interleaved rounds. A candidate that breaks the device is dropped, and the others begin again. */
  async #time(candidates: readonly Candidate<C>[]): Promise<void> {
    let field = [...candidates];
    while (field.length > 0) {
      let running: Candidate<C> | null = null;
      const refused = await this.#lab.attempt(async (device) => {
        const run = new SampleRun(device, this.#sample);
        await this.#rounds(field, device, run, (candidate) => {
          running = candidate;
        });
      });
      if (!refused) return;
      if (running === null) throw refused;
      this.#drop(running, reasonOf(refused));
      field = field.filter((candidate) => candidate !== running);
    }
  }

  async #rounds(
    field: readonly Candidate<C>[],
    device: Device,
    run: SampleRun,
    starts: (candidate: Candidate<C>) => void,
  ): Promise<void> {
    const time = async (candidate: Candidate<C>, runs: number): Promise<number> => {
      starts(candidate);
      setKernelChoice(device, candidate.choice(device));
      let took = 0;
      await this.#budget.step('time', async () => {
        const start = this.#now();
        for (let i = 0; i < runs; i++) run.run();
        await device.gpu.sync();
        took = this.#now() - start;
      });
      return took / runs;
    };
    const times = new Map<Candidate<C>, number[]>();
    const once = new Map<Candidate<C>, number>();
    try {
      for (const candidate of field) {
        await time(candidate, 1);
        once.set(candidate, await time(candidate, 1));
      }
      const fastest = Math.min(...once.values());
      const runs = Math.min(MOST_RUNS, Math.max(1, Math.round(SAMPLE_MS / Math.max(fastest, 1e-3))));
      const hopeful = field.filter((candidate) => (once.get(candidate) ?? 0) <= HOPELESS * fastest);
      for (const candidate of hopeful) times.set(candidate, []);
      for (let round = 0; round < ROUNDS; round++) {
        for (const candidate of hopeful) times.get(candidate)?.push(await time(candidate, runs));
      }
    } catch (error) {
      // What was timed so far still compares.
      if (!(error instanceof OutOfTime)) throw error;
    }
    for (const [candidate, ms] of once) {
      const trial = this.#entries.get(candidate);
      const list = (times.get(candidate) ?? []).sort((a, b) => a - b);
      // The hopeless, and those for which there was no time, have been timed once.
      if (trial) trial.ms = list.length > 0 ? quantile(list, 0.5) : ms;
    }
  }

  /**
   * The fastest that computes all of its forms rightly; the built-in one where the fastest is hardly faster. Undefined where the time is over, null
   * where all are wrong.
   */
  async winner(): Promise<Candidate<C> | null | undefined> {
    if (this.#alive.length === 0) return null;
    for (;;) {
      const [best] = this.ranked();
      if (!best) return this.#alive.length === 0 ? null : undefined;
      const own = this.#alive.find(({ builtIn }) => builtIn);
      // What was not compared with the built-in kernel is no reason to leave it.
      if (own && this.ms(own) === Number.POSITIVE_INFINITY) return undefined;
      const chosen = own && this.ms(best) > WORTH_IT * this.ms(own) ? own : best;
      let right = false;
      await this.#budget.step('trust', async () => {
        // One form tells whether the text of halves is compiled rightly; all of them would take seconds on software adapters.
        const halves = (await this.#lab.device()).hasHalves
          ? chosen.first.map((form) => ({ ...form, halves: true }))
          : [];
        right = await this.#isRight(chosen, [...chosen.all, this.#sample, ...halves]);
      });
      const trial = this.#entries.get(chosen);
      if (right && trial) {
        trial.chosen = true;
        return chosen;
      }
    }
  }
}

/** The first line of a refusal, without the flags of the program, which the candidate's name tells. */
function reasonOf({ message }: GpuError): string {
  const [line] = message.replace(/^Compiling \w+(?: \{.*?\})?: /, '').split('\n');
  return line.length > 160 ? `${line.slice(0, 159)}…` : line;
}
