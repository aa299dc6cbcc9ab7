/** Matching by definition, from a full quality matrix [truths][n]; torch compares float32 with the rounded thresholds. */
export function match(
  quality: readonly ArrayLike<number>[],
  n: number,
  params: { highThreshold: number; lowThreshold: number; allowLowQualityMatches: boolean },
): number[] {
  const high = Math.fround(params.highThreshold);
  const low = Math.fround(params.lowThreshold);
  const bestOfTruth = quality.map((row) => Array.from(row).reduce((best, q) => Math.max(best, q), -Infinity));
  return Array.from({ length: n }, (_, box) => {
    if (quality.length === 0) return -1;
    const column = quality.map((row) => row[box]);
    const best = Math.max(...column);
    const truth = column.indexOf(best);
    if (params.allowLowQualityMatches && column.some((q, g) => q === bestOfTruth[g])) return truth;
    if (best >= high) return truth;
    return best >= low ? -2 : -1;
  });
}
