/** Values that a line of Python computes alike, so that expectations from NumPy and pandas need no stored inputs. */
export function formulaValue(i: number, seed: number, limit: number): number {
  const mixed = (BigInt(i) * 2654435761n + BigInt(seed) * 40503n) % 2n ** 32n;
  return Number(mixed >> 7n) % limit;
}

/** FNV-1a over 32-bit numbers instead of bytes: a fingerprint of an order. */
export function fnv(values: Iterable<number>): number {
  let hash = 0x811c9dc5;
  for (const value of values) hash = Math.imul(hash ^ value, 0x01000193) >>> 0;
  return hash;
}
