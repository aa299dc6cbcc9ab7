/** A device buffer on loan from the pool, or a slice of one. */
export interface PooledBuffer {
  /** Names this buffer or slice in the cache of bind groups; never used twice. */
  readonly id: number;
  readonly gpuBuffer: GPUBuffer;
  /** First byte of the slice, 0 for a whole buffer. */
  readonly offset: number;
  /** Bytes: the size class, at least what was asked for. */
  readonly size: number;
  tag: string;
}

export interface MemoryCounters {
  /** Bytes (by size class) of buffers on loan now. */
  inUse: number;
  /** Bytes of all buffers that exist on the device: on loan or waiting in the pool. */
  held: number;
  /** The most `held` has ever been. */
  peakHeld: number;
  /** How many buffers have ever been created; flat from step to step after warm-up. */
  created: number;
  /** `inUse` by what the buffers are for. */
  byTag: Record<string, number>;
}

const SMALLEST = 4096;
/** A free buffer of up to so many classes more (twice the size) is lent where there is none of the right class. */
const CLASSES_ABOVE = 4;

/** Size classes are 1, 1.25, 1.5 and 1.75 times a power of two, so a buffer wastes at most a fifth and classes stay few. */
export function sizeClass(bytes: number): number {
  if (bytes <= SMALLEST) return SMALLEST;
  const power = 2 ** Math.floor(Math.log2(bytes));
  if (bytes === power) return power;
  const quarter = power / 4;
  return Math.ceil(Math.ceil((bytes - power) / quarter) * quarter + power);
}

/**
 * Buffers by size class. A buffer given back may be lent again at once: the queue runs commands in the order they were
 * encoded, so its next user comes after its last. Creating a buffer costs a software adapter up to 80 ms per 64 MB; a
 * training step after warm-up creates none.
 */
export class BufferPool {
  readonly #create: (size: number) => GPUBuffer;
  readonly #free = new Map<number, PooledBuffer[]>();
  readonly #byTag = new Map<string, number>();
  #nextId = 1;
  #inUse = 0;
  #held = 0;
  #peakHeld = 0;
  #created = 0;

  constructor(create: (size: number) => GPUBuffer) {
    this.#create = create;
  }

  acquire(bytes: number, tag: string): PooledBuffer {
    const size = sizeClass(bytes);
    let buffer = this.#takeFree(size);
    if (!buffer) {
      buffer = { id: this.#nextId++, gpuBuffer: this.#create(size), offset: 0, size, tag };
      this.#created++;
      this.#held += size;
      this.#peakHeld = Math.max(this.#peakHeld, this.#held);
    }
    buffer.tag = tag;
    this.#inUse += buffer.size;
    this.#byTag.set(tag, (this.#byTag.get(tag) ?? 0) + buffer.size);
    return buffer;
  }

  /** Sizes follow the number of RoIs, which differs from step to step: a slightly larger buffer saves making a new one. */
  #takeFree(size: number): PooledBuffer | undefined {
    let candidate = size;
    for (let above = 0; above <= CLASSES_ABOVE; above++) {
      const buffer = this.#free.get(candidate)?.pop();
      if (buffer) return buffer;
      candidate = sizeClass(candidate + 1);
    }
    return undefined;
  }

  /** Part of a buffer as a buffer of its own, to be bound alone; it is not given back, its whole is. `offset` fits the device's alignment. */
  slice(buffer: PooledBuffer, offset: number, bytes: number): PooledBuffer {
    if (offset + bytes > buffer.size)
      throw new Error(`Bytes ${offset}…${offset + bytes} lie outside a buffer of ${buffer.size}.`);
    return {
      id: this.#nextId++,
      gpuBuffer: buffer.gpuBuffer,
      offset: buffer.offset + offset,
      size: bytes,
      tag: buffer.tag,
    };
  }

  release(buffer: PooledBuffer): void {
    this.#inUse -= buffer.size;
    this.#byTag.set(buffer.tag, (this.#byTag.get(buffer.tag) ?? 0) - buffer.size);
    const free = this.#free.get(buffer.size);
    if (free) free.push(buffer);
    else this.#free.set(buffer.size, [buffer]);
  }

  /** Destroys every buffer that nobody has on loan. Call only when the queue has passed all work (see `Gpu.trim`). */
  destroyFree(): void {
    for (const list of this.#free.values()) {
      for (const buffer of list) {
        buffer.gpuBuffer.destroy();
        this.#held -= buffer.size;
      }
    }
    this.#free.clear();
  }

  counters(): MemoryCounters {
    const byTag: Record<string, number> = {};
    for (const [tag, bytes] of this.#byTag) if (bytes !== 0) byTag[tag] = bytes;
    return { inUse: this.#inUse, held: this.#held, peakHeld: this.#peakHeld, created: this.#created, byTag };
  }
}
