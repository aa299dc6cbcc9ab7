import type { Reference } from './index.ts';

/** y_c = 1 / Σ_k e^(x_k - x_c), the definition divided through by e^(x_c). */
export const softmax: Reference = ({ x }, params) => {
  const rank = x.shape.length;
  const dim = ((params.dim as number) + rank) % rank;
  const classes = x.shape[dim];
  const step = x.shape.slice(dim + 1).reduce((a, b) => a * b, 1);
  const data = x.data.map((value, i) => {
    const c = Math.floor(i / step) % classes;
    let total = 0;
    for (let k = 0; k < classes; k++) total += Math.exp(x.data[i + (k - c) * step] - value);
    return 1 / total;
  });
  return { shape: x.shape, data };
};
