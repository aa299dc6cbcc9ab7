import type { Bindable, BufferSource } from '../gpu/gpu.ts';
import { workgroupsFor } from '../gpu/program.ts';
import type { Device } from '../tensor/device.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { columnTile, positionsPerStep } from './columnTile.ts';
import { groupsSums, kernelChoice } from './kernelChoice.ts';
import { naiveColumns, naiveRows } from './naiveProduct.ts';
import { matrixTexels, matrixTexture, padded, type Weights, weightsBuffer, weightsTexture } from './operands.ts';
import { inProductParts } from './productParts.ts';
import { rowTile } from './rowTile.ts';
import { sumPartials } from './splitK.ts';
import { type TileShape, tileColumns, tileFlags, tileRows } from './tile.ts';

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

/** What a row product computes. */
export interface RowShape {
  image: ImageExtent;
  window: Window;
  columns: number;
  places?: TapPlaces;
  target?: Target;
  /** How many of the image's last channels hold only zeros. */
  zeroChannels?: number;
}

/** What a column product computes. */
export interface ColumnShape {
  image: ImageExtent;
  window: Window;
  columns: number;
}

/** What the tile binds, and in what form. */
interface Bound {
  a: Bindable;
  b: Bindable;
  c: BufferSource;
  /**
   * Any buffers that are not written to, in place of the epilogue's tensors that there are none of: vectors of float32, and the residual, like
   * the maps. So whether there are any makes no other program.
   */
  unused: BufferSource;
  unusedMap: BufferSource;
  vecA: boolean;
  vecB: boolean;
  /** See `TileFlags`. */
  steps?: number;
  grouped?: boolean;
  /** Products that lie one after another in a, b and c; 1 by default. */
  batches?: number;
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

/** Everything but the tile: sizes in the units in which A and B are read. */
function commonUniforms(
  { vecA, vecB, batches = 1 }: Bound,
  textures: boolean,
  { image, window, columns }: ColumnShape,
  { rows, rowsB }: { rows: number; rowsB: number },
  epilogue: Epilogue,
) {
  const byVectors = vecA || textures;
  return {
    rows,
    columns: units(columns, vecB),
    columnsB: textures ? padded(columns) / 4 : units(columns, vecB),
    batches,
    batchA: units(image.images * image.height * image.width * image.channels, byVectors),
    batchB: rowsB,
    outHeight: window.outHeight,
    outWidth: window.outWidth,
    height: image.height,
    rowLength: units(image.width * image.channels, byVectors),
    stride: window.stride,
    padTop: window.padTop,
    padLeft: window.padLeft,
    dilation: window.dilation,
    channels: units(image.channels, byVectors),
    scaled: flag(epilogue.scale),
    biased: flag(epilogue.bias),
    hasResidual: flag(epilogue.residual),
    relu: flag(epilogue.relu),
    accumulate: flag(epilogue.accumulate),
  };
}

function boundBuffers({ a, b, c, unused, unusedMap }: Bound, { scale, bias, residual }: Epilogue) {
  return { a, b, c, scale: scale ?? unused, bias: bias ?? unused, residual: residual ?? unusedMap };
}

function runRows(device: Device, tile: TileShape | 'naive', bound: Bound, shape: RowShape, epilogue: Epilogue): void {
  const { image, window, columns } = shape;
  const { batches = 1 } = bound;
  const rows = image.images * window.outHeight * window.outWidth;
  const places = shape.places ?? { first: 0, stepDown: window.tapsAcross, stepAcross: 1 };
  const target = shape.target ?? { height: window.outHeight, width: window.outWidth, step: 1, top: 0, left: 0 };
  // Neighbouring taps of a row are neighbours in the image and in B, so they make one longer run.
  const joined = window.dilation === 1 && places.stepAcross === 1;
  const sizes = { rows, rowsB: window.tapsDown * window.tapsAcross * image.channels };
  const textures = tile !== 'naive' && tile.source === 'texture';
  const uniforms = {
    ...commonUniforms(bound, textures, shape, sizes, epilogue),
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
    targetRows: image.images * target.height * target.width,
  };
  const buffers = boundBuffers(bound, epilogue);
  if (tile === 'naive') {
    const count = batches * rows * columns;
    const tiles = { rowTiles: 0, columnTiles: 0, count };
    device.gpu.dispatch(naiveRows, {
      buffers,
      uniforms: { ...uniforms, ...tiles },
      workgroups: workgroupsFor(count),
      flops: 2 * count * sizes.rowsB,
    });
    return;
  }
  const rowTiles = Math.ceil(rows / tileRows(tile));
  const columnTiles = Math.ceil(columns / tileColumns(tile));
  device.gpu.dispatch(rowTile, {
    flags: tileFlags(tile, bound),
    buffers,
    uniforms: { ...uniforms, rowTiles, columnTiles },
    workgroups: rowTiles * columnTiles * batches,
    flops: 2 * batches * rows * columns * sizes.rowsB,
  });
}

/**
 * out[position, n] = Σ_taps Σ_channels a[pixel of position and tap, channel] · b[tap, channel, n], zero outside the image.
 *
 * @param b which of its taps are used is `places`.
 * @param out [images, outHeight, outWidth, columns], or larger where `target` spreads the positions.
 */
export function rowProduct(a: Tensor, b: Weights, out: Tensor, shape: RowShape, epilogue: Epilogue = {}): void {
  const { residual } = epilogue;
  const { columns } = shape;
  inProductParts({ ...shape, a, positions: out, residual }, { operator: 'product', columns, writes: true }, (part) =>
    rowProductPart(part.a, b, part.positions, { ...shape, ...part }, { ...epilogue, residual: part.residual }),
  );
}

function rowProductPart(a: Tensor, b: Weights, out: Tensor, shape: RowShape, epilogue: Epilogue): void {
  const { image, window, columns } = shape;
  const { device } = a;
  const rows = image.images * window.outHeight * window.outWidth;
  if (rows === 0 || columns === 0) return;
  const depth = window.tapsDown * window.tapsAcross * image.channels;
  const chosen = kernelChoice(device).product({ direction: 'row', rows, columns, depth });
  const common = { c: out, unused: b.tensor, unusedMap: a } as const;
  const tile = sourceThatHolds(device, chosen, image, b);
  const pixels = image.images * image.height * image.width;
  const steps = padded(image.channels) === 4 ? image.channels - (shape.zeroChannels ?? 0) : 4;
  if (tile !== 'naive' && tile.source === 'texture') {
    const channels = padded(image.channels);
    const bound = {
      ...common,
      a: matrixTexture(a, pixels, image.channels),
      b: weightsTexture(b, a.dtype),
      vecA: true,
      vecB: columns % 4 === 0,
      steps,
    };
    runRows(device, tile, bound, { ...shape, image: { ...image, channels } }, epilogue);
  } else {
    const vectors = tile !== 'naive';
    const bound = {
      ...common,
      a,
      b: weightsBuffer(b, a.dtype),
      vecA: vectors && image.channels % 4 === 0,
      vecB: vectors && columns % 4 === 0,
      steps: image.channels === 4 ? steps : 4,
    };
    runRows(device, tile, bound, shape, epilogue);
  }
  device.gpu.derived.settle();
}

/** The same tile, reading buffers where an operand is empty or larger than a texture can be. */
function sourceThatHolds(
  device: Device,
  tile: TileShape | 'naive',
  { images, height, width, channels }: ImageExtent,
  { taps, depth, columns }: Pick<Weights, 'taps' | 'depth' | 'columns'>,
): TileShape | 'naive' {
  if (tile === 'naive' || tile.source === 'buffer') return tile;
  const texels = [matrixTexels(images * height * width, channels), matrixTexels(taps * padded(depth), columns)];
  return texels.every((count) => count > 0 && device.gpu.textureHolds(count)) ? tile : { ...tile, source: 'buffer' };
}

/** A split sums at least so many positions, and the partial sums of all splits take at most so many floats. */
const LEAST_CHUNK = 128;
const MOST_PARTIALS = 1 << 23;

function runColumns(
  device: Device,
  tile: TileShape | 'naive',
  bound: Bound,
  shape: ColumnShape & { splits: number; chunk: number },
  epilogue: Epilogue,
): void {
  const { image, window, columns, splits, chunk } = shape;
  const { batches = 1 } = bound;
  const rows = window.tapsDown * window.tapsAcross * image.channels;
  const positions = image.images * window.outHeight * window.outWidth;
  const step = tile === 'naive' ? 1 : positionsPerStep(tile);
  const textures = tile !== 'naive' && tile.source === 'texture';
  const uniforms = {
    ...commonUniforms(bound, textures, shape, { rows, rowsB: positions }, epilogue),
    positions,
    chunk,
    splits,
    depth: image.channels,
    tapsAcross: window.tapsAcross,
    stepImage: Math.floor(step / (window.outHeight * window.outWidth || 1)),
    stepDown: Math.floor(step / (window.outWidth || 1)) % (window.outHeight || 1),
    stepAcross: step % (window.outWidth || 1),
  };
  const buffers = boundBuffers(bound, epilogue);
  if (tile === 'naive') {
    const count = batches * rows * columns;
    const tiles = { rowTiles: 0, columnTiles: 0, count };
    device.gpu.dispatch(naiveColumns, {
      buffers,
      uniforms: { ...uniforms, ...tiles },
      workgroups: workgroupsFor(count),
      flops: 2 * count * positions,
    });
    return;
  }
  const rowTiles = Math.ceil(rows / tileRows(tile));
  const columnTiles = Math.ceil(columns / tileColumns(tile));
  device.gpu.dispatch(columnTile, {
    flags: tileFlags(tile, bound),
    buffers,
    uniforms: { ...uniforms, rowTiles, columnTiles },
    workgroups: rowTiles * columnTiles * batches * splits,
    flops: 2 * batches * rows * columns * positions,
  });
}

/** How many positions one split sums, so that about as many workgroups run as keep the device busy. */
function splitOf(tile: TileShape | 'naive', rows: number, columns: number, positions: number, mostPartials: number) {
  if (tile === 'naive') return { chunk: positions, splits: 1 };
  const tiles = Math.ceil(rows / tileRows(tile)) * Math.ceil(columns / tileColumns(tile));
  const wanted = Math.min(
    Math.ceil(tile.parallelism / tiles),
    Math.floor(positions / LEAST_CHUNK),
    Math.floor(mostPartials / (rows * columns)),
  );
  const step = positionsPerStep(tile);
  const chunk = Math.ceil(Math.ceil(positions / Math.max(wanted, 1)) / step) * step;
  return { chunk, splits: Math.max(Math.ceil(positions / Math.max(chunk, 1)), 1) };
}

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
  shape: ColumnShape,
  epilogue: Pick<Epilogue, 'scale' | 'accumulate'> = {},
): void {
  const { columns } = shape;
  inProductParts({ ...shape, a, positions: b }, { operator: 'product', columns, writes: false }, (part, first) =>
    columnProductPart(
      part.a,
      part.positions,
      out,
      { ...shape, ...part },
      { ...epilogue, accumulate: epilogue.accumulate || !first },
    ),
  );
}

function columnProductPart(
  a: Tensor,
  b: Tensor,
  out: Tensor,
  shape: ColumnShape,
  epilogue: Pick<Epilogue, 'scale' | 'accumulate'>,
): void {
  const { image, window, columns } = shape;
  const { device } = a;
  const rows = window.tapsDown * window.tapsAcross * image.channels;
  if (rows === 0 || columns === 0) return;
  const positions = image.images * window.outHeight * window.outWidth;
  const chosen = kernelChoice(device).product({ direction: 'column', rows, columns, depth: positions });
  const held = sourceThatHolds(device, chosen, image, { taps: 1, depth: positions, columns });
  // Padding A's channels would give C rows that it does not have.
  const tile = held !== 'naive' && image.channels % 4 !== 0 ? { ...held, source: 'buffer' as const } : held;
  const mostPartials = Math.min(MOST_PARTIALS, device.gpu.bindingLimit / 4);
  const { chunk, splits } = splitOf(tile, rows, columns, positions, mostPartials);
  const partials = splits > 1 ? device.empty([splits, rows, columns]) : out;
  const textures = tile !== 'naive' && tile.source === 'texture';
  const pixels = image.images * image.height * image.width;
  const vectors = tile !== 'naive';
  const bound: Bound = {
    a: textures ? matrixTexture(a, pixels, image.channels) : a,
    b: textures ? matrixTexture(b, positions, columns) : b,
    c: partials,
    unused: a,
    unusedMap: a,
    vecA: vectors && image.channels % 4 === 0,
    vecB: vectors && columns % 4 === 0,
  };
  runColumns(device, tile, bound, { ...shape, chunk, splits }, splits > 1 ? {} : epilogue);
  if (splits > 1) {
    sumPartials(partials, out, { splits, columns }, epilogue);
    partials.dispose();
  }
  device.gpu.derived.settle();
}

/** Planes of a batch: each holds as many matrices of whole vec4, one after another; a and b in the tile's source, c in a buffer. */
interface Planes {
  a: Bindable;
  b: Bindable;
  c: BufferSource;
  /** Any buffer of float32 that is not written to. */
  unused: BufferSource;
}

interface BatchSizes {
  batches: number;
  rows: number;
  /** Length of the sums. */
  depth: number;
  columns: number;
}

/** Planes as a tile binds them, whose extents are multiples of 4. */
function boundPlanes(device: Device, tile: TileShape | 'naive', planes: Planes, batches: number): Bound {
  const vectors = tile !== 'naive';
  return {
    ...planes,
    unusedMap: planes.unused,
    vecA: vectors,
    vecB: vectors,
    batches,
    grouped: groupsSums(device),
  };
}

/** c [batches, rows, columns] = a [batches, rows, depth] · b [batches, depth, columns]; depth and columns are multiples of 4. */
export function batchedRows(
  device: Device,
  tile: TileShape | 'naive',
  planes: Planes,
  { batches, rows, depth, columns }: BatchSizes,
): void {
  const bound = boundPlanes(device, tile, planes, batches);
  runRows(device, tile, bound, { image: matrixExtent(rows, depth), window: matrixWindow(rows), columns }, {});
}

/** c [batches, rows, columns] = aᵀ · b of a [batches, depth, rows] and b [batches, depth, columns]; rows and columns are multiples of 4. */
export function batchedColumns(
  device: Device,
  tile: TileShape | 'naive',
  planes: Planes,
  { batches, rows, depth, columns }: BatchSizes,
  epilogue: Pick<Epilogue, 'accumulate'>,
): void {
  const bound = boundPlanes(device, tile, planes, batches);
  const step = tile === 'naive' ? 1 : positionsPerStep(tile);
  const shape = { image: matrixExtent(depth, rows), window: matrixWindow(depth), columns };
  runColumns(device, tile, bound, { ...shape, splits: 1, chunk: Math.ceil(depth / step) * step }, epilogue);
}
