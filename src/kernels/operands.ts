import type { PooledBuffer, PooledTexture } from '../gpu/pool.ts';
import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { packTransposed } from './packWeights.ts';

/*
 * What a product reads, in the form in which its tile reads it: tensors as they are, transposed weights, and copies in textures, whose
 * columns (and rows, where they meet channels) are padded with zeros to a multiple of 4. All are derived from tensors and kept while they
 * hold, see `DerivedCache`.
 */

/** B of a product, [taps, depth, columns], given by a tensor that lies so, or that holds each tap transposed, [taps, columns, depth]. */
export interface Weights {
  tensor: Tensor;
  taps: number;
  depth: number;
  columns: number;
  /** `flip` turns the order of taps round, as the gradient by the input needs it; `scale` [depth] multiplies. */
  transposed?: { flip?: boolean; scale?: Tensor };
}

export const padded = (count: number): number => Math.ceil(count / 4) * 4;

const packProgram = defineProgram({
  name: 'packTexture',
  uniforms: {
    count: 'u32',
    taps: 'u32',
    rows: 'u32',
    paddedRows: 'u32',
    columns: 'u32',
    vectors: 'u32',
    transposed: 'u32',
    flip: 'u32',
    scaled: 'u32',
  },
  bindings: { x: 'read', scale: 'read', packed: ['write', 'texture'] },
  code: () => `
fn valueAt(tap: u32, row: u32, column: u32) -> f32 {
  let inside = (row < u.rows) & (column < u.columns);
  let at = select((tap * u.rows + row) * u.columns + column, (tap * u.columns + column) * u.rows + row, u.transposed == 1u);
  return select(0.0, x[select(0u, at, inside)], inside);
}
${perElement(`
    let vector = i % u.vectors;
    let row = i / u.vectors % u.paddedRows;
    let place = i / (u.vectors * u.paddedRows);
    let tap = select(place, u.taps - 1u - place, u.flip == 1u);
    var value = vec4f(valueAt(tap, row, 4u * vector), valueAt(tap, row, 4u * vector + 1u),
      valueAt(tap, row, 4u * vector + 2u), valueAt(tap, row, 4u * vector + 3u));
    if (u.scaled == 1u) { value *= scale[min(row, u.rows - 1u)]; }
    textureStore(packed, texel(i), value);`)}`,
});

/**
 * The same for transposed weights whose rows are whole vectors: a block of 4 × 4 at a time, which is four loads where the other takes sixteen.
 * Weights are packed once a step, so for maps of few pixels this costs as much as the product.
 */
const packBlocksProgram = defineProgram({
  name: 'packTextureBlocks',
  uniforms: {
    count: 'u32',
    taps: 'u32',
    rowVectors: 'u32',
    columns: 'u32',
    vectors: 'u32',
    flip: 'u32',
    scaled: 'u32',
  },
  bindings: { x: ['read', 'vec4f'], scale: ['read', 'vec4f'], packed: ['write', 'texture'] },
  code: () => `
fn rowsAt(base: u32, column: u32) -> vec4f {
  return select(vec4f(), x[base + min(column, u.columns - 1u) * u.rowVectors], column < u.columns);
}
${perElement(`
    let vector = i % u.vectors;
    let rows = i / u.vectors % u.rowVectors;
    let place = i / (u.vectors * u.rowVectors);
    let tap = select(place, u.taps - 1u - place, u.flip == 1u);
    let base = tap * u.columns * u.rowVectors + rows;
    var block = transpose(mat4x4f(rowsAt(base, 4u * vector), rowsAt(base, 4u * vector + 1u),
      rowsAt(base, 4u * vector + 2u), rowsAt(base, 4u * vector + 3u)));
    if (u.scaled == 1u) {
      let by = scale[rows];
      block = mat4x4f(block[0] * by.x, block[1] * by.y, block[2] * by.z, block[3] * by.w);
    }
    let to = (place * u.rowVectors + rows) * 4u * u.vectors + vector;
    textureStore(packed, texel(to), block[0]);
    textureStore(packed, texel(to + u.vectors), block[1]);
    textureStore(packed, texel(to + 2u * u.vectors), block[2]);
    textureStore(packed, texel(to + 3u * u.vectors), block[3]);`)}`,
});

/** The texels that a tensor [rows, columns] takes with its columns padded. */
export function matrixTexels(rows: number, columns: number): number {
  return (rows * padded(columns)) / 4;
}

/** A tensor of so many texels, as it lies. */
function copied(x: Tensor, texels: number): PooledTexture {
  const { gpu } = x.device;
  return gpu.derived.get([x.buffer], `copied ${texels}`, () => {
    const texture = gpu.textures.acquire(texels * 16, 'operands');
    gpu.copyToTexture(x.buffer, texture, texels);
    return texture;
  }) as PooledTexture;
}

function packed({ tensor, taps, depth, columns, transposed }: Weights, paddedRows: number): PooledTexture {
  const { gpu } = tensor.device;
  const { flip = false, scale } = transposed ?? {};
  const kind = `packed ${[taps, depth, paddedRows, columns, transposed !== undefined, flip]}`;
  return gpu.derived.get(scale ? [tensor.buffer, scale.buffer] : [tensor.buffer], kind, () => {
    const count = (taps * paddedRows * padded(columns)) / 4;
    const texture = gpu.textures.acquire(count * 16, 'operands');
    const flags = { flip: flip ? 1 : 0, scaled: scale ? 1 : 0 };
    if (transposed && depth % 4 === 0) {
      gpu.dispatch(packBlocksProgram, {
        buffers: { x: tensor, scale: scale ?? tensor, packed: texture },
        uniforms: { count: count / 4, taps, rowVectors: depth / 4, columns, vectors: padded(columns) / 4, ...flags },
        workgroups: workgroupsFor(count / 4),
      });
      return texture;
    }
    gpu.dispatch(packProgram, {
      buffers: { x: tensor, scale: scale ?? tensor, packed: texture },
      uniforms: {
        count,
        taps,
        rows: depth,
        paddedRows,
        columns,
        vectors: padded(columns) / 4,
        transposed: transposed ? 1 : 0,
        ...flags,
      },
      workgroups: workgroupsFor(count),
    });
    return texture;
  }) as PooledTexture;
}

/** x [rows, columns] in a texture, its columns padded. */
export function matrixTexture(x: Tensor, rows: number, columns: number): PooledTexture {
  if (columns % 4 === 0) return copied(x, matrixTexels(rows, columns));
  return packed({ tensor: x, taps: 1, depth: rows, columns }, rows);
}

/** Weights [taps, depth, columns] in a texture, depth and columns padded. */
export function weightsTexture(weights: Weights): PooledTexture {
  const { tensor, taps, depth, columns, transposed } = weights;
  if (!transposed && depth % 4 === 0 && columns % 4 === 0) return copied(tensor, (taps * depth * columns) / 4);
  return packed(weights, padded(depth));
}

/** Weights [taps, depth, columns] in a buffer. */
export function weightsBuffer({ tensor, taps, depth, columns, transposed }: Weights): PooledBuffer {
  if (!transposed) return tensor.buffer;
  const { gpu } = tensor.device;
  const { flip = false, scale } = transposed;
  const kind = `transposed ${[taps, depth, columns, flip]}`;
  return gpu.derived.get(scale ? [tensor.buffer, scale.buffer] : [tensor.buffer], kind, () => {
    const buffer = gpu.pool.acquire(tensor.size * 4, 'operands');
    packTransposed(tensor, buffer, { taps, rows: columns, columns: depth }, { flip, scale });
    return buffer;
  }) as PooledBuffer;
}
