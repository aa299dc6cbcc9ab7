import { defineOperator, expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { packTransposed } from './packWeights.ts';
import { columnProduct, type Epilogue, matrixExtent, matrixWindow, rowProduct } from './tileProduct.ts';

/*
 * C = A·B. With A stored [K, M] the sum runs down its columns (the column tile); a transposed B is packed first, which costs far less than
 * its strided loads would. The gradients are products again: of C = A·B, dA = dC·Bᵀ and dB = Aᵀ·dC.
 */

interface MatmulOptions {
  transposeA?: boolean;
  transposeB?: boolean;
}

/**
 * The bare product, for operators built on it: op(a) · op(b) with an epilogue, written to `out` (or a new tensor).
 * With transposeA only `scale` and `accumulate` of the epilogue are to be had, and the new tensor is float32 whatever a is: a gradient of weights.
 */
export function matrixProduct(
  a: Tensor,
  b: Tensor,
  { transposeA, transposeB }: MatmulOptions = {},
  out?: Tensor,
  epilogue: Epilogue = {},
): Tensor {
  const [m, k] = transposeA ? [a.shape[1], a.shape[0]] : a.shape;
  const n = b.shape[transposeB ? 0 : 1];
  const c = out ?? a.device.empty([m, n], transposeA ? 'f32' : a.dtype);
  if (!transposeA) {
    const weights = { tensor: b, taps: 1, depth: k, columns: n, ...(transposeB && { transposed: {} }) };
    rowProduct(a, weights, c, { image: matrixExtent(m, k), window: matrixWindow(m), columns: n }, epilogue);
    return c;
  }
  const shape = { image: matrixExtent(k, m), window: matrixWindow(k), columns: n };
  if (!transposeB) {
    columnProduct(a, b, c, shape, epilogue);
    return c;
  }
  const transposed = a.device.empty([k, n]);
  packTransposed(b, transposed, { taps: 1, rows: n, columns: k });
  columnProduct(a, transposed, c, shape, epilogue);
  transposed.dispose();
  return c;
}

const operator = defineOperator<{ a: Tensor; b: Tensor }, { transposeA?: boolean; transposeB?: boolean }>({
  name: 'matmul',
  forward({ a, b }, params, needs) {
    expectShape(a.rank === 2, 'matmul', 'a', 'a matrix', a);
    expectShape(b.rank === 2, 'matmul', 'b', 'a matrix', b);
    const k = a.shape[params.transposeA ? 0 : 1];
    const holds = b.shape[params.transposeB ? 1 : 0] === k;
    expectShape(holds, 'matmul', 'b', params.transposeB ? `[N, ${k}]` : `[${k}, N]`, b);
    const output = matrixProduct(a, b, params);
    return { output, saved: { a: needs.b ? a : undefined, b: needs.a ? b : undefined } };
  },
  backward({ params: { transposeA = false, transposeB = false }, saved: { a, b }, upstream }) {
    const product = (left: Tensor, right: Tensor, options: MatmulOptions, into?: Tensor) =>
      matrixProduct(left, right, options, into, { accumulate: into !== undefined });
    return {
      a: (into) =>
        transposeA
          ? product(b, upstream, { transposeA: transposeB, transposeB: true }, into)
          : product(upstream, b, { transposeB: !transposeB }, into),
      b: (into) =>
        transposeB
          ? product(upstream, a, { transposeA: true, transposeB: transposeA }, into)
          : product(a, upstream, { transposeA: !transposeA }, into),
    };
  },
  examples: [
    { inputs: { a: { shape: [5, 8] }, b: { shape: [8, 12] } }, params: {} },
    { inputs: { a: { shape: [7, 3] }, b: { shape: [7, 5] } }, params: { transposeA: true } },
    { inputs: { a: { shape: [4, 6] }, b: { shape: [9, 6] } }, params: { transposeB: true } },
    { inputs: { a: { shape: [4, 6] }, b: { shape: [5, 4] } }, params: { transposeA: true, transposeB: true } },
  ],
});

/**
 * The product of two matrices, each transposed first if asked.
 * @param a [M, K] ([K, M] with transposeA)
 * @param b [K, N] ([N, K] with transposeB)
 * @returns [M, N]
 */
export function matmul(a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor {
  return operator({ a, b }, { ...options });
}
