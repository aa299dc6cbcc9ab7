/** The whole state of a {@link Random}: four unsigned 32-bit words, fit for JSON. */
export type RandomState = readonly [number, number, number, number];

/**
 * The program's seeded generator: xoshiro128** (Blackman & Vigna 2018, https://prng.di.unimi.it/xoshiro128starstar.c), its
 * state filled by splitmix32 from the seed. The same seed gives the same numbers on every machine; not for cryptography.
 */
export class Random {
  private readonly words = new Uint32Array(4);

  /** @param seed any safe integer; all of its bits count. */
  constructor(seed: number) {
    if (!Number.isSafeInteger(seed)) throw new RangeError(`Random: the seed must be a safe integer, got ${seed}`);
    let state = (seed ^ Math.imul(Math.floor(seed / 2 ** 32), 0x85ebca6b)) >>> 0;
    for (let i = 0; i < 4; i++) {
      state = (state + 0x9e3779b9) >>> 0;
      let z = state;
      z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
      this.words[i] = z ^ (z >>> 15);
    }
    // Four zeros are the one state that never moves.
    if (this.words.every((word) => word === 0)) this.words[0] = 1;
  }

  /** A generator that goes on where the one that gave `state` stood. */
  static restore(state: RandomState): Random {
    const random = new Random(0);
    random.words.set(state);
    return random;
  }

  /** The present state, for {@link Random.restore}. */
  save(): RandomState {
    return [this.words[0], this.words[1], this.words[2], this.words[3]];
  }

  /** A uniform integer in 0 … 2^32 - 1. */
  uint32(): number {
    const s = this.words;
    const scrambled = Math.imul(s[1], 5);
    const result = Math.imul((scrambled << 7) | (scrambled >>> 25), 9) >>> 0;
    const shifted = s[1] << 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = (s[3] << 11) | (s[3] >>> 21);
    return result;
  }

  /** A uniform number in [0, 1) with 53 random bits. */
  next(): number {
    const high = this.uint32() >>> 5;
    const low = this.uint32() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }

  /** A uniform integer in 0 … n - 1, for 1 ≤ n ≤ 2^32. */
  int(n: number): number {
    if (!(Number.isInteger(n) && n >= 1 && n <= 2 ** 32))
      throw new RangeError(`Random.int: n must be 1 … 2^32, got ${n}`);
    return Math.floor(this.next() * n);
  }

  /** A normal number of mean 0 and variance 1 (Box and Muller; its second number is not kept, so the state is all there is). */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.next()));
    return radius * Math.cos(2 * Math.PI * this.next());
  }

  /** 0 … n - 1 in uniformly random order (Fisher and Yates). */
  permutation(n: number): Int32Array {
    const order = Int32Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.int(i + 1);
      const swapped = order[i];
      order[i] = order[j];
      order[j] = swapped;
    }
    return order;
  }
}
