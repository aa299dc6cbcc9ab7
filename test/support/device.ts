import { parseAdapterChoice } from '../../src/gpu/adapter.ts';
import { openDevice } from '../../src/gpu/nodeAdapter.ts';
import { Device } from '../../src/tensor/device.ts';

let shared: Promise<Device> | null = null;

/** The one device of the whole test run; `WEBGPU_ADAPTER` chooses the adapter. Never close it. */
export function testDevice(): Promise<Device> {
  shared ??= openDevice(parseAdapterChoice(process.env.WEBGPU_ADAPTER ?? 'auto')).then((opened) => new Device(opened));
  return shared;
}

/** Waits until the device, if any test has opened it, has nothing left to do: Dawn aborts a process that ends before. */
export async function settleTestDevice(): Promise<void> {
  if (shared) await (await shared).gpu.sync();
}
