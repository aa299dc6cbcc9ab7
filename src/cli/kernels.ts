import { Option } from 'commander';
import { messageOf } from '../gpu/adapter.ts';
import { GpuError } from '../gpu/gpuError.ts';
import type { KernelFamily } from '../kernels/kernelChoice.ts';
import { Device } from '../tensor/device.ts';
import { startProgress } from '../train/progress.ts';
import { cachedKernels, keepTuned } from '../tuner/cache.ts';
import { convolutionClasses, productClasses } from '../tuner/shapeClasses.ts';
import {
  adapterKey,
  choicesAreLegal,
  differingPart,
  type KernelRecord,
  setKernelFamily,
  setTunedKernels,
  type TunedKernels,
} from '../tuner/tunedChoice.ts';
import { type TuneOptions, tuneKernels } from '../tuner/tuner.ts';

/** `off` computes by the built-in table on every adapter, as `--no-tuner` does. */
export const TUNER_VARIABLE = 'WEBGPU_TUNER';

/** `--no-tuner`, as every command that computes takes it. */
export function tunerOption(): Option {
  return new Option('--no-tuner', `take the built-in kernels: measure none (or set ${TUNER_VARIABLE}=off)`);
}

/** What chooses the kernels of a device. */
export interface KernelOptions {
  /** A family that was asked for; by default the one of the run to go on with, else `auto`. */
  kernels?: KernelFamily;
  /** False takes the built-in table. */
  tuner?: boolean;
  /** What a run to go on with was computed on and by: on the same adapter it stays. */
  recorded?: { adapter: string; kernels: KernelRecord };
}

/** The adapters of the built-in table: what was measured there was measured better than seconds can. */
export function hasTable({ gpu }: Device): boolean {
  const { kind } = gpu.opened.info;
  return kind === 'lavapipe' || kind === 'swiftshader';
}

/** Measures on devices of their own, with progress, and tells how long it took and what was dropped. */
export async function measureKernels(
  device: Device,
  say: (line: string) => void,
  options: TuneOptions = {},
): Promise<TunedKernels> {
  const { name } = device.gpu.opened.info;
  const open = async (): Promise<Device> => {
    try {
      return new Device(await device.gpu.opened.reopen());
    } catch (error) {
      throw new GpuError('lost', `${name} gives no other device: ${messageOf(error)}`);
    }
  };
  const bar = startProgress('Tuning kernels', productClasses.length + convolutionClasses.length);
  let tuned: TunedKernels;
  try {
    tuned = await tuneKernels(open, { ...options, progress: (done, what) => bar.update(done, what) });
  } finally {
    bar.stop();
  }
  say(`Kernels tuned for ${name} in ${tuned.seconds.toFixed(1)} s; npm run tuner shows them.`);
  for (const line of droppedKernels(tuned)) say(line);
  return tuned;
}

/** A line for each kernel that was not trusted, with its first reason. */
export function droppedKernels({ key, classes }: TunedKernels): string[] {
  const reasons = new Map<string, string>();
  for (const { trials } of classes) {
    for (const { kernel, dropped } of trials) {
      if (dropped !== null && !reasons.has(kernel)) reasons.set(kernel, dropped);
    }
  }
  return [...reasons].map(([kernel, reason]) => `Dropped on ${key.name}: ${kernel}: ${reason}`);
}

/**
 * Sets the kernels of a device, once for the whole process: a family that is asked for; the built-in table on the adapters that it was made for, and
 * where the tuner is off; else what was measured, now if not before.
 */
export async function chooseKernels(
  device: Device,
  say: (line: string) => void,
  { kernels, tuner = true, recorded }: KernelOptions = {},
  measure = measureKernels,
): Promise<void> {
  const key = adapterKey(device.gpu.opened);
  const before = recorded?.adapter === key.name ? recorded.kernels : undefined;
  const family = kernels ?? (before?.origin === 'family' ? before.family : 'auto');
  setKernelFamily(device, family);
  if (family !== 'auto' || !tuner || process.env[TUNER_VARIABLE] === 'off') return;
  if (before?.origin === 'table') return;
  if (recorded?.kernels.origin === 'measured') {
    const { kernels: kept } = recorded;
    if (differingPart(kept.key, key) === undefined && choicesAreLegal(device, kept)) {
      setTunedKernels(device, kept);
      return;
    }
  }
  if (hasTable(device)) return;
  const cached = cachedKernels(device, key);
  if (typeof cached === 'string') say(cached);
  if (cached !== null && typeof cached !== 'string') {
    setTunedKernels(device, cached);
    return;
  }
  try {
    setTunedKernels(device, keepOrTell(await measure(device, say), say));
  } catch (error) {
    if (!(error instanceof GpuError)) throw error;
    say(`The kernels could not be measured, the built-in table computes: ${error.message}`);
  }
}

/** Keeps what was measured. A folder that cannot be written costs the next start the same time, nothing more. */
function keepOrTell(tuned: TunedKernels, say: (line: string) => void): TunedKernels {
  try {
    return keepTuned(tuned);
  } catch (error) {
    say(`The measured kernels cannot be kept (${messageOf(error)}); the next start measures anew.`);
    return tuned;
  }
}
