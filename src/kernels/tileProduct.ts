import type { Tensor } from '../tensor/tensor.ts';
import { sumPartials } from './splitK.ts';
import { columnTile, positionsPerStep, rowTile, tileColumns, tileFlags, tileRows, tileShape } from './tile.ts';

/** The image that A is: [images, height, width, channels]. A matrix [M, K] is { images: 1, height: 1, width: M, channels: K }. */
export interface ImageExtent {
  images: number;
  height: number;
  width: number;
  channels: number;
}

/** How a window moves over the image. Output position (y, x) meets pixel (y · stride + tap · dilation - pad). */
export interface Window {
  /** Positions per image. */
  outHeight: number;
  outWidth: number;
  stride: number;
  padTop: number;
  padLeft: number;
  dilation: number;
  tapsDown: number;
  tapsAcross: number;
}

/** out = relu?(sum · scale? + bias? + residual?), added to what `out` holds if `accumulate`. */
export interface Epilogue {
  /** [columns] each. */
  scale?: Tensor;
  bias?: Tensor;
  /** Like `out`. */
  residual?: Tensor;
  relu?: boolean;
  accumulate?: boolean;
}

/** Where taps lie in B, in taps of `channels` rows each. The default is a kernel of exactly this window, row-major. */
export interface TapPlaces {
  first: number;
  stepDown: number;
  stepAcross: number;
}

/** Output positions of which a product computes every `step`-th down and across, from (top, left), in images of height × width. */
export interface Target {
  height: number;
  width: number;
  step: number;
  top: number;
  left: number;
}

/** The window that makes a plain matrix product of an image of height 1. */
export function matrixWindow(rows: number): Window {
  return { outHeight: 1, outWidth: rows, stride: 1, padTop: 0, padLeft: 0, dilation: 1, tapsDown: 1, tapsAcross: 1 };
}

export function matrixExtent(rows: number, columns: number): ImageExtent {
  return { images: 1, height: 1, width: rows, channels: columns };
}

const flag = (condition: unknown): number => (condition ? 1 : 0);
const units = (count: number, vector: boolean): number => (vector ? count / 4 : count);

function commonUniforms(
  image: ImageExtent,
  window: Window,
  rows: number,
  columns: number,
  vecA: boolean,
  vecB: boolean,
  epilogue: Epilogue,
) {
  return {
    rows,
    columns: units(columns, vecB),
    outHeight: window.outHeight,
    outWidth: window.outWidth,
    height: image.height,
    rowLength: units(image.width * image.channels, vecA),
    stride: window.stride,
    padTop: window.padTop,
    padLeft: window.padLeft,
    dilation: window.dilation,
    channels: units(image.channels, vecA),
    scaled: flag(epilogue.scale),
    biased: flag(epilogue.bias),
    hasResidual: flag(epilogue.residual),
    relu: flag(epilogue.relu),
    accumulate: flag(epilogue.accumulate),
  };
}

/**
 * out[position, n] = Σ_taps Σ_channels a[pixel of position and tap, channel] · b[tap, channel, n], zero outside the image.
 *
 * @param b [taps, channels, columns]; which of its taps are used is `places`.
 * @param out [images, outHeight, outWidth, columns], or larger where `target` spreads the positions.
 */
export function rowProduct(
  a: Tensor,
  b: Tensor,
  out: Tensor,
  shape: { image: ImageExtent; window: Window; columns: number; places?: TapPlaces; target?: Target },
  epilogue: Epilogue = {},
): void {
  const { image, window, columns } = shape;
  const rows = image.images * window.outHeight * window.outWidth;
  if (rows === 0 || columns === 0) return;
  const tile = tileShape(a.device, columns);
  const vecA = image.channels % 4 === 0;
  const vecB = columns % 4 === 0;
  const places = shape.places ?? { first: 0, stepDown: window.tapsAcross, stepAcross: 1 };
  const target = shape.target ?? { height: window.outHeight, width: window.outWidth, step: 1, top: 0, left: 0 };
  // Neighbouring taps of a row are neighbours in the image and in B, so they make one longer run.
  const joined = window.dilation === 1 && places.stepAcross === 1;
  const rowTiles = Math.ceil(rows / tileRows(tile));
  const columnTiles = Math.ceil(columns / tileColumns(tile));
  a.device.gpu.dispatch(rowTile, {
    flags: tileFlags(tile, vecA, vecB),
    // Tensors that the epilogue lacks are never used; B stands in for their bindings.
    buffers: { a, b, scale: epilogue.scale ?? b, bias: epilogue.bias ?? b, residual: epilogue.residual ?? b, c: out },
    uniforms: {
      ...commonUniforms(image, window, rows, columns, vecA, vecB, epilogue),
      rowTiles,
      columnTiles,
      tapsDown: window.tapsDown,
      tapsAcross: joined ? Math.min(window.tapsAcross, 1) : window.tapsAcross,
      run: joined ? window.tapsAcross * image.channels : image.channels,
      firstTap: places.first * image.channels,
      tapStepDown: places.stepDown * image.channels,
      tapStepAcross: places.stepAcross * image.channels,
      targetHeight: target.height,
      targetWidth: target.width,
      targetStep: target.step,
      targetTop: target.top,
      targetLeft: target.left,
    },
    workgroups: rowTiles * columnTiles,
  });
}

/** A split sums at least so many positions, and the partial sums of all splits take at most so many floats. */
const LEAST_CHUNK = 128;
const MOST_PARTIALS = 1 << 23;

/**
 * out[tap, channel, n] = Σ_positions a[pixel of position and tap, channel] · b[position, n]: Aᵀ·B of matrices, and the gradient of a
 * convolution by its weight. Long sums are split into partial sums, which a second pass adds in their order.
 *
 * @param b [images, outHeight, outWidth, columns]
 * @param out [tapsDown, tapsAcross, channels, columns]
 */
export function columnProduct(
  a: Tensor,
  b: Tensor,
  out: Tensor,
  shape: { image: ImageExtent; window: Window; columns: number },
  epilogue: Pick<Epilogue, 'scale' | 'accumulate'> = {},
): void {
  const { image, window, columns } = shape;
  const { device } = a;
  const rows = window.tapsDown * window.tapsAcross * image.channels;
  if (rows === 0 || columns === 0) return;
  const positions = image.images * window.outHeight * window.outWidth;
  const tile = tileShape(device, columns);
  const vecA = image.channels % 4 === 0;
  const vecB = columns % 4 === 0;
  const rowTiles = Math.ceil(rows / tileRows(tile));
  const columnTiles = Math.ceil(columns / tileColumns(tile));
  const wanted = Math.min(
    Math.ceil(tile.parallelism / (rowTiles * columnTiles)),
    Math.floor(positions / LEAST_CHUNK),
    Math.floor(MOST_PARTIALS / (rows * columns)),
  );
  const step = positionsPerStep(tile);
  const chunk = Math.ceil(Math.ceil(positions / Math.max(wanted, 1)) / step) * step;
  const splits = Math.max(Math.ceil(positions / Math.max(chunk, 1)), 1);
  const partials = splits > 1 ? device.empty([splits, rows, columns]) : out;
  const direct: Epilogue = splits > 1 ? {} : epilogue;
  device.gpu.dispatch(columnTile, {
    flags: tileFlags(tile, vecA, vecB),
    buffers: { a, b, scale: direct.scale ?? b, bias: b, residual: b, c: partials },
    uniforms: {
      ...commonUniforms(image, window, rows, columns, vecA, vecB, direct),
      rowTiles,
      columnTiles,
      positions,
      chunk,
      splits,
      depth: image.channels,
      tapsAcross: window.tapsAcross,
      stepImage: Math.floor(step / (window.outHeight * window.outWidth || 1)),
      stepDown: Math.floor(step / (window.outWidth || 1)) % (window.outHeight || 1),
      stepAcross: step % (window.outWidth || 1),
    },
    workgroups: rowTiles * columnTiles * splits,
  });
  if (splits > 1) {
    sumPartials(partials, out, { splits, columns }, epilogue);
    partials.dispose();
  }
}
