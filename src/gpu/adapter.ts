/**
 * What Node and the browser share in opening a WebGPU device: the choice of adapter, what is known of each adapter found,
 * and the request of a device with everything the adapter offers. Nothing here imports a platform's own modules.
 */
import { UserError } from '../cli/errors.ts';

/** The values of `--adapter` (and, by the tests' own convention, of the variable `WEBGPU_ADAPTER`). */
export const adapterChoices = ['auto', 'gpu', 'lavapipe', 'swiftshader'] as const;
export type AdapterChoice = (typeof adapterChoices)[number];

/** `cpu` is any other software adapter (for instance Microsoft's Basic Render Driver). */
export type AdapterKind = 'gpu' | 'lavapipe' | 'swiftshader' | 'cpu';

/** One adapter of this machine. Texts are the implementation's own and may be empty in a browser. */
export interface FoundAdapter {
  readonly kind: AdapterKind;
  readonly name: string;
  readonly vendor: string;
  readonly architecture: string;
  readonly description: string;
  /** The driver and its version, where the platform tells them (Node). */
  readonly driver?: string;
  readonly usable: boolean;
  /** Why it is not usable. */
  readonly reason?: string;
}

/** A device, opened with all limits of its adapter and those of `optionalFeatures` that it grants. */
export interface OpenedDevice {
  readonly adapter: GPUAdapter;
  readonly device: GPUDevice;
  readonly info: FoundAdapter;
  /** Every adapter found, the chosen one among them. */
  readonly found: readonly FoundAdapter[];
  /** One sentence: why this adapter was chosen. */
  readonly why: string;
  /** Lanes of a subgroup; both are 0 where the device has no subgroups. */
  readonly subgroupMinSize: number;
  readonly subgroupMaxSize: number;
  /** Opens another device on the same adapter, for what might break one. */
  readonly reopen: () => Promise<OpenedDevice>;
  /** Where the platform spins while it waits for the device: gives the processor away until `isDone`. */
  readonly whileWaiting?: (isDone: () => boolean) => void;
  /** It only counts memory, see `countingDevice`: lengths that are read back elsewhere must be taken at their largest. */
  readonly counts?: boolean;
}

/** Features that are used where the adapter has them; none is needed. */
export const optionalFeatures: readonly GPUFeatureName[] = ['shader-f16', 'timestamp-query', 'subgroups'];

/** Checks a text from the command line or the environment. @throws UserError that lists the choices. */
export function parseAdapterChoice(text: string): AdapterChoice {
  const choice = adapterChoices.find((known) => known === text);
  if (choice === undefined)
    throw new UserError(`Unknown adapter "${text}": expected one of ${adapterChoices.join(', ')}.`);
  return choice;
}

/** The oldest Mesa whose lavapipe computes rightly under Dawn (Debian 12's 22.3 is refused by Dawn itself). */
const oldestMesa = 25;

/**
 * Tells what an adapter is from its `GPUAdapterInfo`.
 * @param name the platform's name of the adapter; by default the info's own.
 */
export function describeAdapter(info: GPUAdapterInfo, name?: string): FoundAdapter {
  const { vendor, architecture, device, description } = info;
  const text = `${name ?? ''} ${vendor} ${architecture} ${device} ${description}`.toLowerCase();
  const base = {
    // Browsers often tell only these two, such as "google swiftshader".
    name: name ?? (description || device || `${vendor} ${architecture}`.trim() || 'unnamed adapter'),
    vendor,
    architecture,
    description,
  };
  if (text.includes('llvmpipe') || text.includes('lavapipe')) {
    const version = /mesa (\d+)\.(\d+)/i.exec(description);
    if (version && Number(version[1]) < oldestMesa)
      return {
        ...base,
        kind: 'lavapipe',
        usable: false,
        reason: `Mesa ${version[1]}.${version[2]} is too old, ${oldestMesa} or later is needed`,
      };
    return { ...base, kind: 'lavapipe', usable: true };
  }
  if (text.includes('swiftshader')) return { ...base, kind: 'swiftshader', usable: true };
  const software = info.isFallbackAdapter || architecture === 'software' || text.includes('basic render');
  return { ...base, kind: software ? 'cpu' : 'gpu', usable: true };
}

/** The order in which `auto` tries adapters: hardware, the system's software, the bundled software. */
const autoOrder: readonly AdapterKind[] = ['gpu', 'lavapipe', 'swiftshader', 'cpu'];

/** The usable adapters that satisfy `choice`, best first. */
export function candidates<T extends { readonly info: FoundAdapter }>(found: readonly T[], choice: AdapterChoice): T[] {
  const kinds = choice === 'auto' ? autoOrder : [choice];
  return kinds.flatMap((kind) => found.filter(({ info }) => info.usable && info.kind === kind));
}

/** One sentence that tells why `info` was taken. */
export function explainChoice(choice: AdapterChoice, info: FoundAdapter, found: readonly FoundAdapter[]): string {
  if (choice !== 'auto') return `${info.name} was asked for (${choice}).`;
  if (info.kind === 'gpu') return `${info.name} is a real GPU.`;
  const better = autoOrder.slice(0, autoOrder.indexOf(info.kind));
  const passed = found
    .filter((other) => better.includes(other.kind) && !other.usable)
    .map((other) => `${other.name}: ${other.reason}`);
  const because = passed.length > 0 ? `nothing better is usable (${passed.join('; ')})` : 'no real GPU was found';
  return `${info.name} computes on the CPU: ${because}.`;
}

/** The names found, for an error sentence. */
export function listFound(found: readonly FoundAdapter[]): string {
  if (found.length === 0) return 'none was found';
  return `found: ${found.map(({ name, reason }) => (reason ? `${name} (${reason})` : name)).join(', ')}`;
}

/** What was thrown, as text for a sentence. */
export function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).trim();
}

function allLimits(adapter: GPUAdapter): Record<string, number> {
  // The limits are getters of the prototype, which `for in` visits and `Object.keys` does not.
  const limits: Record<string, number> = {};
  const source: GPUSupportedLimits = adapter.limits;
  for (const name in source) {
    const value: unknown = Reflect.get(source, name);
    if (typeof value === 'number') limits[name] = value;
  }
  return limits;
}

/**
 * Requests a device with all limits of the adapter and every optional feature it has. A feature that is listed but refused
 * costs only itself: the features are then tried one by one.
 * @param freshAdapter gives an adapter for each attempt, since a request may consume the one it is made on.
 * @throws the last refusal, when even a device without features is refused.
 */
export async function requestFullDevice(
  freshAdapter: () => Promise<GPUAdapter>,
): Promise<{ adapter: GPUAdapter; device: GPUDevice }> {
  const attempt = async (features: readonly GPUFeatureName[]) => {
    const adapter = await freshAdapter();
    const requiredLimits = allLimits(adapter);
    const device = await adapter.requestDevice({ requiredFeatures: [...features], requiredLimits });
    return { adapter, device };
  };
  const adapter = await freshAdapter();
  const offered = optionalFeatures.filter((feature) => adapter.features.has(feature));
  try {
    return await attempt(offered);
  } catch (error) {
    if (offered.length === 0) throw error;
  }
  const granted: GPUFeatureName[] = [];
  for (const feature of offered) {
    try {
      const { device } = await attempt([...granted, feature]);
      device.destroy();
      granted.push(feature);
    } catch {
      // Refused: the device is opened without it, and `device.features` says so.
    }
  }
  return attempt(granted);
}

/**
 * Opens a device and joins it with what was found; the subgroup sizes count only where the device was granted subgroups.
 * @param freshAdapter as `requestFullDevice` takes it
 */
export async function openOn(
  freshAdapter: () => Promise<GPUAdapter>,
  told: Pick<OpenedDevice, 'info' | 'found' | 'why' | 'whileWaiting'>,
): Promise<OpenedDevice> {
  const opened = await requestFullDevice(freshAdapter);
  const subgroups = opened.device.features.has('subgroups');
  return {
    ...opened,
    ...told,
    subgroupMinSize: subgroups ? (opened.adapter.info.subgroupMinSize ?? 0) : 0,
    subgroupMaxSize: subgroups ? (opened.adapter.info.subgroupMaxSize ?? 0) : 0,
    reopen: () => openOn(freshAdapter, told),
  };
}
