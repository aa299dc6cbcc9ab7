import type { Gpu } from '../gpu/gpu.ts';
import type { PooledBuffer } from '../gpu/pool.ts';
import type { GraphNode } from './autograd.ts';
import type { Device } from './device.ts';
import { decodeHalves } from './halves.ts';

/**
 * Elements of tensors. `f16` stores activations and their gradients in half the memory; kernels compute with them in float32, see
 * `gpu/halves.ts`. An adapter needs the feature `shader-f16` for it.
 */
export type DType = 'f32' | 'f16' | 'i32' | 'u32';

/** Bytes of an element. */
export function bytesOf(dtype: DType): 2 | 4 {
  return dtype === 'f16' ? 2 : 4;
}

/** What bytes of the device say: floats of either kind as Float32Array. */
export function hostValues(bytes: ArrayBuffer, dtype: DType): Float32Array | Int32Array | Uint32Array {
  if (dtype === 'i32') return new Int32Array(bytes);
  if (dtype === 'u32') return new Uint32Array(bytes);
  if (dtype === 'f32') return new Float32Array(bytes);
  const values = new Float32Array(bytes.byteLength / 2);
  decodeHalves(new Uint8Array(bytes), values);
  return values;
}

/** A pooled buffer shared by tensors that view it; it goes back to the pool with the last of them. */
export class Storage {
  readonly buffer: PooledBuffer;
  readonly #gpu: Gpu;
  #references = 1;

  readonly #owned: boolean;

  /** Takes `bytes` from the pool; or stands for a slice whose whole somebody else gives back. */
  constructor(gpu: Gpu, memory: { bytes: number; tag: string } | { slice: PooledBuffer }) {
    this.#gpu = gpu;
    this.#owned = 'bytes' in memory;
    this.buffer = 'bytes' in memory ? gpu.pool.acquire(Math.max(memory.bytes, 16), memory.tag) : memory.slice;
  }

  get references(): number {
    return this.#references;
  }

  retain(): this {
    if (this.#references === 0) throw new Error('This storage was already given back to the pool.');
    this.#references++;
    return this;
  }

  release(): void {
    if (this.#references === 0) throw new Error('This storage was given back to the pool twice.');
    if (--this.#references === 0 && this.#owned) this.#gpu.pool.release(this.buffer);
  }
}

export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, extent) => product * extent, 1);
}

/**
 * A dense, row-major array on the device. Images and feature maps are [N, H, W, C].
 * Memory is explicit: a tensor lives until `dispose()` or the end of the scope that made it, whichever comes first.
 */
export class Tensor {
  readonly device: Device;
  readonly storage: Storage;
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly size: number;
  /** True for parameters and everything computed from them while gradients are recorded. */
  requiresGrad = false;
  /** The operator application that made it, if recorded. */
  node: GraphNode | null = null;
  /** Of a leaf with `requiresGrad`: the sum of the gradients that reached it; same shape. */
  grad: Tensor | null = null;
  name = '';
  #disposed = false;

  constructor(device: Device, storage: Storage, shape: readonly number[], dtype: DType) {
    this.device = device;
    this.storage = storage;
    this.shape = shape;
    this.dtype = dtype;
    this.size = sizeOf(shape);
  }

  get buffer(): PooledBuffer {
    if (this.#disposed) throw new Error(`A disposed tensor ${this} was used.`);
    return this.storage.buffer;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** What its elements take on the device. */
  get bytes(): number {
    return this.size * bytesOf(this.dtype);
  }

  get rank(): number {
    return this.shape.length;
  }

  /** A second handle on the same memory, outside the graph (torch's `detach`), owned by the current scope. */
  detach(): Tensor {
    return this.device.adopt(this.view(this.shape));
  }

  /** A handle with another shape of the same size, that no scope owns and no graph knows; for the engine and operators. */
  view(shape: readonly number[]): Tensor {
    if (sizeOf(shape) !== this.size) throw new Error(`[${this.shape}] has not the size of [${shape}].`);
    if (this.#disposed) throw new Error(`A disposed tensor ${this} was used.`);
    return new Tensor(this.device, this.storage.retain(), shape, this.dtype);
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.node = null;
    this.storage.release();
  }

  /** The values, once the device has computed them: Float32Array (of `f16` too), Int32Array or Uint32Array by `dtype`. */
  async data(): Promise<Float32Array | Int32Array | Uint32Array> {
    return hostValues(await this.device.gpu.read(this.buffer, this.bytes), this.dtype);
  }

  async floats(): Promise<Float32Array> {
    if (this.dtype === 'i32' || this.dtype === 'u32') throw new Error(`${this} holds no floats.`);
    return (await this.data()) as Float32Array;
  }

  async ints(): Promise<Int32Array> {
    if (this.dtype === 'f32' || this.dtype === 'f16') throw new Error(`${this} holds no integers.`);
    return new Int32Array(await this.device.gpu.read(this.buffer, this.bytes));
  }

  /** The value of a tensor of one element. */
  async item(): Promise<number> {
    if (this.size !== 1) throw new Error(`item() needs one element, ${this} has ${this.size}.`);
    return (await this.data())[0];
  }

  toString(): string {
    return `${this.name ? `${this.name} ` : ''}${this.dtype}[${this.shape.join(', ')}]`;
  }
}
