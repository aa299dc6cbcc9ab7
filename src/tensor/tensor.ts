import type { Gpu } from '../gpu/gpu.ts';
import type { PooledBuffer } from '../gpu/pool.ts';
import type { GraphNode } from './autograd.ts';
import type { Device } from './device.ts';

export type DType = 'f32' | 'i32' | 'u32';

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
    return this.size * 4;
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

  /** The values, once the device has computed them: Float32Array, Int32Array or Uint32Array by `dtype`. */
  async data(): Promise<Float32Array | Int32Array | Uint32Array> {
    const bytes = await this.device.gpu.read(this.buffer, this.size * 4);
    if (this.dtype === 'f32') return new Float32Array(bytes);
    return this.dtype === 'i32' ? new Int32Array(bytes) : new Uint32Array(bytes);
  }

  async floats(): Promise<Float32Array> {
    if (this.dtype !== 'f32') throw new Error(`${this} holds no floats.`);
    return new Float32Array(await this.device.gpu.read(this.buffer, this.size * 4));
  }

  async ints(): Promise<Int32Array> {
    if (this.dtype === 'f32') throw new Error(`${this} holds no integers.`);
    return new Int32Array(await this.device.gpu.read(this.buffer, this.size * 4));
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
