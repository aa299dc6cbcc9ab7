import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { inParts } from '../tensor/parts.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type ChannelFlags, channelGroups, floatsOf } from './channels.ts';
import { columnSum, sharesOfRows, sumOfShare, sumPartials } from './splitK.ts';

/*
 * The gradient behind a fused ReLU: g = dy · [y > 0]. Computed once, then shared by all gradients of an operator. Memory of tensors ends
 * at multiples of 16 bytes, so the last vec4 may hold something that nobody reads.
 */
const program = defineProgram({
  name: 'maskedUpstream',
  uniforms: { count: 'u32' },
  bindings: { y: ['read', 'vec4f'], dy: ['read', 'vec4f'], g: ['write', 'vec4f'] },
  elementwise: ['y', 'dy', 'g'],
  code: () => perElement('g[i] = select(vec4f(), dy[i], y[i] > vec4f());'),
});

/** The same, with the sums of shares of the rows. */
const sumsProgram = defineProgram({
  name: 'maskedUpstreamSums',
  uniforms: { count: 'u32', groups: 'u32', rows: 'u32', rowsPerShare: 'u32' },
  bindings: (flags: ChannelFlags) => ({
    y: ['read', floatsOf(flags)],
    dy: ['read', floatsOf(flags)],
    g: ['write', floatsOf(flags)],
    partials: ['write', floatsOf(flags)],
  }),
  code: (flags) =>
    perElement(`${sumOfShare(
      floatsOf(flags),
      `let value = select(${floatsOf(flags)}(), dy[at], y[at] > ${floatsOf(flags)}());
      g[at] = value;
      sum += value;`,
    )}
    partials[i] = sum;`),
});

/** The gradient of an operator relu?(… + bias) before its ReLU and bias. */
export interface BiasedUpstream {
  /** Like the output; a new tensor of the current scope behind a ReLU, else the upstream gradient itself. */
  g: Tensor;
  /** Σ g over rows [columns], added to `into` if given. */
  bias: (into?: Tensor) => Tensor;
}

/**
 * What the gradients of relu?(… + bias) begin with.
 * @param upstream the output's gradient [..., columns]
 * @param y the output, if it has a ReLU
 * @param needsBias whether `bias` will be called: then one pass masks and sums
 */
export function biasedUpstream(
  upstream: Tensor,
  y: Tensor | undefined,
  columns: number,
  needsBias: boolean,
): BiasedUpstream {
  const { device, size } = upstream;
  const rows = size / columns;
  if (!y) return { g: upstream, bias: (into) => columnSum(upstream, rows, columns, into) };
  const g = device.empty(upstream.shape, upstream.dtype);
  if (!needsBias || size === 0) {
    const count = Math.ceil(size / 4);
    device.gpu.dispatch(program, {
      buffers: { y, dy: upstream, g },
      uniforms: { count },
      workgroups: workgroupsFor(count),
    });
    return { g, bias: (into) => columnSum(g, rows, columns, into) };
  }
  const { flags, groups } = channelGroups(columns);
  const { shares, rowsPerShare } = sharesOfRows(rows);
  const partials = device.empty([shares, columns]);
  const share = rowsPerShare * columns;
  const perUnit = { y: share, dy: share, g: share };
  const options = { operator: 'the gradient behind a ReLU', units: shares, perUnit, writes: ['g', 'partials'] };
  inParts({ y, dy: upstream, g, partials }, options, (parts, { first, count }) =>
    device.gpu.dispatch(sumsProgram, {
      flags,
      buffers: parts,
      uniforms: { count: count * groups, groups, rows: rows - first * rowsPerShare, rowsPerShare },
      workgroups: workgroupsFor(count * groups),
    }),
  );
  return {
    g,
    bias: (into) => {
      const out = into ?? device.empty([columns]);
      sumPartials(partials, out, { splits: shares, columns }, { accumulate: into !== undefined });
      return out;
    },
  };
}
