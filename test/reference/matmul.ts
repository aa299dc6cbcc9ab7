import type { Reference } from './index.ts';

/** C[i, j] = Σ_k A[i, k] · B[k, j], with A or B stored transposed. */
export const matmul: Reference = ({ a, b }, { transposeA, transposeB }) => {
  const [m, k] = transposeA ? [a.shape[1], a.shape[0]] : a.shape;
  const n = transposeB ? b.shape[0] : b.shape[1];
  const data = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      for (let l = 0; l < k; l++) {
        data[i * n + j] += a.data[transposeA ? l * m + i : i * k + l] * b.data[transposeB ? j * k + l : l * n + j];
      }
    }
  }
  return { shape: [m, n], data };
};
