/** The indices of the k largest values, largest first, equal values in index order. */
export function topIndices(values: ArrayLike<number>, k: number): number[] {
  const indices = Array.from({ length: values.length }, (_, i) => i);
  // `===` and `>` hold -0 and +0 for equal; Array.sort is stable.
  indices.sort((a, b) => (values[a] === values[b] ? 0 : values[a] > values[b] ? -1 : 1));
  return indices.slice(0, k);
}
