import type { Reference, RefTensor } from './index.ts';

/** Walks the input once and adds each element to the bucket of its kept coordinates. */
function reduction(x: RefTensor, params: Record<string, unknown>, average: boolean): RefTensor {
  const rank = x.shape.length;
  const given = params.dim as number | number[] | undefined;
  const dims = new Set((given === undefined ? x.shape.map((_, i) => i) : [given].flat()).map((d) => (d + rank) % rank));
  const shape: number[] = [];
  x.shape.forEach((extent, dim) => {
    if (!dims.has(dim)) shape.push(extent);
    else if (params.keepdim) shape.push(1);
  });
  const data = new Float64Array(shape.reduce((a, b) => a * b, 1));
  const terms = [...dims].reduce((product, dim) => product * x.shape[dim], 1);
  for (let i = 0; i < x.data.length; i++) {
    let rest = i;
    let bucket = 0;
    let step = 1;
    for (let dim = rank - 1; dim >= 0; dim--) {
      const coordinate = rest % x.shape[dim];
      rest = (rest - coordinate) / x.shape[dim];
      if (!dims.has(dim)) {
        bucket += coordinate * step;
        step *= x.shape[dim];
      }
    }
    data[bucket] += average ? x.data[i] / terms : x.data[i];
  }
  return { shape, data };
}

export const sum: Reference = ({ x }, params) => reduction(x, params, false);
export const mean: Reference = ({ x }, params) => reduction(x, params, true);
