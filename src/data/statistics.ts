/** Descriptions of columns of numbers, value for value as pandas gives them. */
import { roundHalfEven } from './rounding.ts';

/** What pandas' `describe` tells of a column; NaN where a column is too short for it. */
export interface Description {
  count: number;
  mean: number;
  /** Of the sample: divided by count - 1; NaN for one value. */
  std: number;
  min: number;
  '25%': number;
  '50%': number;
  '75%': number;
  max: number;
}

/** The rows of a description in pandas' order. */
export const DESCRIPTION_ROWS = ['count', 'mean', 'std', 'min', '25%', '50%', '75%', 'max'] as const;

/**
 * pandas' `Series.describe` (pandas/core/methods/describe.py, nanops.py), to the last bit.
 *
 * @param values finite numbers in any order
 */
export function describe(values: ArrayLike<number>): Description {
  const column = Float64Array.from(values);
  const count = column.length;
  const mean = pairwiseSum(column) / count;
  const std = Math.sqrt(pairwiseSum(column.map((value) => (mean - value) ** 2)) / (count - 1));
  const sorted = column.slice().sort();
  const [q25, q50, q75] = [0.25, 0.5, 0.75].map((q) => quantile(sorted, q));
  return {
    count,
    mean,
    std,
    min: sorted[0] ?? Number.NaN,
    '25%': q25,
    '50%': q50,
    '75%': q75,
    max: sorted[count - 1] ?? Number.NaN,
  };
}

/**
 * The sum in NumPy's order (numpy/_core/src/umath/loops_utils.h.src, `pairwise_sum`): eight partial sums over up to 128 values,
 * longer columns in halves. It keeps rounding errors small, and the order decides the last bit.
 */
export function pairwiseSum(values: Float64Array): number {
  const n = values.length;
  if (n < 8) return values.reduce((sum, value) => sum + value, 0);
  if (n > 128) {
    const half = Math.floor(n / 2);
    const first = half - (half % 8);
    return pairwiseSum(values.subarray(0, first)) + pairwiseSum(values.subarray(first));
  }
  const parts = values.slice(0, 8);
  const whole = n - (n % 8);
  for (let i = 8; i < whole; i++) parts[i % 8] += values[i];
  const [a, b, c, d, e, f, g, h] = parts;
  let sum = a + b + (c + d) + (e + f + (g + h));
  for (let i = whole; i < n; i++) sum += values[i];
  return sum;
}

/**
 * The value below which a share of the column lies, interpolated between neighbours (NumPy's `quantile`, method "linear").
 *
 * @param sorted rising
 * @param q 0…1
 * @returns NaN for an empty column
 */
export function quantile(sorted: ArrayLike<number>, q: number): number {
  const last = sorted.length - 1;
  if (last < 0) return Number.NaN;
  const position = last * q;
  if (position >= last) return sorted[last];
  const below = Math.floor(position);
  const [low, high] = [sorted[below], sorted[below + 1]];
  const share = position - below;
  // From the nearer neighbour, as NumPy's `_lerp`.
  return share < 0.5 ? low + (high - low) * share : high - (high - low) * (1 - share);
}

/**
 * The edges between `parts` groups of equal size: those of pandas' `qcut(values, parts, retbins=True)`.
 *
 * @param values finite numbers in any order
 * @returns parts + 1 numbers, never falling; many equal values give equal edges, where `qcut` refuses
 */
export function quantileEdges(values: ArrayLike<number>, parts: number): number[] {
  const sorted = Float64Array.from(values).sort();
  const step = 1 / parts;
  return Array.from({ length: parts + 1 }, (_, i) => {
    if (i === parts) return quantile(sorted, 1);
    // pandas takes the next larger number for a share such as 3/5 that is none of binary fractions.
    const share = i * step;
    return quantile(sorted, share * parts === i ? share : nextUp(share));
  });
}

/** The next larger double of a positive one. */
function nextUp(value: number): number {
  const bits = new BigUint64Array(Float64Array.of(value).buffer);
  bits[0]++;
  return new Float64Array(bits.buffer)[0];
}

/** One part of a quantile table. */
export interface QuantileBin {
  /** As pandas names it, e.g. `(1.999, 108.0]`: above the first number, up to and including the second. */
  label: string;
  /** Positions of the values that lie in it, in their order. */
  members: number[];
}

/**
 * pandas' `qcut(values, parts, duplicates='drop')`: the values in groups as equal as ties allow. Parts between equal edges are
 * left out; where all values are equal, there is one part.
 *
 * @param values finite numbers, at least one
 */
export function quantileBins(values: ArrayLike<number>, parts: number): QuantileBin[] {
  const edges = [...new Set(quantileEdges(values, parts))];
  if (edges.length === 1) edges.push(edges[0]);
  const bins = intervalLabels(edges).map((label): QuantileBin => ({ label, members: [] }));
  for (let i = 0; i < values.length; i++) {
    // The lowest edge itself belongs to the first part.
    const bin = edges.findIndex((edge, e) => e > 0 && values[i] <= edge);
    bins[bin - 1].members.push(i);
  }
  return bins;
}

/** Names of the intervals between edges, as pandas rounds and writes them (pandas/core/reshape/tile.py, `_format_labels`). */
function intervalLabels(edges: readonly number[]): string[] {
  let digits = 3;
  while (digits < 19 && new Set(edges.map((edge) => roundFraction(edge, digits))).size < new Set(edges).size) digits++;
  const breaks = edges.map((edge) => roundFraction(edge, digits));
  // The first interval is open on the left too, so it begins just below the lowest value.
  breaks[0] -= 10 ** -digits;
  return breaks.slice(1).map((high, i) => `(${pythonFloat(breaks[i])}, ${pythonFloat(high)}]`);
}

/** Rounds to `digits` decimals, ties to even; a number below 1 to as many after its leading zeros. */
function roundFraction(value: number, digits: number): number {
  if (value === 0) return value;
  const whole = Math.trunc(value);
  const places = whole === 0 ? -Math.floor(Math.log10(Math.abs(value))) - 1 + digits : digits;
  const scale = 10 ** Math.abs(places);
  return places >= 0 ? roundHalfEven(value * scale) / scale : roundHalfEven(value / scale) * scale;
}

/** A number as Python writes a float: with a decimal point (but without an exponent below .0001). */
function pythonFloat(value: number): string {
  return Number.isInteger(value) ? `${value}.0` : String(value);
}
