import { sizeOf } from '../tensor/tensor.ts';

/**
 * How an entry of torchvision's state_dict lies on the device:
 * - `plain`: as it is (vectors);
 * - `conv`: Conv2d, torch [out, in, kh, kw] → device [kh, kw, in, out];
 * - `stem`: the first Conv2d, whose three input channels are four on the device, the last of them 0;
 * - `convTranspose`: ConvTranspose2d, torch [in, out, kh, kw] → device [kh, kw, in, out];
 * - `linear`: torch [out, in] → device [in, out];
 * - `linearOverMaps`: a linear layer over flattened feature maps, torch [out, c·h·w] → device [h·w·c, out], because our maps
 *   are flattened with channels last; `maps` gives c, h, w.
 */
export type Layout =
  | { kind: 'plain' | 'conv' | 'stem' | 'convTranspose' | 'linear' }
  | { kind: 'linearOverMaps'; maps: readonly [number, number, number] };

/** Channels of the image batch: red, green, blue and one that is 0. */
export const STEM_CHANNELS = 4;

/** The torch array as a 4-d block and which torch axis each device axis is. */
function axes(shape: readonly number[], layout: Layout): { block: readonly number[]; order: readonly number[] } {
  switch (layout.kind) {
    case 'plain':
      return { block: shape, order: shape.map((_, axis) => axis) };
    case 'conv':
    case 'stem':
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
  if (layout.kind === 'stem') permutedShape[2] = STEM_CHANNELS;
  return layout.kind === 'linearOverMaps' ? [sizeOf(layout.maps), shape[0]] : permutedShape;
}

/** Values in torch's order → the device's order. */
export function toDeviceLayout(data: Float32Array, shape: readonly number[], layout: Layout): Float32Array {
  if (layout.kind === 'plain') return data;
  const { block, order } = axes(shape, layout);
  const values = permuted(data, block, order);
  if (layout.kind !== 'stem') return values;
  const rows = shape[1] * shape[0];
  const padded = new Float32Array(sizeOf(deviceShape(shape, layout)));
  for (let tap = 0; tap * rows < values.length; tap++) {
    padded.set(values.subarray(tap * rows, (tap + 1) * rows), tap * STEM_CHANNELS * shape[0]);
  }
  return padded;
}

/** Values in the device's order → torch's order. */
export function toTorchLayout(data: Float32Array, shape: readonly number[], layout: Layout): Float32Array {
  if (layout.kind === 'plain') return data;
  const { block, order } = axes(shape, layout);
  const inverse = order.map((_, axis) => order.indexOf(axis));
  return permuted(
    layout.kind === 'stem' ? withoutPadding(data, shape) : data,
    order.map((axis) => block[axis]),
    inverse,
  );
}

/** The stem's weight without its fourth input channel: [taps, 4, out] → [taps, in, out]. */
function withoutPadding(data: Float32Array, [out, channels]: readonly number[]): Float32Array {
  const taps = data.length / (STEM_CHANNELS * out);
  const values = new Float32Array(taps * channels * out);
  for (let tap = 0; tap < taps; tap++) {
    const start = tap * STEM_CHANNELS * out;
    values.set(data.subarray(start, start + channels * out), tap * channels * out);
  }
  return values;
}
