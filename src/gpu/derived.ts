import type { Contents, PooledBuffer } from './pool.ts';

/** Something of the pools that was computed from a buffer's contents. */
interface Derived<R> {
  resource: R;
  /** The versions of all contents it was computed from. */
  version: string;
  bytes: number;
}

/**
 * What was computed from buffers and holds as long as nobody writes to them: operands copied into textures, packed and transformed
 * weights. Weights are so prepared once a step however often they are used, and the texture of an activation that the forward pass
 * made serves the weight gradient, if it is still there.
 *
 * Entries go when their buffer is given back, or, the longest unused first, when all together pass a budget. Nothing goes
 * before `settle` is called, so what one product has taken stays until its dispatch is encoded.
 */
export class DerivedCache<R extends { readonly size: number }> {
  /** In the order of use, the longest unused first. */
  readonly #entries = new Map<string, Derived<R>>();
  readonly #keysOf = new Map<number, Set<string>>();
  readonly #release: (resource: R) => void;
  readonly #budget: number;
  #bytes = 0;

  /** @param budget bytes that `settle` leaves. */
  constructor(budget: number, release: (resource: R) => void) {
    this.#budget = budget;
    this.#release = release;
  }

  /**
   * The resource of this `kind` (which names all that it depends on but the contents) for `sources`; made if there is none, or
   * if a source has been written to since. It belongs to the cache; do not release it.
   */
  get(sources: readonly [PooledBuffer, ...PooledBuffer[]], kind: string, make: () => R): R {
    const key = `${sources.map(({ contents, offset }) => `${contents.id}+${offset}`).join(',')} ${kind}`;
    const version = sources.map(({ contents }) => contents.version).join(',');
    const known = this.#entries.get(key);
    if (known?.version === version) {
      this.#entries.delete(key);
      this.#entries.set(key, known);
      return known.resource;
    }
    if (known) this.#drop(key, known);
    const resource = make();
    this.#entries.set(key, { resource, version, bytes: resource.size });
    this.#bytes += resource.size;
    for (const { contents } of sources) {
      const keys = this.#keysOf.get(contents.id);
      if (keys) keys.add(key);
      else this.#keysOf.set(contents.id, new Set([key]));
    }
    return resource;
  }

  #drop(key: string, { resource, bytes }: Derived<R>): void {
    this.#entries.delete(key);
    this.#bytes -= bytes;
    this.#release(resource);
  }

  /** Forgets what was derived from a buffer that is given back. */
  forget({ id }: Contents): void {
    const keys = this.#keysOf.get(id);
    if (!keys) return;
    this.#keysOf.delete(id);
    for (const key of keys) {
      const entry = this.#entries.get(key);
      if (entry) this.#drop(key, entry);
    }
  }

  /** Gives back the longest unused until the budget is kept. */
  settle(): void {
    for (const [key, entry] of this.#entries) {
      if (this.#bytes <= this.#budget) return;
      this.#drop(key, entry);
    }
  }

  /** Gives everything back. */
  clear(): void {
    for (const [key, entry] of this.#entries) this.#drop(key, entry);
    this.#keysOf.clear();
  }
}
