import { Option } from 'commander';
import { adapterChoices, parseAdapterChoice } from '../gpu/adapter.ts';
import { openDevice } from '../gpu/nodeAdapter.ts';
import { kernelFamilies, parseKernelFamily } from '../kernels/kernelChoice.ts';
import { type Precision, precisions, requirePrecision } from '../model/precision.ts';
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
    .default(undefined, 'auto')
    .argParser(parseKernelFamily);
}

/** `--precision NAME`, for commands that compute the model. */
export function precisionOption(): Option {
  return new Option('--precision <name>', 'store maps as f32, or as f16 where the adapter has 16-bit floats')
    .choices(precisions)
    .default(undefined, 'f32');
}

/** Tells a line to the user; results go to stdout, everything else to stderr. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

export interface DeviceOptions extends KernelOptions {
  /** A name of what is computed, if its programs are to be compiled at once the next time. */
  work?: string;
  /** What is computed at. */
  precision?: Precision;
}

/**
 * Opens the device, chooses its kernels, runs `body` on it, and drains and destroys it whatever happens.
 * @throws UserError before `body` where the device has not the precision
 */
export async function withDevice<T>(
  adapter: string,
  body: (device: Device) => Promise<T>,
  { work, precision = 'f32', ...kernels }: DeviceOptions = {},
): Promise<T> {
  const opened = await openDevice(parseAdapterChoice(adapter));
  const device = new Device(opened);
  device.gpu.onCompile = (count) => noteProgress(`compiling kernels, ${count} so far`);
  try {
    requirePrecision(device, precision);
    say(`Computing on ${opened.info.name}: ${opened.why}`);
    await chooseKernels(device, say, kernels);
    if (work === undefined) return await body(device);
    const list = precision === 'f32' ? work : `${work} ${precision}`;
    await compileKnown(device.gpu, list);
    const result = await body(device);
    keepProgramList(device.gpu, list, say);
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
