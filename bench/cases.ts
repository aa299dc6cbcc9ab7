import type { Device } from '../src/tensor/device.ts';
import type { Comparison } from './comparison.ts';

/** How much larger than what is expected a case's result may be off, and how much it is. */
export interface Verdict {
  /** Largest difference divided by the largest expected value; 0 for an exact comparison that holds, Infinity for NaN. */
  error: number;
  tolerance: number;
}

/** One thing to measure: a rung of a ladder, a layer, a whole step. */
export interface BenchCase {
  /** What is computed, with its shape; the cases of a group compute the same. */
  group: string;
  /** Which rung of the group's ladder this is: `naive`, then better ones. */
  variant: string;
  /** `group · variant`, different for every case. */
  name: string;
  /** Floating-point operations of one run, counted by the definition: a multiply-add is two. */
  flops?: number;
  /** Bytes that one run must at least read and write. */
  bytes?: number;
  /** Compares one run with the group's naive rung or with values from the CPU. */
  check(): Promise<Verdict>;
  /** Enqueues the work once; whoever measures waits for the queue. */
  run(): void | Promise<void>;
}

/** What a group is meant to reach beside another engine, or beside another group. */
export interface Goal {
  /** In the words of the summary. */
  what: string;
  /** `webgpu`: the fastest WebGPU engine that can do the work; else an engine's name. */
  against: 'webgpu' | (string & {});
  /** The least ratio of its time to ours. */
  atLeast: number;
}

/** Rungs of one ladder: they share inputs, and are measured in turn. */
export interface BenchGroup {
  /** Title of the table it is shown in. */
  table: string;
  name: string;
  /** Rungs in order, the naive one first. Known before anything is allocated, so that cases can be listed and filtered. */
  variants: readonly string[];
  /** How often the work occurs in one pass of the model; layers are averaged by it. */
  uses?: number;
  goal?: Goal;
  /**
   * Allocates the inputs and gives the cases, one for each variant in order. Called inside a scope that outlives the
   * measuring; `close` frees what no scope owns.
   */
  open(device: Device): Promise<OpenGroup> | OpenGroup;
}

export interface OpenGroup {
  cases: BenchCase[];
  /** The last variant's work for other engines. */
  comparison?: Comparison;
  close?(): void;
}

/** `small` ends within minutes on a software adapter; `full` has the sizes of the real model. */
export const sizes = ['small', 'full'] as const;
export type Size = (typeof sizes)[number];

export function caseName(group: string, variant: string): string {
  return `${group} · ${variant}`;
}

/** Words as somebody would type them: no capitals, `x` for `×`, `->` for `→`. */
function plain(text: string): string {
  return text.toLowerCase().replaceAll('×', 'x').replaceAll('→', '->');
}

/** True if each word of `filter` occurs in the table's title or the group's name; a group's variants are measured together. */
export function matches({ table, name }: BenchGroup, filter: string): boolean {
  const text = plain(`${table} ${name}`);
  return plain(filter)
    .split(/\s+/)
    .every((word) => text.includes(word));
}
