import { expect } from 'vitest';

export interface Difference {
  /** Largest absolute difference divided by the largest absolute expected value. */
  relative: number;
  index: number;
}

/** The largest difference relative to the largest expected value; NaN anywhere counts as infinite. */
export function difference(actual: ArrayLike<number>, expected: ArrayLike<number>): Difference {
  if (actual.length !== expected.length) return { relative: Number.POSITIVE_INFINITY, index: -1 };
  let scale = 0;
  for (let i = 0; i < expected.length; i++) scale = Math.max(scale, Math.abs(expected[i]));
  let worst = 0;
  let index = 0;
  for (let i = 0; i < expected.length; i++) {
    const off = Math.abs(actual[i] - expected[i]);
    if (!(off <= worst)) {
      worst = Number.isNaN(off) ? Number.POSITIVE_INFINITY : off;
      index = i;
    }
  }
  return { relative: worst === 0 ? 0 : worst / Math.max(scale, 1e-30), index };
}

/** Fails, naming the worst element, unless `actual` agrees with `expected` to `tolerance` of the largest expected value. */
export function expectClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  what = 'values',
): void {
  expect(actual.length, `${what}: length`).toBe(expected.length);
  const { relative, index } = difference(actual, expected);
  expect(relative, `${what}: at ${index} got ${actual[index]}, expected ${expected[index]}`).toBeLessThanOrEqual(
    tolerance,
  );
}
