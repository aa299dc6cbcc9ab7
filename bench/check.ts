import type { Random } from '../src/data/random.ts';
import type { Tensor } from '../src/tensor/tensor.ts';
import { type BenchCase, caseName, type Verdict } from './cases.ts';

/** Largest difference divided by the largest expected value; Infinity where one side is no number or has other elements. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let scale = 0;
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    scale = Math.max(scale, Math.abs(expected[i]));
    const off = Math.abs(actual[i] - expected[i]);
    if (Number.isNaN(off)) return Number.POSITIVE_INFINITY;
    worst = Math.max(worst, off);
  }
  return worst === 0 ? 0 : worst / scale;
}

/** `count` numbers from -1 to 1. */
export function noise(count: number, random: Random): Float32Array {
  return Float32Array.from({ length: count }, () => random.next() * 2 - 1);
}

/** Places whose values are computed on the CPU: the corners, where borders show, and others all over. */
export function places(size: number, count: number): number[] {
  const step = Math.max(1, Math.floor(size / count));
  const chosen = new Set<number>([0, size - 1]);
  // An odd shift from one to the next, so that all channels and columns are met.
  for (let i = 0; i < count; i++) chosen.add(Math.min(size - 1, i * step + ((i * 7919) % step)));
  return [...chosen];
}

export interface Ladder {
  group: string;
  flops?: number;
  bytes?: number;
  tolerance?: number;
  /** The rungs, the naive one first; each computes the whole result. */
  rungs: Readonly<Record<string, () => Tensor>>;
  /** One element of the result, computed on the CPU in float64. */
  expected(index: number): number;
  /** How many elements the CPU computes. */
  samples?: number;
}

/**
 * The cases of a ladder. Every rung is compared with values from the CPU at some places, and every rung but the first with
 * all of the first's result.
 */
export function ladderCases(ladder: Ladder): BenchCase[] {
  const { group, flops, bytes, tolerance = 1e-5, rungs, expected, samples = 64 } = ladder;
  const entries = Object.entries(rungs);
  const [, naive] = entries[0];
  return entries.map(([variant, compute], rung) => ({
    group,
    variant,
    name: caseName(group, variant),
    flops,
    bytes,
    run: () => void compute(),
    async check(): Promise<Verdict> {
      const got = compute();
      const values = await got.floats();
      const where = places(values.length, samples);
      const cpu = relativeError(
        where.map((index) => values[index]),
        where.map(expected),
      );
      const whole = rung === 0 ? 0 : relativeError(values, await naive().floats());
      return { error: Math.max(cpu, whole), tolerance };
    },
  }));
}
