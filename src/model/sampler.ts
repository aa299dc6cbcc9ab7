/** Stands for torch.randperm(n): which candidates a sampler takes. The goldens' permutations and a seeded shuffle both fit. */
export type Permutation = (n: number) => Int32Array;

/** Indices of the sampled rows, ascending. */
export interface Sampled {
  positive: Int32Array;
  negative: Int32Array;
}

/**
 * torchvision's BalancedPositiveNegativeSampler for one image (`torchvision/models/detection/_utils.py`): of the rows labelled
 * ≥ 1 at most `batchSize · positiveFraction`, the rest of `batchSize` from the rows labelled 0; rows below 0 are ignored.
 * The permutation is asked for the positives first, then for the negatives, and its first entries are taken.
 */
export function samplePositiveNegative(
  labels: Int32Array,
  batchSize: number,
  positiveFraction: number,
  permutation: Permutation,
): Sampled {
  const positives: number[] = [];
  const negatives: number[] = [];
  labels.forEach((label, index) => {
    if (label >= 1) positives.push(index);
    else if (label === 0) negatives.push(index);
  });
  const positiveCount = Math.min(positives.length, Math.trunc(batchSize * positiveFraction));
  const negativeCount = Math.min(negatives.length, batchSize - positiveCount);
  const pick = (from: readonly number[], count: number): Int32Array => {
    const order = permutation(from.length);
    return Int32Array.from(order.subarray(0, count), (k) => from[k]).sort();
  };
  return { positive: pick(positives, positiveCount), negative: pick(negatives, negativeCount) };
}
