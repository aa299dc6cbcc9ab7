import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { inParts } from '../tensor/parts.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type ChannelFlags, channelGroups, floatsOf } from './channels.ts';

/*
 * Sums in two passes without atomics, so that the order of additions is fixed: first each split (or chunk of rows) by itself, then
 * out[i] = scale[i mod columns]? · Σ_s partials[s, i], added to what out holds if asked.
 */
const sumProgram = defineProgram({
  name: 'sumPartials',
  uniforms: { count: 'u32', splits: 'u32', columns: 'u32', scaled: 'u32', accumulate: 'u32' },
  bindings: { partials: 'read', scale: 'read', out: 'write' },
  code: () =>
    perElement(`
    var sum = 0.0;
    for (var s = 0u; s < u.splits; s++) { sum += partials[s * u.count + i]; }
    if (u.scaled == 1u) { sum *= scale[i % u.columns]; }
    if (u.accumulate == 1u) { sum += out[i]; }
    out[i] = sum;`),
});

/** out[…, columns] = Σ over splits of partials[splits, …, columns], times scale[columns], in the order of the splits. */
export function sumPartials(
  partials: Tensor,
  out: Tensor,
  shape: { splits: number; columns: number },
  { scale, accumulate = false }: { scale?: Tensor; accumulate?: boolean } = {},
): void {
  out.device.gpu.dispatch(sumProgram, {
    buffers: { partials, scale: scale ?? partials, out },
    uniforms: {
      count: out.size,
      splits: shape.splits,
      columns: shape.columns,
      scaled: scale ? 1 : 0,
      accumulate: accumulate ? 1 : 0,
    },
    workgroups: workgroupsFor(out.size),
  });
}

/**
 * `sum`, a lane's sum over its share of the rows of one group of columns, for programs with the uniforms groups, rows and rowsPerShare.
 * @param add the statements that add the value at `at`
 */
export function sumOfShare(type: string, add: string): string {
  return `
    let first = i / u.groups * u.rowsPerShare;
    let end = min(first + u.rowsPerShare, u.rows);
    var at = first * u.groups + i % u.groups;
    var sum = ${type}();
    for (var row = first; row < end; row++) {
      ${add}
      at += u.groups;
    }`;
}

const columnSumProgram = defineProgram({
  name: 'columnSum',
  uniforms: { count: 'u32', groups: 'u32', rows: 'u32', rowsPerShare: 'u32', accumulate: 'u32' },
  bindings: (flags: ChannelFlags) => ({ x: ['read', floatsOf(flags)], out: ['write', floatsOf(flags)] }),
  code: (flags) =>
    perElement(`${sumOfShare(floatsOf(flags), 'sum += x[at];')}
    if (u.accumulate == 1u) { sum += out[i]; }
    out[i] = sum;`),
});

/** Rows that one lane adds by itself: few enough to keep rounding and idle lanes low. With so few in all there is no second pass. */
const ROWS_PER_SHARE = 64;
const ROWS_AT_ONCE = 256;
/** Shares that the second pass adds. */
const MOST_SHARES = 256;

/** How the rows of a sum over rows are dealt out. */
export function sharesOfRows(rows: number): { rowsPerShare: number; shares: number } {
  const rowsPerShare =
    rows <= ROWS_AT_ONCE ? Math.max(rows, 1) : Math.max(ROWS_PER_SHARE, Math.ceil(rows / MOST_SHARES));
  return { rowsPerShare, shares: Math.max(Math.ceil(rows / rowsPerShare), 1) };
}

/**
 * The gradient of a bias: the sum of `x` [rows, columns] over its rows, in a fixed order.
 *
 * A pass of its own, which takes 6 % of the time of the weight gradient's kernel on lavapipe and 1 to 4 % on SwiftShader (1×1 convolutions to 12 to
 * 256 channels at 64×88 to 8×11). That kernel reads every element of `x` too, but what it took to sum there in shares as short as these was 4 to
 * 9 % and 6 %; in sums as long as its own 2 % and 1 %, at the price of their rounding.
 * @param into receives the sum by addition; without it a new tensor [columns] is made.
 */
export function columnSum(x: Tensor, rows: number, columns: number, into?: Tensor): Tensor {
  const { device } = x;
  const result = into ?? device.empty([columns]);
  const { flags, groups } = channelGroups(columns);
  const { shares, rowsPerShare } = sharesOfRows(rows);
  const out = shares > 1 ? device.empty([shares, columns]) : result;
  const accumulate = into !== undefined;
  const perUnit = { x: rowsPerShare * columns };
  const options = { operator: 'the gradient of a bias', units: shares, perUnit, writes: ['out'] };
  inParts({ x, out }, options, (parts, { first, count }) =>
    device.gpu.dispatch(columnSumProgram, {
      flags,
      buffers: parts,
      uniforms: {
        count: count * groups,
        groups,
        rows: rows - first * rowsPerShare,
        rowsPerShare,
        accumulate: accumulate && shares === 1 ? 1 : 0,
      },
      workgroups: workgroupsFor(count * groups),
    }),
  );
  if (shares > 1) {
    sumPartials(out, result, { splits: shares, columns }, { accumulate });
    out.dispose();
  }
  return result;
}
