import type { PooledBuffer } from '../gpu/pool.ts';
import type { Device } from './device.ts';
import { Storage, sizeOf, Tensor } from './tensor.ts';

/** What a parameter is made from: its state_dict name, shape and values in row-major order (0 until `write` where left out). */
export interface ParameterValues {
  name: string;
  shape: readonly number[];
  data?: Float32Array;
}

interface Place {
  tensor: Tensor;
  chunk: number;
  /** First byte within the chunk, and the bytes bound for it. */
  offset: number;
  bytes: number;
}

/** One run of parameters in one buffer; gradients and momenta lie alike in theirs. `floats` counts the padding too. */
export interface FlatChunk {
  parameters: PooledBuffer;
  gradients: PooledBuffer;
  momenta: PooledBuffer;
  floats: number;
}

const DEFAULT_CHUNK_BYTES = 64 * 1024 * 1024;
/** No device asks for a larger alignment of storage bindings. */
const ALIGNMENT = 256;

const roundUp = (bytes: number, multiple: number): number => Math.ceil(bytes / multiple) * multiple;

/**
 * Trainable parameters laid out one after another in few large buffers, with gradients and momenta in buffers of the same
 * layout, so that an optimizer steps all of them in one dispatch per chunk. Each parameter is an ordinary tensor on its part
 * of the buffer, and its `grad` a tensor on the same part of the gradients, into which kernels accumulate. The floats of
 * padding between parameters are 0 in all three.
 *
 * Gradients are allocated by the first `zeroGrad()` and momenta with them: a model that only predicts holds neither.
 */
export class FlatParameters {
  readonly device: Device;
  readonly #places = new Map<string, Place>();
  readonly #parameters: { buffer: PooledBuffer; bytes: number }[] = [];
  #chunks: FlatChunk[] | null = null;
  readonly #gradients = new Map<string, Tensor>();
  readonly #momenta = new Map<string, Tensor>();
  #disposed = false;

  /** `mostBytes` bounds a buffer (default 64 MiB, half of what the weakest adapter binds); a larger parameter has its own. */
  constructor(device: Device, parameters: Iterable<ParameterValues>, mostBytes = DEFAULT_CHUNK_BYTES) {
    this.device = device;
    const chunkBytes = Math.min(mostBytes, device.gpu.bindingLimit);
    const list = [...parameters];
    const offsets: { chunk: number; offset: number; bytes: number }[] = [];
    const lengths: number[] = [];
    for (const { name, shape, data } of list) {
      const size = sizeOf(shape);
      if (data && data.length !== size)
        throw new Error(`The parameter ${name} has ${data.length} values for [${shape}].`);
      const bytes = Math.max(roundUp(size * 4, 16), 16);
      const filled = lengths.at(-1);
      if (filled === undefined || filled + bytes > chunkBytes) lengths.push(0);
      const chunk = lengths.length - 1;
      offsets.push({ chunk, offset: lengths[chunk], bytes });
      lengths[chunk] += roundUp(bytes, ALIGNMENT);
    }
    for (const bytes of lengths) {
      const buffer = device.gpu.pool.acquire(bytes, 'parameters');
      device.gpu.clear(buffer, bytes);
      this.#parameters.push({ buffer, bytes });
    }
    list.forEach(({ name, shape, data }, index) => {
      if (this.#places.has(name)) throw new Error(`The parameter ${name} is given twice.`);
      const place = offsets[index];
      const tensor = this.#slice(this.#parameters[place.chunk].buffer, place, shape);
      tensor.name = name;
      tensor.requiresGrad = true;
      if (data) device.gpu.write(tensor.buffer, data as Float32Array<ArrayBuffer>);
      this.#places.set(name, { tensor, ...place });
    });
  }

  #slice(buffer: PooledBuffer, { offset, bytes }: { offset: number; bytes: number }, shape: readonly number[]): Tensor {
    const slice = this.device.gpu.pool.slice(buffer, offset, bytes);
    return new Tensor(this.device, new Storage(this.device.gpu, { slice }), [...shape], 'f32');
  }

  get names(): string[] {
    return [...this.#places.keys()];
  }

  /** The parameter's tensor; it lives as long as this object. */
  tensor(name: string): Tensor {
    return this.#place(name).tensor;
  }

  #place(name: string): Place {
    const place = this.#places.get(name);
    if (!place) throw new Error(`There is no parameter ${name}.`);
    return place;
  }

  /** Sets every gradient to 0 and every parameter's `grad` to its part of the flat gradients. Call before each backward pass. */
  zeroGrad(): void {
    for (const { gradients, floats } of this.chunks()) this.device.gpu.clear(gradients, floats * 4);
    for (const [name, { tensor }] of this.#places) this.#takeGradient(tensor, this.#gradients.get(name) as Tensor);
  }

  #takeGradient(parameter: Tensor, gradient: Tensor): void {
    if (parameter.grad !== gradient) parameter.grad?.dispose();
    parameter.grad = gradient;
  }

  /** The flat buffers, allocated and cleared at the first call. */
  chunks(): readonly FlatChunk[] {
    if (this.#disposed) throw new Error('Disposed parameters were used.');
    if (this.#chunks) return this.#chunks;
    const { gpu } = this.device;
    const cleared = (bytes: number, tag: string): PooledBuffer => {
      const buffer = gpu.pool.acquire(bytes, tag);
      gpu.clear(buffer, bytes);
      return buffer;
    };
    const chunks = this.#parameters.map(({ buffer, bytes }) => ({
      parameters: buffer,
      gradients: cleared(bytes, 'gradients'),
      momenta: cleared(bytes, 'optimizer'),
      floats: bytes / 4,
    }));
    for (const [name, place] of this.#places) {
      this.#gradients.set(name, this.#slice(chunks[place.chunk].gradients, place, place.tensor.shape));
      this.#momenta.set(name, this.#slice(chunks[place.chunk].momenta, place, place.tensor.shape));
    }
    this.#chunks = chunks;
    return chunks;
  }

  /**
   * Brings gradients that lie elsewhere (set by hand, or replaced by the engine because something else viewed them) into
   * the flat buffers; optimizers call it first. A parameter without a gradient has 0.
   */
  collectGradients(): void {
    const { gpu } = this.device;
    this.chunks();
    for (const [name, { tensor, bytes }] of this.#places) {
      const flat = this.#gradients.get(name) as Tensor;
      if (tensor.grad === flat) continue;
      if (tensor.grad) gpu.copy(tensor.grad.buffer, flat.buffer, tensor.size * 4);
      else gpu.clear(flat.buffer, bytes);
      this.#takeGradient(tensor, flat);
    }
  }

  /** The parameter's momentum buffer, same shape; 0 before the first step. Read it with `floats()`. */
  momentum(name: string): Tensor {
    this.#place(name);
    this.chunks();
    return this.#momenta.get(name) as Tensor;
  }

  /** Replaces a parameter's values, or with `'momentum'` its momentum (to resume from a checkpoint). */
  write(name: string, data: Float32Array, what: 'values' | 'momentum' = 'values'): void {
    const tensor = what === 'momentum' ? this.momentum(name) : this.tensor(name);
    if (data.length !== tensor.size)
      throw new Error(`${name}: ${data.length} values were given for [${tensor.shape}].`);
    this.device.gpu.write(tensor.buffer, data as Float32Array<ArrayBuffer>);
  }

  /** Gives all memory back; the parameters' tensors cannot be used after it. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const [name, { tensor }] of this.#places) {
      if (tensor.grad !== this.#gradients.get(name)) tensor.grad?.dispose();
      tensor.grad = null;
      tensor.dispose();
    }
    for (const tensor of [...this.#gradients.values(), ...this.#momenta.values()]) tensor.dispose();
    const { pool } = this.device.gpu;
    for (const { buffer } of this.#parameters) pool.release(buffer);
    for (const { gradients, momenta } of this.#chunks ?? []) {
      pool.release(gradients);
      pool.release(momenta);
    }
  }
}
