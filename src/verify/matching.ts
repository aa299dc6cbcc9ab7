import { largestAbsolute } from './rows.ts';

/**
 * Pairs rows of `actual` with rows of `expected`, both [n, width]: for each expected row in order the nearest actual row (sum of
 * absolute differences) that is still free, the one in the same place among equals. Proposals of nearly equal score may have
 * swapped places; what hangs on them is compared in the order given here.
 * @returns [n] the row of `actual` for each row of `expected`; null when their numbers differ.
 */
export function matchRows(actual: Float32Array, expected: Float32Array, width: number): Int32Array | null {
  if (actual.length !== expected.length) return null;
  const n = expected.length / width;
  const order = new Int32Array(n);
  const taken = new Uint8Array(n);
  // A row that sits in its place, as nearly all do, needs no search.
  const inPlace = 1e-6 * Math.max(largestAbsolute(expected), 1);
  const distance = (row: number, other: number): number => {
    let sum = 0;
    for (let k = 0; k < width; k++) sum += Math.abs(actual[other * width + k] - expected[row * width + k]);
    return sum;
  };
  for (let row = 0; row < n; row++) {
    let nearest = -1;
    let least = Number.POSITIVE_INFINITY;
    if (!taken[row]) {
      nearest = row;
      least = distance(row, row);
    }
    for (let other = 0; other < n && least > inPlace; other++) {
      if (taken[other]) continue;
      const off = distance(row, other);
      // NaN is near to nothing, but some row must be taken.
      if (off < least || nearest < 0) {
        nearest = other;
        least = Number.isNaN(off) ? Number.POSITIVE_INFINITY : off;
      }
    }
    taken[nearest] = 1;
    order[row] = nearest;
  }
  return order;
}

/** Rows of `data`, each `width` values, in the order given. */
export function reorderRows<T extends Float32Array | Int32Array>(data: T, width: number, order: Int32Array): T {
  const out = data.slice() as T;
  order.forEach((from, to) => {
    out.set(data.subarray(from * width, (from + 1) * width), to * width);
  });
  return out;
}

/** The rows of several images one after another, given how those of each image are paired. */
export function joinOrders(orders: readonly Int32Array[]): Int32Array {
  const joined: number[] = [];
  for (const order of orders) {
    const first = joined.length;
    for (const row of order) joined.push(first + row);
  }
  return Int32Array.from(joined);
}

/**
 * How the rows that `keep` selects are paired, counted among themselves (the mask head's rows are the positives alone).
 * @param keepActual whether a row of the actual values belongs to them; `keepExpected` likewise.
 * @returns null when the pairing mixes rows that belong with rows that do not.
 */
export function orderAmong(
  order: Int32Array,
  keepActual: (row: number) => boolean,
  keepExpected: (row: number) => boolean,
): Int32Array | null {
  const place = new Int32Array(order.length);
  let kept = 0;
  for (let row = 0; row < order.length; row++) if (keepActual(row)) place[row] = kept++;
  const among: number[] = [];
  for (const [row, from] of order.entries()) {
    if (keepExpected(row) !== keepActual(from)) return null;
    if (keepExpected(row)) among.push(place[from]);
  }
  return Int32Array.from(among);
}
