import type { SampleOrder } from '../../src/kernels/sampler.ts';

/** murmur3's fmix32. */
function fmix32(value: number): number {
  let x = value >>> 0;
  x ^= x >>> 16;
  x = Math.imul(x, 0x85ebca6b);
  x ^= x >>> 13;
  x = Math.imul(x, 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** What stands for torch.randperm(n) in an order: the argsort of the keys. `stream` tells sets, and positives from negatives. */
export function permutationOf(order: SampleOrder, n: number, stream = 0): Int32Array {
  const start =
    order.kind === 'random'
      ? fmix32(order.seed + Math.imul(stream, 0x9e3779b9))
      : order.kind === 'hashed'
        ? order.start
        : 0;
  const key = (rank: number): number => {
    if (order.kind === 'identity') return rank;
    if (order.kind === 'reversed') return n - rank;
    return fmix32(start + Math.imul(rank, 0x9e3779b9));
  };
  const keys = Float64Array.from({ length: n }, (_, rank) => key(rank));
  return Int32Array.from({ length: n }, (_, rank) => rank).sort((a, b) => keys[a] - keys[b]);
}

/**
 * torchvision's BalancedPositiveNegativeSampler for one set: of the rows of match ≥ 0 the first of one permutation, then of those
 * of match -1 the first of another; rows ascending.
 */
export function samplePositiveNegative(
  matches: ArrayLike<number>,
  batchSize: number,
  positiveFraction: number,
  order: SampleOrder,
  set = 0,
): number[] {
  const rows = Array.from(matches, (_, row) => row);
  const positives = rows.filter((row) => matches[row] >= 0);
  const negatives = rows.filter((row) => matches[row] === -1);
  const positiveCount = Math.min(positives.length, Math.trunc(batchSize * positiveFraction));
  const negativeCount = Math.min(negatives.length, batchSize - positiveCount);
  const pick = (from: number[], count: number, stream: number): number[] =>
    [...permutationOf(order, from.length, stream).subarray(0, count)].map((k) => from[k]);
  const taken = [...pick(positives, positiveCount, set * 2), ...pick(negatives, negativeCount, set * 2 + 1)];
  return taken.sort((a, b) => a - b);
}
