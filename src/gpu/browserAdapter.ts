/** Opens a WebGPU device in a browser, behind the interface of `adapter.ts`. Imports nothing of Node. */
import { UserError } from '../cli/errors.ts';
import {
  type AdapterChoice,
  candidates,
  describeAdapter,
  explainChoice,
  type FoundAdapter,
  listFound,
  messageOf,
  type OpenedDevice,
  openOn,
} from './adapter.ts';

interface Source {
  info: FoundAdapter;
  readonly options: GPURequestAdapterOptions;
}

/**
 * Opens the adapter that `choice` names, by default the best one. A browser shows at most two: the one it prefers, and its
 * own software adapter (SwiftShader in Chromium) when asked for the fallback.
 * @throws UserError, one sentence, when the page has no WebGPU or no adapter satisfies the choice.
 */
export async function openDevice(choice: AdapterChoice = 'auto'): Promise<OpenedDevice> {
  const gpu: GPU | undefined = globalThis.navigator?.gpu;
  if (!gpu)
    throw new UserError(
      'This page has no WebGPU: open it over https or from localhost in a recent Chrome, Edge, Safari or Firefox.',
    );
  const sources: Source[] = [];
  for (const options of [{ powerPreference: 'high-performance' }, { forceFallbackAdapter: true }] as const) {
    const adapter = await gpu.requestAdapter(options);
    if (!adapter) continue;
    const info = describeAdapter(adapter.info);
    const known = sources.some((other) => JSON.stringify(other.info) === JSON.stringify(info));
    if (!known) sources.push({ info, options });
  }
  for (const source of candidates(sources, choice)) {
    try {
      const found = sources.map(({ info }) => info);
      const why = explainChoice(choice, source.info, found);
      const freshAdapter = async (): Promise<GPUAdapter> => {
        const adapter = await gpu.requestAdapter(source.options);
        if (!adapter) throw new Error('the browser no longer offers it');
        return adapter;
      };
      return await openOn(freshAdapter, { info: source.info, found, why });
    } catch (error) {
      source.info = { ...source.info, usable: false, reason: `it gives no device: ${messageOf(error)}` };
    }
  }
  const found = sources.map(({ info }) => info);
  throw new UserError(
    choice === 'auto'
      ? `The browser gives no usable WebGPU adapter (${listFound(found)}): enable hardware acceleration or update the GPU driver.`
      : `The browser gives no adapter of the kind "${choice}" (${listFound(found)}).`,
  );
}
