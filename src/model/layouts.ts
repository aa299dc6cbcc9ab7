import { sizeOf } from '../tensor/tensor.ts';

/**
 * How an entry of torchvision's state_dict lies on the device:
 * - `plain`: as it is (vectors);
 * - `conv`: Conv2d, torch [out, in, kh, kw] → device [kh, kw, in, out];
 * - `convTranspose`: ConvTranspose2d, torch [in, out, kh, kw] → device [kh, kw, in, out];
 * - `linear`: torch [out, in] → device [in, out];
 * - `linearOverMaps`: a linear layer over flattened feature maps, torch [out, c·h·w] → device [h·w·c, out], because our maps
 *   are flattened with channels last; `maps` gives c, h, w.
 */
export type Layout =
  | { kind: 'plain' | 'conv' | 'convTranspose' | 'linear' }
  | { kind: 'linearOverMaps'; maps: readonly [number, number, number] };

/** The torch array as a 4-d block and which torch axis each device axis is. */
function axes(shape: readonly number[], layout: Layout): { block: readonly number[]; order: readonly number[] } {
  switch (layout.kind) {
    case 'plain':
      return { block: shape, order: shape.map((_, axis) => axis) };
    case 'conv':
      return { block: shape, order: [2, 3, 1, 0] };
    case 'convTranspose':
      return { block: shape, order: [2, 3, 0, 1] };
    case 'linear':
      return { block: shape, order: [1, 0] };
    case 'linearOverMaps':
      return { block: [shape[0], ...layout.maps], order: [2, 3, 1, 0] };
  }
}

/** An array of `shape` with its axes in the order `order`: output axis k is input axis order[k]. */
export function permuted(data: Float32Array, shape: readonly number[], order: readonly number[]): Float32Array {
  const strides = shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));
  const outShape = order.map((axis) => shape[axis]);
  const outStrides = order.map((axis) => strides[axis]);
  const out = new Float32Array(data.length);
  const rank = outShape.length;
  const index = new Array<number>(rank).fill(0);
  let from = 0;
  for (let to = 0; to < out.length; to++) {
    out[to] = data[from];
    for (let axis = rank - 1; axis >= 0; axis--) {
      index[axis]++;
      from += outStrides[axis];
      if (index[axis] < outShape[axis]) break;
      from -= outStrides[axis] * outShape[axis];
      index[axis] = 0;
    }
  }
  return out;
}

/** Shape on the device of an entry whose torch shape is `shape`. */
export function deviceShape(shape: readonly number[], layout: Layout): number[] {
  const { block, order } = axes(shape, layout);
  const permutedShape = order.map((axis) => block[axis]);
  return layout.kind === 'linearOverMaps' ? [sizeOf(layout.maps), shape[0]] : permutedShape;
}

/** Values in torch's order → the device's order. */
export function toDeviceLayout(data: Float32Array, shape: readonly number[], layout: Layout): Float32Array {
  if (layout.kind === 'plain') return data;
  const { block, order } = axes(shape, layout);
  return permuted(data, block, order);
}

/** Values in the device's order → torch's order. */
export function toTorchLayout(data: Float32Array, shape: readonly number[], layout: Layout): Float32Array {
  if (layout.kind === 'plain') return data;
  const { block, order } = axes(shape, layout);
  const inverse = order.map((_, axis) => order.indexOf(axis));
  return permuted(
    data,
    order.map((axis) => block[axis]),
    inverse,
  );
}
