/**
 * Bind groups that were used since the cache last turned over; as many older ones are kept beside them: enough for a step of the
 * full model. On lavapipe each takes about three memory mappings of the process, of which Linux allows 65,530 in all.
 */
const PER_GENERATION = 4096;

/** Bind groups by pipeline and resources, in two generations: what is used again stays, what is not goes with the older one. */
export class BindGroupCache {
  #recent = new Map<string, GPUBindGroup>();
  #older = new Map<string, GPUBindGroup>();
  /** How many have been made. */
  created = 0;

  get(key: string, make: () => GPUBindGroup): GPUBindGroup {
    const recent = this.#recent.get(key);
    if (recent) return recent;
    let group = this.#older.get(key);
    if (!group) {
      group = make();
      this.created++;
    }
    if (this.#recent.size >= PER_GENERATION) {
      this.#older = this.#recent;
      this.#recent = new Map();
    }
    this.#recent.set(key, group);
    return group;
  }

  clear(): void {
    this.#recent.clear();
    this.#older.clear();
  }
}
