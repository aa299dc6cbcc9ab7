import { parseAdapterChoice } from '../../src/gpu/adapter.ts';
import { openDevice } from '../../src/gpu/nodeAdapter.ts';
import { familyChoice, parseKernelFamily, setKernelChoice } from '../../src/kernels/kernelChoice.ts';
import { Device } from '../../src/tensor/device.ts';

let shared: Promise<Device> | null = null;

async function open(): Promise<Device> {
  const device = new Device(await openDevice(parseAdapterChoice(process.env.WEBGPU_ADAPTER ?? 'auto')));
  setKernelChoice(device, familyChoice(device, parseKernelFamily(process.env.WEBGPU_KERNELS ?? 'auto')));
  return device;
}

/** The one device of the whole test run; `WEBGPU_ADAPTER` and `WEBGPU_KERNELS` choose the adapter and the kernels. Never close it. */
export function testDevice(): Promise<Device> {
  shared ??= open();
  return shared;
}

/** Waits until the device, if any test has opened it, has nothing left to do: Dawn aborts a process that ends before. */
export async function settleTestDevice(): Promise<void> {
  if (shared) await (await shared).gpu.sync();
}
