import type { PooledBuffer, PooledTexture } from '../gpu/pool.ts';
import { workgroupsFor } from '../gpu/program.ts';
import type { Device } from '../tensor/device.ts';
import { inParts } from '../tensor/parts.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { kernelChoice } from './kernelChoice.ts';
import { matrixTexels, matrixTexture, type Weights } from './operands.ts';
import { batchedColumns, batchedRows, type Epilogue } from './tileProduct.ts';
import {
  PLANES,
  TILE,
  winogradInput,
  winogradOutput,
  winogradUpstream,
  winogradWeightGradient,
  winogradWeights,
} from './winogradPrograms.ts';

/*
 * Convolutions of 3 × 3 kernels with stride 1, padding 1 and dilation 1 by Winograd's F(4×4, 3×3), see `winogradPrograms.ts`: a quarter of the
 * multiplications, at the price of transforms and of rounding (some 2e-6 of the largest value, twice that of a plain sum).
 *   forward          y = Aᵀ [Σ_ci V(x) · U(w)] A: 36 products [tiles, Ci] · [Ci, Co]
 *   input gradient   the same of g with the kernels turned round and their channels swapped
 *   weight gradient  dw = Gᵀ [Σ_tiles V(x)ᵀ · (A g Aᵀ)] G: 36 products [Ci, tiles] · [tiles, Co], the transpose of the forward map
 * Of maps of float16 the planes are float32 all the same, since the transforms multiply rounding; weights are transformed from float32.
 * Many tiles are computed in chunks, which bounds the memory that planes take.
 */
type Planes = PooledBuffer | PooledTexture;

/** What the planes of one side of a chunk may take. */
const CHUNK_BYTES = 64 * 1024 * 1024;

/** Sizes of a pair of maps, x [images, height, width, Ci] and y [images, height, width, Co], cut into tiles. */
interface Tiling {
  images: number;
  height: number;
  width: number;
  tilesDown: number;
  tilesAcross: number;
  tiles: number;
}

function tilingOf({ shape: [images, height, width] }: Tensor): Tiling {
  const [tilesDown, tilesAcross] = [Math.ceil(height / TILE), Math.ceil(width / TILE)];
  return { images, height, width, tilesDown, tilesAcross, tiles: images * tilesDown * tilesAcross };
}

function* chunksOf(tiles: number, channels: number, bytes: number): Generator<{ firstTile: number; tiles: number }> {
  const most = Math.max(1, Math.floor(bytes / (PLANES * channels * 4)));
  const size = Math.ceil(tiles / Math.ceil(tiles / most));
  for (let firstTile = 0; firstTile < tiles; firstTile += size) {
    yield { firstTile, tiles: Math.min(size, tiles - firstTile) };
  }
}

type Source = 'buffer' | 'texture';

/** Planes of so many floats as the tile reads them, written by `fill` to a buffer. */
function filled({ gpu }: Device, source: Source, floats: number, fill: (planes: PooledBuffer) => void): Planes {
  const buffer = gpu.pool.acquire(floats * 4, 'winograd');
  fill(buffer);
  if (source === 'buffer') return buffer;
  const texture = gpu.textures.acquire(floats * 4, 'winograd');
  gpu.copyToTexture(buffer, texture, floats / 4);
  gpu.giveBack(buffer);
  return texture;
}

/** A map as the transforms read it. */
function mapSource(x: Tensor, source: Source) {
  const [images, height, width, channels] = x.shape;
  return source === 'texture' ? matrixTexture(x, images * height * width, channels) : x;
}

function tileUniforms(tiling: Tiling, chunk: { firstTile: number; tiles: number }, channels: number) {
  const { tilesDown, tilesAcross, height, width } = tiling;
  const vectors = channels / 4;
  const count = chunk.tiles * vectors;
  return { count, firstTile: chunk.firstTile, tilesDown, tilesAcross, height, width, vectors, planes: PLANES };
}

function transformTiles(
  program: typeof winogradInput | typeof winogradUpstream,
  x: Tensor,
  source: Source,
  tiling: Tiling,
  chunk: { firstTile: number; tiles: number },
): Planes {
  const { device } = x;
  const channels = x.shape[3];
  const count = (chunk.tiles * channels) / 4;
  return filled(device, source, PLANES * chunk.tiles * channels, (planes) =>
    device.gpu.dispatch(program, {
      flags: { source },
      buffers: { x: mapSource(x, source), planes },
      uniforms: tileUniforms(tiling, chunk, channels),
      workgroups: workgroupsFor(count),
    }),
  );
}

/** U of weights [9, depth, columns], kept until the weights are written to. */
function weightPlanes({ tensor, depth, columns, transposed }: Weights, source: Source): Planes {
  const { device } = tensor;
  const { flip = false, scale } = transposed ?? {};
  const kind = `winograd ${[source, depth, columns, transposed !== undefined, flip]}`;
  const count = (depth * columns) / 4;
  return device.gpu.derived.get(scale ? [tensor.buffer, scale.buffer] : [tensor.buffer], kind, () =>
    filled(device, source, PLANES * depth * columns, (planes) =>
      device.gpu.dispatch(winogradWeights, {
        buffers: { weight: tensor, scale: scale ?? tensor, planes },
        uniforms: {
          count,
          vectors: columns / 4,
          planes: PLANES,
          tapStride: depth * columns,
          strideK: transposed ? 1 : columns,
          strideN: transposed ? depth : 1,
          flip: flip ? 1 : 0,
          scaled: scale ? 1 : 0,
        },
        workgroups: workgroupsFor(count),
      }),
    ),
  );
}

/** Whether channels are whole vectors, textures, where tiles read them, hold the maps, and one binding holds an image and the planes. */
export function winogradCan(x: Tensor, y: Tensor): boolean {
  if ([x, y].some(({ size, shape }) => size === 0 || shape[3] % 4 !== 0)) return false;
  const { bindingLimit } = x.device.gpu;
  const planes = PLANES * 4 * Math.max(x.shape[3] * y.shape[3], x.shape[3], y.shape[3]);
  if (planes > bindingLimit || [x, y].some(({ bytes, shape }) => bytes / shape[0] > bindingLimit)) return false;
  const texels = [x, y].map(({ size, shape }) => matrixTexels(size / shape[3], shape[3]));
  return texels.every((count) => x.device.gpu.textureHolds(count));
}

function productTile(device: Device, direction: 'row' | 'column', rows: number, columns: number, depth: number) {
  const tile = kernelChoice(device).product({ direction, rows, columns, depth });
  return { tile, source: tile === 'naive' ? 'buffer' : tile.source };
}

/**
 * y [N, H, W, Co] = the convolution of x [N, H, W, Ci] by 3 × 3 weights [9, Ci, Co] with padding 1, and an epilogue. For the input gradient x is
 * the upstream gradient and the weights are transposed with `flip`.
 */
export function winogradConvolution(
  x: Tensor,
  weights: Weights,
  y: Tensor,
  epilogue: Epilogue,
  chunkBytes = CHUNK_BYTES,
): void {
  const maps = { x, y, residual: epilogue.residual };
  inParts(maps, { operator: 'conv2d', units: x.shape[0], writes: ['y'] }, (part) =>
    convolveImages(part.x, weights, part.y, { ...epilogue, residual: part.residual }, chunkBytes),
  );
}

function convolveImages(x: Tensor, weights: Weights, y: Tensor, epilogue: Epilogue, mostBytes: number): void {
  const { device } = x;
  const { depth, columns } = weights;
  const chunkBytes = Math.min(mostBytes, device.gpu.bindingLimit);
  const tiling = tilingOf(x);
  const { tile, source } = productTile(device, 'row', tiling.tiles, columns, depth);
  const kernels = weightPlanes(weights, source);
  for (const chunk of chunksOf(tiling.tiles, Math.max(depth, columns), chunkBytes)) {
    const patches = transformTiles(winogradInput, x, source, tiling, chunk);
    const sizes = { batches: PLANES, rows: chunk.tiles, depth, columns };
    const products = filled(device, source, PLANES * chunk.tiles * columns, (c) =>
      batchedRows(device, tile, { a: patches, b: kernels, c, unused: weights.tensor }, sizes),
    );
    device.gpu.giveBack(patches);
    const { scale, bias, residual } = epilogue;
    device.gpu.dispatch(winogradOutput, {
      flags: { source },
      buffers: {
        planes: products,
        scale: scale ?? weights.tensor,
        bias: bias ?? weights.tensor,
        residual: residual ?? x,
        y,
      },
      uniforms: {
        ...tileUniforms(tiling, chunk, columns),
        scaled: scale ? 1 : 0,
        biased: bias ? 1 : 0,
        hasResidual: residual ? 1 : 0,
        relu: epilogue.relu ? 1 : 0,
        accumulate: epilogue.accumulate ? 1 : 0,
      },
      workgroups: workgroupsFor((chunk.tiles * columns) / 4),
    });
    device.gpu.giveBack(products);
  }
  device.gpu.derived.settle();
}

/** dw [3, 3, Ci, Co] = the weight gradient for x [N, H, W, Ci] and upstream g [N, H, W, Co], padding 1. */
export function winogradWeightGradients(
  x: Tensor,
  g: Tensor,
  dw: Tensor,
  { scale, accumulate = false }: Pick<Epilogue, 'scale' | 'accumulate'>,
  chunkBytes = CHUNK_BYTES,
): void {
  inParts({ x, g }, { operator: 'conv2d', units: x.shape[0], writes: [] }, (part, { first }) =>
    weightGradientsOfImages(part.x, part.g, dw, { scale, accumulate: accumulate || first > 0 }, chunkBytes),
  );
}

function weightGradientsOfImages(
  x: Tensor,
  g: Tensor,
  dw: Tensor,
  { scale, accumulate = false }: Pick<Epilogue, 'scale' | 'accumulate'>,
  mostBytes: number,
): void {
  const { device } = x;
  const chunkBytes = Math.min(mostBytes, device.gpu.bindingLimit);
  const [rows, columns] = [x.shape[3], g.shape[3]];
  const tiling = tilingOf(x);
  const { tile, source } = productTile(device, 'column', rows, columns, tiling.tiles);
  const sums = filled(device, source, PLANES * rows * columns, (c) => {
    for (const chunk of chunksOf(tiling.tiles, Math.max(rows, columns), chunkBytes)) {
      const patches = transformTiles(winogradInput, x, source, tiling, chunk);
      const upstream = transformTiles(winogradUpstream, g, source, tiling, chunk);
      const sizes = { batches: PLANES, rows, depth: chunk.tiles, columns };
      const planes = { a: patches, b: upstream, c, unused: dw };
      batchedColumns(device, tile, planes, sizes, { accumulate: chunk.firstTile > 0 });
      device.gpu.giveBack(patches);
      device.gpu.giveBack(upstream);
    }
  });
  const count = (rows * columns) / 4;
  device.gpu.dispatch(winogradWeightGradient, {
    flags: { source },
    buffers: { planes: sums, scale: scale ?? x, dw },
    uniforms: { count, vectors: columns / 4, taps: 9, scaled: scale ? 1 : 0, accumulate: accumulate ? 1 : 0 },
    workgroups: workgroupsFor(count),
  });
  device.gpu.giveBack(sums);
  device.gpu.derived.settle();
}
