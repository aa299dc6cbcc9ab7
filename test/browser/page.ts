/** What the test's page runs: the engine's browser entry, bundled by the test. */
import { openDevice } from '../../src/gpu/browserAdapter.ts';
import { GpuError } from '../../src/gpu/gpu.ts';
import { defineProgram, perElement } from '../../src/gpu/program.ts';
import { Device } from '../../src/tensor/device.ts';
import { runScenario } from './scenario.ts';

async function run() {
  const opened = await openDevice();
  const device = new Device(opened);
  try {
    const { info, why, found, subgroupMinSize, subgroupMaxSize } = opened;
    const limit = device.gpu.limits.maxStorageBufferBindingSize;
    const offered = opened.adapter.limits.maxStorageBufferBindingSize;
    return { info, why, found, subgroupMinSize, subgroupMaxSize, limit, offered, scenario: await runScenario(device) };
  } finally {
    await device.gpu.close();
  }
}

/** What `attempt` rejects with on a device of its own: the kind of a GpuError, and the message. */
async function failure(attempt: (device: Device) => Promise<unknown>): Promise<{ kind: string; message: string }> {
  const device = new Device(await openDevice());
  try {
    await attempt(device);
    return { kind: 'none', message: 'nothing was thrown' };
  } catch (error) {
    return { kind: error instanceof GpuError ? error.kind : 'other', message: (error as Error).message };
  } finally {
    await device.gpu.close();
  }
}

const broken = defineProgram({
  name: 'testBroken',
  uniforms: { count: 'u32' },
  bindings: { y: 'write' },
  code: () => perElement('y[i] = nothingOfThatName;'),
});

/** Errors that must reach the caller instead of wrong numbers. */
const failures = {
  tooLarge: () => failure(async (device) => device.zeros([device.gpu.limits.maxBufferSize])),
  doesNotCompile: () =>
    failure((device) => {
      const y = device.zeros([2]);
      device.gpu.dispatch(broken, { buffers: { y }, uniforms: { count: 2 }, workgroups: 1 });
      return y.floats();
    }),
  lost: () =>
    failure(async (device) => {
      const x = device.full([4], 1);
      await x.floats();
      device.gpu.device.destroy();
      await device.gpu.device.lost;
      await x.floats();
    }),
};

const engine = { run, failures };
export type Engine = typeof engine;
Object.assign(globalThis, { engine });
