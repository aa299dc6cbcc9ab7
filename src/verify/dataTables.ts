/** The splits and descriptions of a data case. */
import { UserError } from '../cli/errors.ts';
import { trainTestSplit } from '../data/split.ts';
import { DESCRIPTION_ROWS, describe, quantileEdges } from '../data/statistics.ts';
import type { DataGolden } from './golden.ts';
import { compareExactly, compareValues, failedRow, type Row } from './rows.ts';

/** Relative: last bits of means and quantiles differ between versions of NumPy. */
const DESCRIBE_TOLERANCE = 1e-12;

/** scikit-learn's stratified split, order included. */
export function splitRows({ values: { split, splitTypes } }: DataGolden): Row[] {
  return split.flatMap(({ testSize, randomState, train, test }, i) => {
    const own = trainTestSplit(splitTypes, testSize, randomState);
    const stage = 'split';
    return [
      compareExactly(own.train, train, { name: `split.${i}.train`, stage }),
      compareExactly(own.test, test, { name: `split.${i}.test`, stage }),
    ];
  });
}

/** pandas' describe and quantile edges of each type. */
export function describeRows({ values }: DataGolden): Row[] {
  const { counts, byType, qcut5Edges } = values.describe;
  const types = values.splitTypes;
  if (counts.length !== types.length) {
    throw new UserError(`describe.counts holds ${counts.length} values, but splitTypes ${types.length}.`);
  }
  const columns = new Map<string, number[]>();
  types.forEach((type, i) => {
    columns.set(type, [...(columns.get(type) ?? []), counts[i]]);
  });
  const stage = 'describe';
  const rows = [
    compareExactly([...columns.keys()].sort(), Object.keys(byType).sort(), { name: 'describe.byType', stage }),
    compareExactly([...columns.keys()].sort(), Object.keys(qcut5Edges).sort(), { name: 'describe.qcut5Edges', stage }),
  ];
  const tolerance = DESCRIBE_TOLERANCE;
  for (const [type, expected] of Object.entries(byType)) {
    const column = columns.get(type);
    const comparison = { name: `describe.byType.${type}`, stage, tolerance };
    if (column === undefined) {
      rows.push(failedRow(comparison, 'no image of this type'));
      continue;
    }
    const own = describe(column);
    rows.push(
      compareValues(
        DESCRIPTION_ROWS.map((row) => own[row]),
        DESCRIPTION_ROWS.map((row) => expected[row]),
        comparison,
      ),
    );
  }
  for (const [type, expected] of Object.entries(qcut5Edges)) {
    const comparison = { name: `describe.qcut5Edges.${type}`, stage, tolerance };
    const column = columns.get(type);
    rows.push(
      column === undefined
        ? failedRow(comparison, 'no image of this type')
        : compareValues(quantileEdges(column, expected.length - 1), expected, comparison),
    );
  }
  return rows;
}
