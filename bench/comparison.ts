import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { messageOf } from '../src/gpu/adapter.ts';
import type { Verdict } from './cases.ts';
import type { Peer } from './peerEngines.ts';
import type { PeerProcess } from './peerProcess.ts';
import type { Stored, Work } from './peers/work.ts';

/** An array with its shape, row-major. */
export interface Values {
  shape: readonly number[];
  data: Float32Array | Int32Array;
}

/** The same work for other engines. */
export interface Comparison {
  /** What they are asked for. @throws Error with the reason where it cannot be had */
  work(): Work | Promise<Work>;
  /** What they are given: the same values that this program computes on. */
  inputs: Readonly<Record<string, Values>>;
  /** Compares an engine's results with values from the CPU, or with this program's. */
  check(results: Readonly<Record<string, Values>>, engine: string): Verdict;
  /** Engines that do something near to it instead, and what; they are shown, and count for no ratio. */
  near?: Readonly<Record<string, string>>;
  /** Engines of which nothing is asked, since they have no such operator; all others are tried. */
  without?: readonly string[];
}

/** How an engine did on a piece of work. */
export interface PeerOutcome {
  engine: string;
  computesOn: 'webgpu' | 'cpu';
  /** What it did instead, where it has nothing that is the same. */
  near?: string;
  check?: Verdict & { right: boolean };
  /** Why there is no time. */
  failure?: string;
}

/** An engine that is ready to run the work, its result right. */
export interface Contender {
  outcome: PeerOutcome;
  /** Milliseconds; 0 once it has failed, which its outcome then tells. */
  run(): Promise<number>;
  release(): Promise<void>;
  /** Milliseconds of a run when it was prepared. */
  firstMs: number;
}

function write(folder: string, name: string, { shape, data }: Values): Stored {
  const file = join(folder, `${name}.bin`);
  writeFileSync(file, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return { file, shape: [...shape], dtype: data instanceof Int32Array ? 'int32' : 'float32' };
}

function read({ file, shape, dtype }: Stored): Values {
  const bytes = new Uint8Array(readFileSync(file)).buffer;
  return { shape, data: dtype === 'int32' ? new Int32Array(bytes) : new Float32Array(bytes) };
}

export interface PrepareOptions {
  /** True once the user wants to stop. */
  stopping?(): boolean;
  progress?(engine: string): void;
  /** Starts an engine again whose process ended. */
  restart?(peer: Peer): Promise<void>;
}

/** An engine that fails in the middle of the rounds ends its own part alone. */
async function runOrFail(process: PeerProcess, outcome: PeerOutcome): Promise<number> {
  if (outcome.failure !== undefined) return 0;
  try {
    return await process.run();
  } catch (error) {
    outcome.failure = messageOf(error);
    return 0;
  }
}

/** Lets each engine do the work once and checks what it gives. Only those whose result is right are timed. */
export async function prepareContenders(
  comparison: Comparison,
  peers: readonly Peer[],
  { stopping, progress, restart }: PrepareOptions = {},
): Promise<{ contenders: Contender[]; outcomes: PeerOutcome[] }> {
  const contenders: Contender[] = [];
  const outcomes: PeerOutcome[] = [];
  const asked = peers.filter(({ engine, process }) => process && !comparison.without?.includes(engine.name));
  if (asked.length === 0) return { contenders, outcomes };
  const folder = mkdtempSync(join(tmpdir(), 'bench-peers-'));
  try {
    const work = await Promise.resolve()
      .then(() => comparison.work())
      .catch((error: unknown) => messageOf(error));
    const inputs = Object.fromEntries(
      Object.entries(comparison.inputs).map(([name, values]) => [name, write(folder, name, values)]),
    );
    for (const peer of asked) {
      if (stopping?.()) break;
      const { name, computesOn } = peer.engine;
      const outcome: PeerOutcome = { engine: name, computesOn, near: comparison.near?.[name] };
      outcomes.push(outcome);
      if (typeof work === 'string') {
        outcome.failure = work;
        continue;
      }
      progress?.(name);
      if (!peer.process?.alive) await restart?.(peer);
      const { process } = peer;
      if (!process?.alive) {
        outcome.failure = peer.leftOut ?? 'its process ended';
        continue;
      }
      try {
        const own = join(folder, name);
        mkdirSync(own);
        const { results, ms } = await process.prepare(work, inputs, own);
        const found = Object.fromEntries(Object.entries(results).map(([key, stored]) => [key, read(stored)]));
        const verdict = comparison.check(found, name);
        outcome.check = { ...verdict, right: verdict.error <= verdict.tolerance };
        if (outcome.check.right) {
          contenders.push({
            outcome,
            run: () => runOrFail(process, outcome),
            release: () => process.release(),
            firstMs: ms,
          });
        } else {
          outcome.failure = `its result is wrong by ${verdict.error.toExponential(1)}`;
          await process.release();
        }
      } catch (error) {
        outcome.failure = messageOf(error);
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return { contenders, outcomes };
}

/** Of pairs that were measured next to each other: the median of theirs by ours, above 1 where ours is faster. */
export function medianRatio(ours: readonly number[], theirs: readonly number[]): number {
  if (ours.length !== theirs.length || ours.length === 0)
    throw new Error('Ratios need as many times of one as of the other.');
  return median(theirs.map((ms, round) => ms / ours[round]));
}

/** The middle value; the mean of the two middle ones of an even number. NaN of nothing. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
