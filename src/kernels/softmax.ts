import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { defineOperator } from '../tensor/operator.ts';
import { sizeOf, type Tensor } from '../tensor/tensor.ts';
import { normalizeDim } from './strided.ts';

/*
 * y_c = e^(x_c - m) / Σ_k e^(x_k - m) with m = max_k x_k, along one dimension. dx_c = y_c · (dy_c - Σ_k dy_k y_k).
 * One invocation walks one row: rows here are a few classes long and there are many of them.
 */
const ROW = `
    let row = i / u.inner * u.classes * u.inner + i % u.inner;`;

const forwardProgram = defineProgram({
  name: 'softmax',
  uniforms: { count: 'u32', classes: 'u32', inner: 'u32' },
  bindings: { x: 'read', y: 'write' },
  code: () =>
    perElement(`${ROW}
    var largest = x[row];
    for (var c = 1u; c < u.classes; c++) { largest = max(largest, x[row + c * u.inner]); }
    var total = 0.0;
    for (var c = 0u; c < u.classes; c++) {
      let weight = exp(x[row + c * u.inner] - largest);
      y[row + c * u.inner] = weight;
      total += weight;
    }
    for (var c = 0u; c < u.classes; c++) { y[row + c * u.inner] /= total; }`),
});

const backwardProgram = defineProgram({
  name: 'softmaxBackward',
  uniforms: { count: 'u32', classes: 'u32', inner: 'u32', accumulate: 'u32' },
  bindings: { y: 'read', dy: 'read', dx: 'write' },
  code: () =>
    perElement(`${ROW}
    var dot = 0.0;
    for (var c = 0u; c < u.classes; c++) { dot += y[row + c * u.inner] * dy[row + c * u.inner]; }
    for (var c = 0u; c < u.classes; c++) {
      let at = row + c * u.inner;
      dx[at] = select(0.0, dx[at], u.accumulate == 1u) + y[at] * (dy[at] - dot);
    }`),
});

function rowsOf(shape: readonly number[], dim: number) {
  const axis = normalizeDim('softmax', dim, shape.length);
  const inner = sizeOf(shape.slice(axis + 1));
  return { count: shape[axis] === 0 ? 0 : sizeOf(shape) / shape[axis], classes: shape[axis], inner };
}

const operator = defineOperator<{ x: Tensor }, { dim: number }>({
  name: 'softmax',
  forward({ x }, { dim }) {
    const rows = rowsOf(x.shape, dim);
    const y = x.device.empty(x.shape);
    x.device.gpu.dispatch(forwardProgram, {
      buffers: { x, y },
      uniforms: rows,
      workgroups: workgroupsFor(rows.count),
    });
    return { output: y, saved: { y } };
  },
  backward: ({ params, saved: { y }, upstream }) => ({
    x: (into) => {
      const rows = rowsOf(y.shape, params.dim);
      const dx = into ?? y.device.empty(y.shape);
      y.device.gpu.dispatch(backwardProgram, {
        buffers: { y, dy: upstream, dx },
        uniforms: { ...rows, accumulate: into ? 1 : 0 },
        workgroups: workgroupsFor(rows.count),
      });
      return dx;
    },
  }),
  examples: [
    { inputs: { x: { shape: [7, 5], range: [-3, 3] } }, params: { dim: -1 } },
    { inputs: { x: { shape: [2, 4, 3], range: [-3, 3] } }, params: { dim: 1 } },
  ],
});

/**
 * e^x normalised to sum 1 along `dim` (the last by default); same shape. The largest value of each row is subtracted
 * first, so large logits do not overflow. Source: torch.nn.functional.softmax.
 */
export function softmax(x: Tensor, dim = -1): Tensor {
  return operator({ x }, { dim });
}
