import type { Contents, PooledBuffer } from './pool.ts';

/**
 * What was computed from buffers and holds as long as nobody writes to them: operands copied into textures, packed and transformed
 * weights. Weights are so prepared once a step however often they are used, and the texture of an activation that the forward pass
 * made serves the weight gradient, if it is still there.
 *
 * Entries go when their buffer is written to or given back, or, the longest unused first, when all together pass a budget. The last happens
 * in `settle` only, so what one product has taken stays until its dispatch is encoded.
 */
export class DerivedCache<R extends { readonly size: number }> {
  /** In the order of use, the longest unused first. */
  readonly #entries = new Map<string, R>();
  readonly #keysOf = new Map<number, Set<string>>();
  readonly #release: (resource: R) => void;
  readonly #around: (make: () => R) => R;
  readonly #budget: number;
  #bytes = 0;

  /**
   * @param budget bytes that `settle` leaves
   * @param around calls what makes a resource
   */
  constructor(budget: number, release: (resource: R) => void, around = (make: () => R): R => make()) {
    this.#budget = budget;
    this.#release = release;
    this.#around = around;
  }

  /**
   * The resource of this `kind` (which names all that it depends on but the contents) for `sources`, made if there is none. It belongs to
   * the cache; do not release it.
   */
  get(sources: readonly [PooledBuffer, ...PooledBuffer[]], kind: string, make: () => R): R {
    const key = `${sources.map(({ contents, offset }) => `${contents.id}+${offset}`).join(',')} ${kind}`;
    const known = this.#entries.get(key);
    if (known) {
      this.#entries.delete(key);
      this.#entries.set(key, known);
      return known;
    }
    const resource = this.#around(make);
    this.#entries.set(key, resource);
    this.#bytes += resource.size;
    for (const { contents } of sources) {
      const keys = this.#keysOf.get(contents.id);
      if (keys) keys.add(key);
      else this.#keysOf.set(contents.id, new Set([key]));
    }
    return resource;
  }

  #drop(key: string, resource: R): void {
    this.#entries.delete(key);
    this.#bytes -= resource.size;
    this.#release(resource);
  }

  /** Forgets what was derived from a buffer that is written to or given back. */
  forget({ id }: Contents): void {
    const keys = this.#keysOf.get(id);
    if (!keys) return;
    this.#keysOf.delete(id);
    for (const key of keys) {
      const resource = this.#entries.get(key);
      if (resource) this.#drop(key, resource);
    }
  }

  /** Gives back the longest unused until the budget is kept. */
  settle(): void {
    for (const [key, resource] of this.#entries) {
      if (this.#bytes <= this.#budget) return;
      this.#drop(key, resource);
    }
  }

  /** Gives everything back. */
  clear(): void {
    for (const [key, resource] of this.#entries) this.#drop(key, resource);
    this.#keysOf.clear();
  }
}
