import type { Reference } from './index.ts';

/** Value of a broadcast operand at a multi-index of the output: missing leading dimensions and extents of 1 repeat. */
function at(shape: number[], data: Float64Array, index: number[]): number {
  let offset = 0;
  shape.forEach((extent, dim) => {
    const coordinate = index[index.length - shape.length + dim];
    offset = offset * extent + (extent === 1 ? 0 : coordinate);
  });
  return data[offset];
}

function elementwise(f: (a: number, b: number) => number): Reference {
  return ({ a, b }) => {
    const rank = Math.max(a.shape.length, b.shape.length);
    const extent = (shape: number[], dim: number): number => shape[shape.length - rank + dim] ?? 1;
    const shape: number[] = [];
    for (let dim = 0; dim < rank; dim++) {
      shape.push(extent(a.shape, dim) === 1 ? extent(b.shape, dim) : extent(a.shape, dim));
    }
    const values: number[] = [];
    const visit = (index: number[]): void => {
      if (index.length === rank) values.push(f(at(a.shape, a.data, index), at(b.shape, b.data, index)));
      else for (let i = 0; i < shape[index.length]; i++) visit([...index, i]);
    };
    visit([]);
    return { shape, data: Float64Array.from(values) };
  };
}

export const add = elementwise((a, b) => a + b);
export const sub = elementwise((a, b) => a - b);
export const mul = elementwise((a, b) => a * b);
export const div = elementwise((a, b) => a / b);
