/** Values on the host, row-major; integers (labels, indices, masks) as Int32Array. */
export interface HostTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array;
}

/** One comparison with a golden tensor, or with a value of a data case. */
export interface Row {
  /** The golden tensor's name in its file; an operator case's `12.out` with the operator behind it; a data case's `boxAP.0.computeMAP.mAP`. */
  readonly name: string;
  /** What passing rows are counted under: an operator, or a part of the model's path. */
  readonly stage: string;
  /** Largest difference, by default relative to the largest expected value; infinite (in JSON null) where nothing can be compared. */
  readonly error: number;
  readonly tolerance: number;
  readonly ok: boolean;
  /** Where the largest difference is, or why there is nothing to compare; only of rows that do not hold. */
  readonly note?: string;
}

/** What is compared, how, and under which name. */
export interface Comparison {
  name: string;
  stage: string;
  /** Bound of the error; 0 asks for equality. */
  tolerance: number;
  /** What differences are divided by: by default the largest absolute expected value; 1 for differences in a unit of their own. */
  scale?: number;
}

/** The largest absolute value; 0 of nothing. */
export function largestAbsolute(values: ArrayLike<number>): number {
  let largest = 0;
  for (let i = 0; i < values.length; i++) largest = Math.max(largest, Math.abs(values[i]));
  return largest;
}

/** A row that fails because there is nothing to compare. */
export function failedRow({ name, stage, tolerance }: Comparison, note: string): Row {
  return { name, stage, error: Number.POSITIVE_INFINITY, tolerance, ok: false, note };
}

/** The row of one difference that was measured elsewhere; `note` is kept if it does not hold. */
export function measuredRow({ name, stage, tolerance }: Comparison, error: number, note?: string): Row {
  const ok = error <= tolerance;
  return { name, stage, error, tolerance, ok, ...(ok || note === undefined ? {} : { note }) };
}

/**
 * Compares values of one length. A difference from an expectation of all zeros is infinite, and so is a value that is not a
 * number where a number is expected.
 */
export function compareValues(actual: ArrayLike<number>, expected: ArrayLike<number>, comparison: Comparison): Row {
  if (actual.length !== expected.length)
    return failedRow(comparison, `${actual.length} values, expected ${expected.length}`);
  const scale = comparison.scale ?? largestAbsolute(expected);
  let worst = 0;
  let at = -1;
  for (let i = 0; i < expected.length; i++) {
    if (Object.is(actual[i], expected[i])) continue;
    const off = Math.abs(actual[i] - expected[i]);
    // Written so that a comparison with NaN counts as the worst.
    if (off <= worst) continue;
    worst = Number.isNaN(off) ? Number.POSITIVE_INFINITY : off;
    at = i;
  }
  const error = worst === 0 ? 0 : worst / scale;
  return measuredRow(comparison, error, at < 0 ? undefined : `at ${at}: ${actual[at]}, expected ${expected[at]}`);
}

/** The same by the Euclidean length of all differences, relative to that of what is expected. */
export function compareLengths(actual: ArrayLike<number>, expected: ArrayLike<number>, comparison: Comparison): Row {
  if (actual.length !== expected.length)
    return failedRow(comparison, `${actual.length} values, expected ${expected.length}`);
  let differences = 0;
  let squares = 0;
  for (let i = 0; i < expected.length; i++) {
    differences += (actual[i] - expected[i]) ** 2;
    squares += expected[i] ** 2;
  }
  const error = differences === 0 ? 0 : Math.sqrt(differences / squares);
  return measuredRow(comparison, Number.isNaN(error) ? Number.POSITIVE_INFINITY : error, 'in Euclidean length');
}

/** Compares texts or whole numbers, none of which may differ; the error is the number of those that do. */
export function compareExactly(
  actual: ArrayLike<string | number>,
  expected: ArrayLike<string | number>,
  { name, stage }: Omit<Comparison, 'tolerance'>,
): Row {
  const comparison = { name, stage, tolerance: 0 };
  if (actual.length !== expected.length)
    return failedRow(comparison, `${actual.length} values, expected ${expected.length}`);
  let differing = 0;
  let note: string | undefined;
  for (let i = 0; i < expected.length; i++) {
    if (actual[i] === expected[i]) continue;
    differing++;
    note ??= `at ${i}: ${shorten(actual[i])}, expected ${shorten(expected[i])}`;
  }
  return measuredRow(comparison, differing, note);
}

/** A value for a note; of a long text its beginning. */
function shorten(value: string | number): string {
  if (typeof value === 'number') return String(value);
  return JSON.stringify(value.length > 40 ? `${value.slice(0, 39)}…` : value);
}

/** Compares shapes, then values. A scalar, [] here, is stored by the goldens as [1]. */
export function compareTensors(actual: HostTensor, expected: HostTensor, comparison: Comparison): Row {
  const scalar = actual.shape.length === 0 && expected.shape.length === 1;
  const shape = scalar ? [1] : actual.shape;
  if (shape.length !== expected.shape.length || shape.some((extent, axis) => extent !== expected.shape[axis]))
    return failedRow(comparison, `shape [${actual.shape}], expected [${expected.shape}]`);
  return compareValues(actual.data, expected.data, comparison);
}
