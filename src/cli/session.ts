import { Option } from 'commander';
import { adapterChoices, parseAdapterChoice } from '../gpu/adapter.ts';
import { openDevice } from '../gpu/nodeAdapter.ts';
import { kernelFamilies, parseKernelFamily } from '../kernels/kernelChoice.ts';
import { Device } from '../tensor/device.ts';
import { noteProgress } from '../train/progress.ts';
import { chooseKernels, type KernelOptions } from './kernels.ts';
import { compileKnown, keepProgramList } from './programList.ts';

export { tunerOption } from './kernels.ts';

/** `--adapter NAME`, as every command that computes takes it. */
export function adapterOption(): Option {
  return new Option('--adapter <name>', `device to compute on: ${adapterChoices.join(', ')}`)
    .default('auto')
    .argParser(parseAdapterChoice);
}

/** `--kernels FAMILY`, for commands that check or time kernels. */
export function kernelsOption(): Option {
  return new Option('--kernels <family>', `compute products and convolutions by: ${kernelFamilies.join(', ')}`)
    .default('auto')
    .argParser(parseKernelFamily);
}

/** Tells a line to the user; results go to stdout, everything else to stderr. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

export interface DeviceOptions extends KernelOptions {
  /** A name of what is computed, if its programs are to be compiled at once the next time. */
  work?: string;
}

/** Opens the device, chooses its kernels, runs `body` on it, and drains and destroys it whatever happens. */
export async function withDevice<T>(
  adapter: string,
  body: (device: Device) => Promise<T>,
  { work, ...kernels }: DeviceOptions = {},
): Promise<T> {
  const opened = await openDevice(parseAdapterChoice(adapter));
  say(`Computing on ${opened.info.name}: ${opened.why}`);
  const device = new Device(opened);
  device.gpu.onCompile = (count) => noteProgress(`compiling kernels, ${count} so far`);
  try {
    await chooseKernels(device, say, kernels);
    if (work === undefined) return await body(device);
    await compileKnown(device.gpu, work);
    const result = await body(device);
    keepProgramList(device.gpu, work, say);
    return result;
  } finally {
    await device.gpu.close();
  }
}

/**
 * Watches for Ctrl-C: the first asks the operation to stop at the next safe point, a second ends the process at once.
 * Call `done` when the operation is over.
 */
export function interruptible(): { stopping: () => boolean; done: () => void } {
  let asked = false;
  const onInterrupt = (): void => {
    if (asked) process.exit(130);
    asked = true;
    say('\nStopping after this step; press Ctrl-C again to end at once.');
  };
  process.on('SIGINT', onInterrupt);
  process.on('SIGTERM', onInterrupt);
  return {
    stopping: () => asked,
    done: () => {
      process.off('SIGINT', onInterrupt);
      process.off('SIGTERM', onInterrupt);
    },
  };
}
