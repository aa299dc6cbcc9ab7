import type { Reference, RefTensor } from './index.ts';

/** A tensor of a shape whose element at each multi-index is given by a function. */
function build(shape: number[], value: (index: number[]) => number): RefTensor {
  const data = new Float64Array(shape.reduce((a, b) => a * b, 1));
  const index = shape.map(() => 0);
  for (let i = 0; i < data.length; i++) {
    data[i] = value(index);
    for (let dim = shape.length - 1; dim >= 0; dim--) {
      index[dim]++;
      if (index[dim] < shape[dim]) break;
      index[dim] = 0;
    }
  }
  return { shape, data };
}

function get(x: RefTensor, index: number[]): number {
  return x.data[index.reduce((offset, coordinate, dim) => offset * x.shape[dim] + coordinate, 0)];
}

const replaced = (list: number[], at: number, value: number): number[] =>
  list.map((old, i) => (i === at ? value : old));

export const reshape: Reference = ({ x }, params) => ({ shape: [...(params.shape as number[])], data: x.data.slice() });

export const permute: Reference = ({ x }, params) => {
  const rank = x.shape.length;
  const dims = (params.dims as number[]).map((dim) => (dim + rank) % rank);
  return build(
    dims.map((dim) => x.shape[dim]),
    (index) => {
      const source = new Array<number>(rank).fill(0);
      dims.forEach((dim, at) => {
        source[dim] = index[at];
      });
      return get(x, source);
    },
  );
};

export const narrow: Reference = ({ x }, params) => {
  const { dim, start, length } = params as { dim: number; start: number; length: number };
  const axis = (dim + x.shape.length) % x.shape.length;
  return build(replaced(x.shape, axis, length), (index) => get(x, replaced(index, axis, index[axis] + start)));
};

export const cat: Reference = (inputs, params) => {
  const parts = Object.values(inputs);
  const axis = ((params.dim as number) + parts[0].shape.length) % parts[0].shape.length;
  const extent = parts.reduce((total, part) => total + part.shape[axis], 0);
  return build(replaced(parts[0].shape, axis, extent), (index) => {
    let along = index[axis];
    const part = parts.find((candidate) => {
      if (along < candidate.shape[axis]) return true;
      along -= candidate.shape[axis];
      return false;
    }) as RefTensor;
    return get(part, replaced(index, axis, along));
  });
};

export const indexSelect: Reference = ({ x, index: chosen }, params) => {
  const axis = ((params.dim as number) + x.shape.length) % x.shape.length;
  return build(replaced(x.shape, axis, chosen.data.length), (index) => {
    const row = chosen.data[index[axis]];
    return row < 0 || row >= x.shape[axis] ? 0 : get(x, replaced(index, axis, row));
  });
};

export const gatherClass: Reference = ({ x, labels }) => {
  const [n, positions, classes, depth] = x.shape;
  return build([n, positions, depth], ([row, position, d]) => {
    const label = labels.data[row];
    return label < 0 || label >= classes ? 0 : get(x, [row, position, label, d]);
  });
};
