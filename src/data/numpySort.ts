/** Ranges of at most this many places more than one are sorted by insertion (NumPy's SMALL_QUICKSORT). */
const SMALL = 15;

/**
 * NumPy's `argsort(kind='quicksort')`: introsort, exchange for exchange as its portable code
 * (numpy/_core/src/npysort/quicksort.cpp, `aquicksort_`): quicksort around the median of three, the larger part put on a stack,
 * insertion sort of short ranges, heapsort once the recursion is deeper than twice the logarithm of the length.
 *
 * It is not stable: where equal values end is decided by every exchange on the way, hence the copy of an algorithm. NumPy from
 * 1.25 on sorts with AVX-512 (from 2.0 also AVX2) on processors that have it and then orders equal values otherwise; the
 * portable code is what the notebook's scores of 2021 were made with, and what every NumPy runs under
 * `NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX512_ICL AVX512_SPR"`.
 *
 * @param values numbers, none NaN
 * @returns the indices of `values` by rising value
 */
export function numpyArgsort(values: ArrayLike<number>): Int32Array {
  const order = Int32Array.from({ length: values.length }, (_, i) => i);
  const swap = (a: number, b: number): void => {
    const kept = order[a];
    order[a] = order[b];
    order[b] = kept;
  };
  const waiting: { from: number; to: number; depth: number }[] = [];
  let from = 0;
  let to = values.length - 1;
  let depth = 2 * Math.floor(Math.log2(Math.max(1, values.length)));
  while (true) {
    // NumPy looks at the depth once a range comes from the stack, and then sorts what is left of it whatever happens.
    if (depth < 0) {
      heapsort(values, order.subarray(from, to + 1));
    } else {
      while (to - from > SMALL) {
        const middle = from + ((to - from) >> 1);
        if (values[order[middle]] < values[order[from]]) swap(middle, from);
        if (values[order[to]] < values[order[middle]]) swap(to, middle);
        if (values[order[middle]] < values[order[from]]) swap(middle, from);
        const pivot = values[order[middle]];
        let low = from;
        let high = to - 1;
        swap(middle, high);
        while (true) {
          do low++;
          while (values[order[low]] < pivot);
          do high--;
          while (pivot < values[order[high]]);
          if (low >= high) break;
          swap(low, high);
        }
        swap(low, to - 1);
        depth--;
        if (low - from < to - low) {
          waiting.push({ from: low + 1, to, depth });
          to = low - 1;
        } else {
          waiting.push({ from, to: low - 1, depth });
          from = low + 1;
        }
      }
      insertionSort(values, order, from, to);
    }
    const next = waiting.pop();
    if (next === undefined) return order;
    ({ from, to, depth } = next);
  }
}

function insertionSort(values: ArrayLike<number>, order: Int32Array, from: number, to: number): void {
  for (let i = from + 1; i <= to; i++) {
    const index = order[i];
    const value = values[index];
    let at = i;
    while (at > from && value < values[order[at - 1]]) {
      order[at] = order[at - 1];
      at--;
    }
    order[at] = index;
  }
}

/** NumPy's `aheapsort_`. @param order a range of indices, sorted in place */
function heapsort(values: ArrayLike<number>, order: Int32Array): void {
  // Nodes are counted from 1: the children of i are 2i and 2i + 1.
  const sift = (index: number, from: number, count: number): void => {
    let at = from;
    let child = 2 * at;
    while (child <= count) {
      if (child < count && values[order[child - 1]] < values[order[child]]) child++;
      if (!(values[index] < values[order[child - 1]])) break;
      order[at - 1] = order[child - 1];
      at = child;
      child = 2 * at;
    }
    order[at - 1] = index;
  };
  for (let node = order.length >> 1; node > 0; node--) sift(order[node - 1], node, order.length);
  for (let count = order.length - 1; count > 0; count--) {
    const index = order[count];
    order[count] = order[0];
    sift(index, 1, count);
  }
}

/**
 * The order of rows that pandas' `sort_values(column, ascending=…)` gives with its default, unstable `kind='quicksort'`
 * (`nargsort`: for a falling order it sorts the column read backwards and reverses the result).
 *
 * @param values the column; numbers, none NaN
 * @returns positions of the rows in their new order
 */
export function sortValuesOrder(values: ArrayLike<number>, ascending = true): Int32Array {
  if (ascending) return numpyArgsort(values);
  const last = values.length - 1;
  const backwards = Float64Array.from(values).reverse();
  return numpyArgsort(backwards)
    .map((index) => last - index)
    .reverse();
}
