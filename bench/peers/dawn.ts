import { napUntil } from '../../src/gpu/nodeAdapter.ts';
import {
  loadBundledVulkanLoader,
  swiftshaderFitsPlatform,
  systemHasVulkanLoader,
  unpackSwiftshader,
} from '../../src/gpu/swiftshader.ts';
import { ADAPTER_VARIABLE, SOFTWARE_VARIABLE } from './environment.ts';

/** The process dies when Dawn's instance is collected. */
let instance: GPU | undefined;

/** Gives Node what a page has, `navigator.gpu` and the globals of WebGPU, with that one adapter; the adapter's own words. */
export async function openDawn(): Promise<string> {
  const name = process.env[ADAPTER_VARIABLE];
  if (swiftshaderFitsPlatform && !systemHasVulkanLoader()) loadBundledVulkanLoader(await unpackSwiftshader());
  const { create, globals } = await import('webgpu');
  Object.assign(globalThis, globals);
  instance = create(name ? [`adapter=${name}`] : []);
  Object.defineProperty(globalThis, 'navigator', {
    value: { gpu: instance, userAgent: 'Node', hardwareConcurrency: 1 },
    configurable: true,
    writable: true,
  });
  const adapter = await instance.requestAdapter();
  if (!adapter) throw new Error('Dawn offers no adapter');
  return `${adapter.info.device || name} (${adapter.info.description})`;
}

/** Awaits as this program's own device does, so that Dawn's polling takes no core from a software adapter. */
export async function patiently<T>(promise: Promise<T>): Promise<T> {
  let done = false;
  if (process.env[SOFTWARE_VARIABLE] === '1') napUntil(() => done);
  try {
    return await promise;
  } finally {
    done = true;
  }
}
