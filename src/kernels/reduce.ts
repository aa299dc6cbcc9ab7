import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { defineOperator } from '../tensor/operator.ts';
import { type DType, sizeOf, type Tensor } from '../tensor/tensor.ts';
import { normalizeDim, stridedCopy, stridesOf } from './strided.ts';

/*
 * y[k] = scale · Σ_r x[k, r]. The shape is merged into at most six alternating groups of kept and summed dimensions. One
 * invocation sums one output's share: the largest summed group is dealt out to `segments` shares in turn (share s takes
 * elements s, s + segments, …, so neighbouring invocations read neighbouring floats), the partial sums are summed again
 * the same way. The order of additions depends on the shape alone.
 */
const program = defineProgram({
  name: 'reduceSum',
  uniforms: {
    count: 'u32',
    outputs: 'u32',
    segments: 'u32',
    segmentFastest: 'u32',
    keep1: 'u32',
    keep2: 'u32',
    keepStride0: 'u32',
    keepStride1: 'u32',
    keepStride2: 'u32',
    sum0: 'u32',
    sum1: 'u32',
    sum2: 'u32',
    sumStride0: 'u32',
    sumStride1: 'u32',
    sumStride2: 'u32',
    scale: 'f32',
    accumulate: 'u32',
  },
  bindings: { x: 'read', y: 'write' },
  code: () =>
    perElement(`
    let k = select(i % u.outputs, i / u.segments, u.segmentFastest == 1u);
    let segment = select(i / u.outputs, i % u.segments, u.segmentFastest == 1u);
    let start = (k % u.keep2) * u.keepStride2 + (k / u.keep2 % u.keep1) * u.keepStride1 + k / u.keep2 / u.keep1 * u.keepStride0;
    var total = 0.0;
    for (var r0 = 0u; r0 < u.sum0; r0++) {
      for (var r1 = 0u; r1 < u.sum1; r1++) {
        let row = start + r0 * u.sumStride0 + r1 * u.sumStride1;
        for (var r2 = segment; r2 < u.sum2; r2 += u.segments) { total += x[row + r2 * u.sumStride2]; }
      }
    }
    total *= u.scale;
    if (u.accumulate == 1u) { total += y[i]; }
    y[i] = total;`),
});

const SHARE = 256;
/** With so many outputs there is work for every lane without splitting. */
const PLENTY = 65536;

interface Group {
  extent: number;
  stride: number;
  summed: boolean;
}

function groupsOf(shape: readonly number[], summed: readonly boolean[]): Group[] {
  const strides = stridesOf(shape);
  const groups: Group[] = [];
  shape.forEach((extent, dim) => {
    if (extent === 1) return;
    const last = groups.at(-1);
    if (last && last.summed === summed[dim])
      groups[groups.length - 1] = { ...last, extent: last.extent * extent, stride: strides[dim] };
    else groups.push({ extent, stride: strides[dim], summed: summed[dim] });
  });
  return groups;
}

/**
 * Sums `x` over the dimensions marked in `summed`, times `scale`, into a new tensor of `outShape` (and of x's type, partial sums are float32), or adds to `into`. Not
 * recorded: for operators and their gradients. A sum over no elements is 0.
 */
export function reduceSum(
  x: Tensor,
  summed: readonly boolean[],
  outShape: readonly number[],
  { scale = 1, into, dtype = x.dtype }: { scale?: number; into?: Tensor; dtype?: DType } = {},
): Tensor {
  const { device } = x;
  const groups = groupsOf(x.shape, summed);
  const keep = groups.filter((group) => !group.summed);
  // The largest group is dealt out, so it stands in the innermost loop.
  const sum = groups.filter((group) => group.summed).sort((a, b) => a.extent - b.extent);
  if (keep.length > 3 || sum.length > 3) {
    throw new Error(
      `sum: at most six alternating groups of kept and summed dimensions are supported, got ${groups.length} in ${x}.`,
    );
  }
  while (keep.length < 3) keep.unshift({ extent: 1, stride: 0, summed: false });
  while (sum.length < 3) sum.unshift({ extent: 1, stride: 0, summed: true });
  const outputs = sizeOf(keep.map((group) => group.extent));
  const terms = sizeOf(sum.map((group) => group.extent));
  const segments = terms > 2 * SHARE && outputs < PLENTY ? Math.ceil(sum[2].extent / SHARE) : 1;
  const segmentFastest = sum[2].stride < keep[2].stride || outputs === 1;
  const last = segments === 1;
  const y = last
    ? (into ?? device.empty(outShape, dtype))
    : device.empty(segmentFastest ? [outputs, segments] : [segments, outputs]);
  device.gpu.dispatch(program, {
    buffers: { x, y },
    uniforms: {
      count: outputs * segments,
      outputs,
      segments,
      segmentFastest: segmentFastest ? 1 : 0,
      keep1: keep[1].extent,
      keep2: keep[2].extent,
      keepStride0: keep[0].stride,
      keepStride1: keep[1].stride,
      keepStride2: keep[2].stride,
      sum0: sum[0].extent,
      sum1: sum[1].extent,
      sum2: sum[2].extent,
      sumStride0: sum[0].stride,
      sumStride1: sum[1].stride,
      sumStride2: sum[2].stride,
      scale: last ? scale : 1,
      accumulate: last && into ? 1 : 0,
    },
    workgroups: workgroupsFor(outputs * segments),
  });
  if (last) return y;
  const total = reduceSum(y, segmentFastest ? [false, true] : [true, false], outShape, { scale, into, dtype });
  y.dispose();
  return total;
}

/** Sums a tensor of a broadcast shape back to `shape` (of rank no higher), times `scale`; adds to `into` if given. */
export function reduceToShape(
  x: Tensor,
  shape: readonly number[],
  options: { scale?: number; into?: Tensor } = {},
): Tensor {
  const lead = x.rank - shape.length;
  const summed = x.shape.map((_, dim) => dim < lead || shape[dim - lead] === 1);
  return reduceSum(x, summed, shape, options);
}

type ReduceParams = { dim?: number | readonly number[]; keepdim?: boolean };

function resolve(operator: string, shape: readonly number[], { dim, keepdim = false }: ReduceParams) {
  const listed = dim === undefined ? shape.map((_, index) => index) : typeof dim === 'number' ? [dim] : dim;
  const dims = listed.map((index) => normalizeDim(operator, index, shape.length));
  if (new Set(dims).size < dims.length)
    throw new Error(`${operator}: dim: expected distinct dimensions, got [${listed}].`);
  const summed = shape.map((_, index) => dims.includes(index));
  const outShape = shape.flatMap((extent, index) => (summed[index] ? (keepdim ? [1] : []) : [extent]));
  const terms = sizeOf(shape.filter((_, index) => summed[index]));
  return { summed, outShape, terms };
}

function defineReduction(name: 'sum' | 'mean') {
  const scaleOf = (terms: number): number => (name === 'mean' && terms > 0 ? 1 / terms : 1);
  return defineOperator<{ x: Tensor }, ReduceParams>({
    name,
    forward({ x }, params) {
      const { summed, outShape, terms } = resolve(name, x.shape, params);
      return { output: reduceSum(x, summed, outShape, { scale: scaleOf(terms) }) };
    },
    backward: ({ params, shapes, upstream }) => ({
      x: (into) => {
        const { summed, terms } = resolve(name, shapes.x, params);
        const dx = into ?? upstream.device.empty(shapes.x);
        const upstreamStrides = stridesOf(shapes.x.map((extent, dim) => (summed[dim] ? 1 : extent)));
        const strides = upstreamStrides.map((stride, dim) => (summed[dim] ? 0 : stride));
        const from = { tensor: upstream, strides };
        const to = { tensor: dx, strides: stridesOf(shapes.x) };
        stridedCopy(name, shapes.x, from, to, { scale: scaleOf(terms), accumulate: into !== undefined });
        return dx;
      },
    }),
    examples: [
      { inputs: { x: { shape: [3, 4, 5] } }, params: {} },
      { inputs: { x: { shape: [3, 4, 5] } }, params: { dim: [0, 2] } },
      { inputs: { x: { shape: [2, 3, 2, 3, 2] } }, params: { dim: [1, -2], keepdim: true } },
      { inputs: { x: { shape: [2, 600, 3] } }, params: { dim: 1 } },
    ],
  });
}

const sumOperator = defineReduction('sum');
const meanOperator = defineReduction('mean');

/**
 * Sum over the dimensions `dim` (one, several, negative from the end; all by default), which disappear or, with `keepdim`,
 * stay as 1. The sum of nothing is 0. Source: torch.sum. The order of additions is fixed.
 */
export function sum(x: Tensor, params: ReduceParams = {}): Tensor {
  return sumOperator({ x }, params);
}

/** Mean over the dimensions `dim`, as `sum`. The mean of nothing is 0 (torch: NaN). Source: torch.mean. */
export function mean(x: Tensor, params: ReduceParams = {}): Tensor {
  return meanOperator({ x }, params);
}
