import { UserError } from '../cli/errors.ts';
import type { Random } from '../data/random.ts';
import type { Device } from '../tensor/device.ts';
import { FlatParameters } from '../tensor/flatParameters.ts';
import { sizeOf, type Tensor } from '../tensor/tensor.ts';
import type { Initializer } from './initializers.ts';
import { deviceShape, type Layout, toDeviceLayout, toTorchLayout } from './layouts.ts';

/** Bytes on their way to the device while a model is loaded. */
const MAX_WAITING = 32 * 1024 * 1024;

/** One entry of the state_dict: torchvision's name and shape, and where it lies on the device. */
export class Entry {
  readonly name: string;
  /** torch's shape. */
  readonly shape: readonly number[];
  readonly layout: Layout;
  readonly init: Initializer;
  #trainable: boolean;
  #tensor: Tensor | null = null;

  constructor(
    name: string,
    shape: readonly number[],
    options: { layout?: Layout; trainable?: boolean; init: Initializer },
  ) {
    this.name = name;
    this.shape = shape;
    this.layout = options.layout ?? { kind: 'plain' };
    this.#trainable = options.trainable ?? true;
    this.init = options.init;
  }

  /** True for parameters, false for buffers (running statistics, frozen batch norms) and for what was frozen. */
  get trainable(): boolean {
    return this.#trainable;
  }

  /** Makes a parameter a constant: it has no gradient, and nothing is saved for one. */
  freeze(): void {
    if (this.#tensor) throw new Error(`${this.name} was frozen after the model had been allocated.`);
    this.#trainable = false;
  }

  /** The device's copy, in the device's layout. */
  get tensor(): Tensor {
    if (!this.#tensor) throw new Error(`${this.name} was used before the model was allocated.`);
    return this.#tensor;
  }

  bind(tensor: Tensor): void {
    tensor.name = this.name;
    this.#tensor = tensor;
  }
}

/** One entry's values in torch's layout; undefined where the source has no such entry. */
export type StateValues = { shape: readonly number[]; data: Float32Array } | undefined;
/** Values by state_dict name. They are asked for one at a time, so that a file need not be in memory whole. */
export interface StateSource {
  (name: string): StateValues | Promise<StateValues>;
  /** Whether it will give an entry, where that is known before: initial values need not be kept then, or even be drawn. */
  has?(name: string): boolean;
}

/**
 * A model's parameters and buffers under torchvision's names. Modules declare entries while they are built; `allocate` then
 * puts all of them on the device at once (parameters flat, so that the optimizer is one dispatch).
 */
export class StateDict {
  readonly entries = new Map<string, Entry>();
  readonly #afterLoad: (() => Promise<void> | void)[] = [];
  readonly #atDispose: (() => void)[] = [];
  #flat: FlatParameters | null = null;
  #buffers: Tensor[] = [];

  declare(entry: Entry): Entry {
    if (this.entries.has(entry.name)) throw new Error(`The state_dict entry ${entry.name} is declared twice.`);
    this.entries.set(entry.name, entry);
    return entry;
  }

  /** Runs `update` after values have been set: what is derived from entries (folded batch norms) follows them. */
  onLoad(update: () => Promise<void> | void): void {
    this.#afterLoad.push(update);
  }

  /** Runs `release` when the state is disposed: what is derived from entries goes with them. */
  onDispose(release: () => void): void {
    this.#atDispose.push(release);
  }

  /** The trainable entries, their gradients and momenta. */
  get parameters(): FlatParameters {
    if (!this.#flat) throw new Error('The model was not allocated.');
    return this.#flat;
  }

  /**
   * Puts every entry on the device: values of `source` where given (else initial values drawn from `random`). One entry at a time is
   * in memory; when the source fails, nothing is left on the device.
   */
  async allocate(device: Device, random: Random, source?: StateSource): Promise<void> {
    const entries = [...this.entries.values()];
    const flat = new FlatParameters(
      device,
      entries
        .filter(({ trainable }) => trainable)
        .map(({ name, shape, layout }) => ({ name, shape: deviceShape(shape, layout) })),
    );
    this.#flat = flat;
    let waiting = 0;
    const complete = entries.every(({ name }) => source?.has?.(name));
    try {
      for (const entry of entries) {
        // Drawn even when the source has the entry, so that the draws of the others do not depend on what it holds.
        const drawn = complete ? null : entry.init(entry.shape, random);
        const data = await this.#hostValues(entry, source?.has?.(entry.name) ? null : drawn, source);
        if (entry.trainable) {
          flat.write(entry.name, data);
          entry.bind(flat.tensor(entry.name));
        } else {
          const shape = deviceShape(entry.shape, entry.layout);
          const tensor = device.detached(() => device.tagged('parameters', () => device.tensor(data, shape)));
          this.#buffers.push(tensor);
          entry.bind(tensor);
        }
        // What is written waits in the driver's memory until the queue has passed it.
        waiting += data.byteLength;
        if (waiting < MAX_WAITING) continue;
        await device.gpu.sync();
        waiting = 0;
      }
      for (const update of this.#afterLoad) await update();
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** An entry's values in the device's layout: the source's where it has them, else `initial`. */
  async #hostValues(entry: Entry, initial: Float32Array | null, source?: StateSource): Promise<Float32Array> {
    const given = await source?.(entry.name);
    if (given) checkShape(entry, given.shape);
    const values = given?.data ?? initial;
    if (!values) throw new Error(`The source of values has no ${entry.name} after all.`);
    return toDeviceLayout(values, entry.shape, entry.layout);
  }

  /** Overwrites every entry; `source` must have them all. */
  async load(source: StateSource): Promise<void> {
    for (const entry of this.entries.values()) {
      const given = await source(entry.name);
      if (!given) throw new UserError(`The weights have no parameter ${entry.name} of shape [${entry.shape}].`);
      checkShape(entry, given.shape);
      const { tensor } = entry;
      tensor.device.gpu.write(
        tensor.buffer,
        toDeviceLayout(given.data, entry.shape, entry.layout) as Float32Array<ArrayBuffer>,
      );
    }
    for (const update of this.#afterLoad) await update();
  }

  /** The values of one entry, in torch's layout. */
  async read(name: string): Promise<Float32Array> {
    const entry = this.entries.get(name);
    if (!entry) throw new Error(`The model has no parameter ${name}.`);
    return toTorchLayout(await entry.tensor.floats(), entry.shape, entry.layout);
  }

  /** The gradient of one trainable entry, in torch's layout. */
  async readGradient(name: string): Promise<Float32Array> {
    const entry = this.entries.get(name);
    const gradient = entry?.tensor.grad;
    if (!entry || !gradient) throw new Error(`${name} has no gradient.`);
    return toTorchLayout(await gradient.floats(), entry.shape, entry.layout);
  }

  /** All values, by name in the order of declaration, in torch's layout. */
  async *values(): AsyncGenerator<{ name: string; shape: readonly number[]; data: Float32Array }> {
    for (const entry of this.entries.values()) {
      yield { name: entry.name, shape: entry.shape, data: await this.read(entry.name) };
    }
  }

  parameterCount(): number {
    let count = 0;
    for (const entry of this.entries.values()) if (entry.trainable) count += sizeOf(entry.shape);
    return count;
  }

  dispose(): void {
    for (const release of this.#atDispose) release();
    this.#flat?.dispose();
    for (const tensor of this.#buffers) tensor.dispose();
    this.#buffers = [];
  }
}

function checkShape(entry: Entry, shape: readonly number[]): void {
  if (shape.length !== entry.shape.length || shape.some((extent, axis) => extent !== entry.shape[axis])) {
    throw new UserError(
      `The weights' parameter ${entry.name} has shape [${shape}], but this model's is [${entry.shape}].`,
    );
  }
}
