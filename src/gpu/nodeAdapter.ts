/** Opens a WebGPU device in Node (npm `webgpu`, which is Dawn), behind the interface of `adapter.ts`. */
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
import {
  loadBundledVulkanLoader,
  showSwiftshader,
  swiftshaderFitsPlatform,
  systemHasVulkanLoader,
  unpackSwiftshader,
} from './swiftshader.ts';

/** Dawn implements 16-bit floats on NVIDIA under Linux, but lists them only when told to. */
const toggles = 'enable-dawn-features=vulkan_enable_f16_on_nvidia';

/** No adapter has this name; Dawn answers it with the list of all that there are. */
const impossibleName = 'adapter=no adapter has this name';

/** Dawn's instances, one per adapter: the process dies when one of them is collected while something of it is in use. */
const instances: GPU[] = [];

interface Source {
  info: FoundAdapter;
  readonly gpu: GPU;
}

type Create = (options: string[]) => GPU;

async function loadDawn(): Promise<Create> {
  try {
    const { create, globals } = await import('webgpu');
    Object.assign(globalThis, globals);
    return create;
  } catch (error) {
    throw new UserError(
      `WebGPU cannot be loaded on ${process.platform} ${process.arch} (${messageOf(error)}): ` +
        'expected Linux (glibc), macOS or Windows and all packages of "npm ci".',
    );
  }
}

async function adapterNames(create: Create): Promise<string[]> {
  try {
    await create([impossibleName]).requestAdapter();
  } catch (error) {
    const names = [...messageOf(error).matchAll(/name: '(.*)'/g)].map((match) => match[1]);
    return [...new Set(names)];
  }
  return [];
}

/** Looks at each adapter once, through an instance of Dawn that offers no other. */
async function findSources(create: Create, known: readonly Source[]): Promise<Source[]> {
  const sources: Source[] = [];
  for (const name of await adapterNames(create)) {
    const before = known.find(({ info }) => info.name === name);
    if (before) {
      sources.push(before);
      continue;
    }
    const gpu = create([toggles, `adapter=${name}`]);
    instances.push(gpu);
    const adapter = await gpu.requestAdapter();
    if (!adapter) continue;
    sources.push({ gpu, info: { ...describeAdapter(adapter.info, name), driver: adapter.info.description } });
  }
  return sources;
}

async function addSwiftshader(create: Create, known: readonly Source[]): Promise<Source[]> {
  const folder = await unpackSwiftshader();
  for (const only of [false, true]) {
    showSwiftshader(folder, only);
    const sources = await findSources(create, known);
    if (sources.some(({ info }) => info.kind === 'swiftshader')) {
      // Where the system's drivers had to be hidden, what they showed before still works through its own instance.
      return [...sources, ...known.filter((source) => !sources.includes(source))];
    }
  }
  return [...known];
}

async function openBest(sources: readonly Source[], choice: AdapterChoice): Promise<OpenedDevice | undefined> {
  for (const source of candidates(sources, choice)) {
    try {
      const found = sources.map(({ info }) => info);
      const why = explainChoice(choice, source.info, found);
      const whileWaiting = source.info.kind === 'gpu' ? undefined : napUntil;
      const freshAdapter = async (): Promise<GPUAdapter> => {
        const adapter = await source.gpu.requestAdapter();
        if (!adapter) throw new Error('Dawn no longer offers it');
        return adapter;
      };
      return await openOn(freshAdapter, { info: source.info, found, why, whileWaiting });
    } catch (error) {
      source.info = { ...source.info, usable: false, reason: `it gives no device: ${messageOf(error)}` };
    }
  }
  return undefined;
}

const nap = new Int32Array(new SharedArrayBuffer(4));

/** Naps take this share of the time waited so far, so that the end is noticed about as much too late; and at most so many milliseconds. */
const NAP_SHARE = 0.05;
const LONGEST_NAP = 1;

/**
 * Dawn for Node asks its device again in every turn of the event loop while something is awaited, which takes a whole core
 * from a software adapter that computes on the same cores. A nap in each turn gives it back.
 */
export function napUntil(isDone: () => boolean, since = performance.now()): void {
  setImmediate(() => {
    if (isDone()) return;
    Atomics.wait(nap, 0, 0, Math.min((performance.now() - since) * NAP_SHARE, LONGEST_NAP));
    napUntil(isDone, since);
  });
}

function refusal(choice: AdapterChoice, found: readonly FoundAdapter[]): UserError {
  const install =
    process.platform === 'linux'
      ? 'install the Vulkan driver of your GPU, or a software one (Debian and Ubuntu: mesa-vulkan-drivers, Mesa 25 or later)'
      : 'update the driver of your GPU (there is no bundled software adapter for this platform)';
  const all = listFound(found);
  if (choice === 'auto') return new UserError(`No usable WebGPU adapter (${all}): ${install}.`);
  if (choice === 'gpu')
    return new UserError(`No real GPU is usable (${all}): ${install}, or choose another with --adapter.`);
  if (choice === 'lavapipe')
    return new UserError(
      `No usable lavapipe (${all}): expected Mesa 25 or later (Debian and Ubuntu: mesa-vulkan-drivers), on Linux.`,
    );
  return new UserError(
    swiftshaderFitsPlatform
      ? `SwiftShader is not usable (${all}): expected the bundled one to load; is the unpacked copy in the cache folder intact?`
      : `There is no SwiftShader for ${process.platform} ${process.arch} (${all}): it is bundled for Linux on x64 only.`,
  );
}

/**
 * Opens the adapter that `choice` names. `auto` takes a real GPU, else a software adapter of the system that works (lavapipe
 * of Mesa 25 or later), else the bundled SwiftShader, which is unpacked at its first use. Tests open
 * `parseAdapterChoice(process.env.WEBGPU_ADAPTER ?? 'auto')`.
 *
 * Node does not end while Dawn lives: a program calls `process.exit` when it is done.
 * @param listAll shows the bundled SwiftShader among `found` even where it is not needed.
 * @throws UserError, one sentence, when no adapter satisfies the choice.
 */
export async function openDevice(choice: AdapterChoice = 'auto', listAll = false): Promise<OpenedDevice> {
  const create = await loadDawn();
  // Before Dawn's first look: it complains on standard error of each loader that it misses.
  if (swiftshaderFitsPlatform && !systemHasVulkanLoader()) loadBundledVulkanLoader(await unpackSwiftshader());
  let sources = await findSources(create, []);
  const needsBundled = candidates(sources, choice).length === 0 && (choice === 'auto' || choice === 'swiftshader');
  const hasOwn = sources.some(({ info }) => info.kind === 'swiftshader');
  if (swiftshaderFitsPlatform && !hasOwn && (listAll || needsBundled)) sources = await addSwiftshader(create, sources);
  let opened = await openBest(sources, choice);
  if (
    !opened &&
    choice === 'auto' &&
    swiftshaderFitsPlatform &&
    !sources.some(({ info }) => info.kind === 'swiftshader')
  ) {
    // What looked usable gave no device: the bundled adapter is left.
    sources = await addSwiftshader(create, sources);
    opened = await openBest(sources, choice);
  }
  if (!opened)
    throw refusal(
      choice,
      sources.map(({ info }) => info),
    );
  return opened;
}
