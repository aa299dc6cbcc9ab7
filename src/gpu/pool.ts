/** Something of the device that is lent and given back. */
interface Pooled {
  /** Names it in the cache of bind groups; never used twice. */
  readonly id: number;
  /** Bytes: the size class, at least what was asked for. */
  readonly size: number;
  tag: string;
}

/** What a buffer holds, shared by its slices: who derives something from it must know when it is written to or given back. */
export interface Contents {
  readonly id: number;
}

/** A device buffer on loan from the pool, or a slice of one. */
export interface PooledBuffer extends Pooled {
  readonly gpuBuffer: GPUBuffer;
  readonly contents: Contents;
  /** First byte of the slice, 0 for a whole buffer. */
  readonly offset: number;
  /** What was asked for, at most `size`: what a kernel may touch. */
  bytes: number;
}

/**
 * A texture of rgba32float (or rgba16float) on loan from the pool: an array of vec4f in rows of {@link TEXTURE_WIDTH}. Where a load from a
 * texture costs less than one from a buffer, operands that are read often are copied into one.
 */
export interface PooledTexture extends Pooled {
  readonly gpuTexture: GPUTexture;
  /** Of a texel: 16, or 8 for halves. */
  readonly texelBytes: TexelBytes;
  readonly view: GPUTextureView;
}

export interface MemoryCounters {
  /** Bytes (by size class) of buffers and textures on loan now. */
  inUse: number;
  /** The most `inUse` has been since the peaks were last forgotten. */
  peakInUse: number;
  /** Bytes of all that exist on the device: on loan or waiting in the pool. */
  held: number;
  /** The most `held` has been since the peaks were last forgotten. */
  peakHeld: number;
  /** How many have ever been created; flat from step to step after warm-up. */
  created: number;
  /** `inUse` by what the memory is for. */
  byTag: Record<string, number>;
  /** The most that each tag has had in use since the peaks were last forgotten. */
  peakByTag: Record<string, number>;
}

const SMALLEST = 4096;
/** A free buffer of up to so many classes more (twice the size) is lent where there is none of the right class. */
const CLASSES_ABOVE = 4;

/** Texels in a row of every texture. Eight thousand rows, which every device has, then hold half a gigabyte. */
export const TEXTURE_WIDTH = 4096;
/** A texel holds four floats or four halves. */
export type TexelBytes = 16 | 8;

/** 1, 1.25, 1.5 and 1.75 times a power of two (as far as these are whole), so classes waste at most a fifth and stay few. */
function quarterClass(count: number): number {
  const power = 2 ** Math.floor(Math.log2(count));
  const quarter = Math.max(power / 4, 1);
  return Math.ceil((count - power) / quarter) * quarter + power;
}

/** The size of the buffer that is lent for so many bytes. */
export function sizeClass(bytes: number): number {
  return bytes <= SMALLEST ? SMALLEST : quarterClass(bytes);
}

/** The size of the texture that is lent for so many bytes: whole rows. */
function textureClass(bytes: number, rowBytes: number): number {
  return quarterClass(Math.max(Math.ceil(bytes / rowBytes), 1)) * rowBytes;
}

/** The counters that pools of one device share. */
export class MemoryLedger {
  #counts = { inUse: 0, peakInUse: 0, held: 0, peakHeld: 0, created: 0 };
  readonly #byTag = new Map<string, number>();
  readonly #peakByTag = new Map<string, number>();

  create(bytes: number): void {
    this.#counts.created++;
    this.#counts.held += bytes;
    this.#counts.peakHeld = Math.max(this.#counts.peakHeld, this.#counts.held);
  }

  destroy(bytes: number): void {
    this.#counts.held -= bytes;
  }

  /** Lends (or, with negative bytes, takes back). */
  lend(bytes: number, tag: string): void {
    this.#counts.inUse += bytes;
    this.#counts.peakInUse = Math.max(this.#counts.peakInUse, this.#counts.inUse);
    const total = (this.#byTag.get(tag) ?? 0) + bytes;
    this.#byTag.set(tag, total);
    if (total > (this.#peakByTag.get(tag) ?? 0)) this.#peakByTag.set(tag, total);
  }

  /** The peaks start again from what is now. */
  forgetPeaks(): void {
    this.#counts.peakInUse = this.#counts.inUse;
    this.#counts.peakHeld = this.#counts.held;
    this.#peakByTag.clear();
    for (const [tag, bytes] of this.#byTag) this.#peakByTag.set(tag, bytes);
  }

  counters(): MemoryCounters {
    const nonZero = (tags: ReadonlyMap<string, number>) =>
      Object.fromEntries([...tags].filter(([, bytes]) => bytes !== 0));
    return { ...this.#counts, byTag: nonZero(this.#byTag), peakByTag: nonZero(this.#peakByTag) };
  }
}

let nextId = 1;

/** Puts a resource into a list of falling ids. */
function insertById<R extends { readonly id: number }>(list: R[], resource: R): void {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle].id > resource.id) low = middle + 1;
    else high = middle;
  }
  list.splice(low, 0, resource);
}

/**
 * Memory by size class. What is given back may be lent again at once: the queue runs commands in the order they were
 * encoded, so its next user comes after its last. Creating a buffer costs a software adapter up to 80 ms per 64 MB; a
 * training step after warm-up creates none.
 */
class Pool<R extends Pooled> {
  readonly #create: (size: number, tag: string) => R;
  readonly #destroy: (resource: R) => void;
  readonly #classOf: (bytes: number) => number;
  readonly #ledger: MemoryLedger;
  /** By size, the oldest last: it is lent first. So a step that is like the one before gets the same resources, and its bind groups are known. */
  readonly #free = new Map<number, R[]>();

  constructor(
    ledger: MemoryLedger,
    make: {
      create: (size: number, tag: string) => R;
      destroy: (resource: R) => void;
      classOf: (bytes: number) => number;
    },
  ) {
    this.#ledger = ledger;
    this.#create = make.create;
    this.#destroy = make.destroy;
    this.#classOf = make.classOf;
  }

  acquire(bytes: number, tag: string): R {
    const size = this.#classOf(bytes);
    let resource = this.#takeFree(size);
    if (!resource) {
      resource = this.#create(size, tag);
      this.#ledger.create(size);
    }
    resource.tag = tag;
    this.#ledger.lend(resource.size, tag);
    return resource;
  }

  /** Sizes follow the number of RoIs, which differs from step to step: something slightly larger saves making a new one. */
  #takeFree(size: number): R | undefined {
    let candidate = size;
    for (let above = 0; above <= CLASSES_ABOVE; above++) {
      const resource = this.#free.get(candidate)?.pop();
      if (resource) return resource;
      candidate = this.#classOf(candidate + 1);
    }
    return undefined;
  }

  release(resource: R): void {
    this.#ledger.lend(-resource.size, resource.tag);
    const free = this.#free.get(resource.size);
    if (free) insertById(free, resource);
    else this.#free.set(resource.size, [resource]);
  }

  /** Destroys everything that nobody has on loan. Call only when the queue has passed all work (see `Gpu.trim`). */
  destroyFree(): void {
    for (const list of this.#free.values()) {
      for (const resource of list) {
        this.#destroy(resource);
        this.#ledger.destroy(resource.size);
      }
    }
    this.#free.clear();
  }
}

/** Buffers by size class. */
export class BufferPool extends Pool<PooledBuffer> {
  readonly #released: ((contents: Contents) => void) | undefined;
  readonly #ranges = new WeakMap<PooledBuffer, Map<string, PooledBuffer>>();

  /** @param released is told of each buffer that is given back. */
  constructor(ledger: MemoryLedger, create: (size: number) => GPUBuffer, released?: (contents: Contents) => void) {
    super(ledger, {
      create: (size, tag) => {
        const id = nextId++;
        return { id, gpuBuffer: create(size), contents: { id }, offset: 0, size, bytes: size, tag };
      },
      destroy: ({ gpuBuffer }) => gpuBuffer.destroy(),
      classOf: sizeClass,
    });
    this.#released = released;
  }

  override acquire(bytes: number, tag: string): PooledBuffer {
    const buffer = super.acquire(bytes, tag);
    buffer.bytes = bytes;
    return buffer;
  }

  override release(buffer: PooledBuffer): void {
    this.#released?.(buffer.contents);
    super.release(buffer);
  }

  /** Part of a buffer as a buffer of its own, to be bound alone; it is not given back, its whole is. `offset` fits the device's alignment. */
  slice(buffer: PooledBuffer, offset: number, bytes: number): PooledBuffer {
    if (offset + bytes > buffer.size)
      throw new Error(`Bytes ${offset}…${offset + bytes} lie outside a buffer of ${buffer.size}.`);
    return { ...buffer, id: nextId++, offset: buffer.offset + offset, size: bytes, bytes };
  }

  /** The same slice at every call, so that bind groups with it are known again. */
  range(buffer: PooledBuffer, offset: number, bytes: number): PooledBuffer {
    let known = this.#ranges.get(buffer);
    if (!known) {
      known = new Map();
      this.#ranges.set(buffer, known);
    }
    const key = `${offset}+${bytes}`;
    let slice = known.get(key);
    if (!slice) {
      slice = this.slice(buffer, offset, bytes);
      known.set(key, slice);
    }
    return slice;
  }
}

/** Textures of one format by size class; `acquire` takes bytes, `texelBytes` for each vec4f. */
export class TexturePool extends Pool<PooledTexture> {
  constructor(
    ledger: MemoryLedger,
    texelBytes: TexelBytes,
    create: (size: [width: number, height: number]) => GPUTexture,
  ) {
    const rowBytes = TEXTURE_WIDTH * texelBytes;
    super(ledger, {
      create: (size, tag) => {
        const gpuTexture = create([TEXTURE_WIDTH, size / rowBytes]);
        return { id: nextId++, gpuTexture, view: gpuTexture.createView(), texelBytes, size, tag };
      },
      destroy: ({ gpuTexture }) => gpuTexture.destroy(),
      classOf: (bytes) => textureClass(bytes, rowBytes),
    });
  }
}
