import type { Reference } from './index.ts';

/** y[i, j] = relu?(b[j] + Σ_k x[i, k] · w[k, j]) */
export const linear: Reference = ({ x, weight, bias }, { relu }) => {
  const [rows, depth] = x.shape;
  const columns = weight.shape[1];
  const data = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      let sum = bias ? bias.data[j] : 0;
      for (let k = 0; k < depth; k++) sum += x.data[i * depth + k] * weight.data[k * columns + j];
      data[i * columns + j] = relu ? Math.max(sum, 0) : sum;
    }
  }
  return { shape: [rows, columns], data };
};
