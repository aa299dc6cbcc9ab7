import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { inParts } from '../tensor/parts.ts';
import type { Tensor } from '../tensor/tensor.ts';

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

const columnSumProgram = defineProgram({
  name: 'columnSum',
  uniforms: { count: 'u32', rows: 'u32', columns: 'u32', chunk: 'u32' },
  bindings: { x: 'read', partials: 'write' },
  code: () =>
    perElement(`
    let column = i % u.columns;
    let first = i / u.columns * u.chunk;
    let end = min(first + u.chunk, u.rows);
    var sum = 0.0;
    for (var row = first; row < end; row++) { sum += x[row * u.columns + column]; }
    partials[i] = sum;`),
});

/** Rows that one lane adds by itself: enough to make the second pass small, few enough to keep rounding and idle lanes low. */
const ROWS_PER_CHUNK = 256;

/**
 * The gradient of a bias: the sum of `x` [rows, columns] over its rows, in a fixed order.
 * @param into receives the sum by addition; without it a new tensor [columns] is made.
 */
export function columnSum(x: Tensor, rows: number, columns: number, into?: Tensor): Tensor {
  const { device } = x;
  const out = into ?? device.empty([columns]);
  const splits = Math.ceil(rows / ROWS_PER_CHUNK);
  const partials = device.empty([splits, columns]);
  const perUnit = { x: ROWS_PER_CHUNK * columns };
  const options = { operator: 'the gradient of a bias', units: splits, perUnit, writes: ['partials'] };
  inParts({ x, partials }, options, (parts, { first, count }) =>
    device.gpu.dispatch(columnSumProgram, {
      buffers: parts,
      uniforms: { count: count * columns, rows: rows - first * ROWS_PER_CHUNK, columns, chunk: ROWS_PER_CHUNK },
      workgroups: workgroupsFor(count * columns),
    }),
  );
  sumPartials(partials, out, { splits, columns }, { accumulate: into !== undefined });
  partials.dispose();
  return out;
}
