import { defineOperator, expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { normalizeDim, stridedCopy, stridesOf } from './strided.ts';

/*
 * Moving elements about: every gradient here is the same move backwards.
 */

function permutation(dims: readonly number[], rank: number): number[] {
  const order = dims.map((dim) => normalizeDim('permute', dim, rank));
  if (order.length !== rank || new Set(order).size !== rank) {
    throw new Error(`permute: dims: expected each of ${rank} dimensions once, got [${dims}].`);
  }
  return order;
}

const permuteOperator = defineOperator<{ x: Tensor }, { dims: readonly number[] }>({
  name: 'permute',
  forward({ x }, { dims }) {
    const order = permutation(dims, x.rank);
    const shape = order.map((dim) => x.shape[dim]);
    const y = x.device.empty(shape, x.dtype);
    const strides = stridesOf(x.shape);
    const from = { tensor: x, strides: order.map((dim) => strides[dim]) };
    stridedCopy('permute', shape, from, { tensor: y, strides: stridesOf(shape) });
    return { output: y };
  },
  backward: ({ params, shapes, upstream }) => ({
    x: (into) => {
      const order = permutation(params.dims, shapes.x.length);
      const dx = into ?? upstream.device.empty(shapes.x);
      const strides = stridesOf(shapes.x);
      const from = { tensor: upstream, strides: stridesOf(upstream.shape) };
      const to = { tensor: dx, strides: order.map((dim) => strides[dim]) };
      stridedCopy('permute', upstream.shape, from, to, { accumulate: into !== undefined });
      return dx;
    },
  }),
  examples: [
    { inputs: { x: { shape: [2, 3, 4, 5] } }, params: { dims: [0, 2, 3, 1] } },
    { inputs: { x: { shape: [3, 1, 4] } }, params: { dims: [2, 0, -2] } },
  ],
});

/** The tensor with its dimensions in the order `dims`, copied to be contiguous; any dtype. Source: torch.permute. */
export function permute(x: Tensor, dims: readonly number[]): Tensor {
  return permuteOperator({ x }, { dims });
}

const narrowOperator = defineOperator<{ x: Tensor }, { dim: number; start: number; length: number }>({
  name: 'narrow',
  forward({ x }, { dim, start, length }) {
    const axis = normalizeDim('narrow', dim, x.rank);
    const inside = start >= 0 && length >= 0 && start + length <= x.shape[axis];
    expectShape(inside, 'narrow', 'x', `at least ${start} + ${length} along dimension ${axis}`, x);
    const shape = x.shape.map((extent, index) => (index === axis ? length : extent));
    const y = x.device.empty(shape, x.dtype);
    const strides = stridesOf(x.shape);
    const from = { tensor: x, start: start * strides[axis], strides };
    stridedCopy('narrow', shape, from, { tensor: y, strides: stridesOf(shape) });
    return { output: y };
  },
  backward: ({ params: { dim, start }, shapes, upstream }) => ({
    x: (into) => {
      const axis = normalizeDim('narrow', dim, shapes.x.length);
      const dx = into ?? upstream.device.zeros(shapes.x);
      const strides = stridesOf(shapes.x);
      const from = { tensor: upstream, strides: stridesOf(upstream.shape) };
      const to = { tensor: dx, start: start * strides[axis], strides };
      stridedCopy('narrow', upstream.shape, from, to, { accumulate: into !== undefined });
      return dx;
    },
  }),
  examples: [
    { inputs: { x: { shape: [3, 5, 2] } }, params: { dim: 1, start: 1, length: 3 } },
    { inputs: { x: { shape: [5, 2] } }, params: { dim: 0, start: 3, length: 2 } },
  ],
});

/** `length` entries of dimension `dim` from `start` on, copied to be contiguous; any dtype. Source: torch.narrow. */
export function narrow(x: Tensor, dim: number, start: number, length: number): Tensor {
  return narrowOperator({ x }, { dim, start, length });
}

const catOperator = defineOperator<Record<string, Tensor>, { dim: number }>({
  name: 'cat',
  forward(inputs, { dim }) {
    const tensors = Object.values(inputs);
    const first = tensors[0];
    const axis = normalizeDim('cat', dim, first.rank);
    for (const tensor of tensors) {
      const fits =
        tensor.dtype === first.dtype &&
        tensor.rank === first.rank &&
        tensor.shape.every((extent, index) => index === axis || extent === first.shape[index]);
      expectShape(fits, 'cat', 'tensors', `${first} but for dimension ${axis}`, tensor);
    }
    const extent = tensors.reduce((total, tensor) => total + tensor.shape[axis], 0);
    const shape = first.shape.map((own, index) => (index === axis ? extent : own));
    const y = first.device.empty(shape, first.dtype);
    const strides = stridesOf(shape);
    let start = 0;
    for (const tensor of tensors) {
      const from = { tensor, strides: stridesOf(tensor.shape) };
      stridedCopy('cat', tensor.shape, from, { tensor: y, start: start * strides[axis], strides });
      start += tensor.shape[axis];
    }
    return { output: y };
  },
  backward: ({ params, shapes, upstream }) => {
    const axis = normalizeDim('cat', params.dim, upstream.rank);
    const strides = stridesOf(upstream.shape);
    const thunks: Record<string, (into?: Tensor) => Tensor> = {};
    let next = 0;
    for (const [name, shape] of Object.entries(shapes)) {
      const start = next * strides[axis];
      next += shape[axis];
      thunks[name] = (into) => {
        const dx = into ?? upstream.device.empty(shape);
        const to = { tensor: dx, strides: stridesOf(shape) };
        stridedCopy('cat', shape, { tensor: upstream, start, strides }, to, { accumulate: into !== undefined });
        return dx;
      };
    }
    return thunks;
  },
  examples: [
    { inputs: { a: { shape: [2, 3, 4] }, b: { shape: [2, 5, 4] } }, params: { dim: 1 } },
    { inputs: { a: { shape: [2, 3] }, b: { shape: [1, 3] }, c: { shape: [4, 3] } }, params: { dim: 0 } },
  ],
});

/** Tensors of one dtype joined along `dim`; they agree in every other extent, and may have none along it. Source: torch.cat. */
export function cat(tensors: readonly Tensor[], dim = 0): Tensor {
  if (tensors.length === 0) throw new Error('cat: tensors: expected at least one, got none.');
  return catOperator(Object.fromEntries(tensors.map((tensor, index) => [`t${index}`, tensor])), { dim });
}

export { gatherClass, indexSelect, selectChannel, selectClassBoxes } from './gather.ts';
export { reshape } from './reshape.ts';
