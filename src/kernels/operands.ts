import type { BufferSource } from '../gpu/gpu.ts';
import type { PooledBuffer, PooledTexture } from '../gpu/pool.ts';
import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import type { Device } from '../tensor/device.ts';
import { bytesOf, type DType, type Tensor } from '../tensor/tensor.ts';
import { copyElements } from './cast.ts';
import { packTransposed } from './packWeights.ts';

/*
 * What a product reads, in the form in which its tile reads it: tensors as they are, transposed weights, and copies in textures, whose
 * columns (and rows, where they meet channels) are padded with zeros to a multiple of 4. All are derived from tensors and kept while they
 * hold, see `DerivedCache`. Where the other operand is float16, weights become so too: once for each step of the optimizer.
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

/**
 * Halves go to a buffer, which is then copied: a store to a texture of halves may round towards 0 (lavapipe's does), one to a buffer rounds to the
 * nearest.
 */
type PackFlags = { half: boolean };
const packedType = ({ half }: PackFlags) => (half ? 'vec4f' : 'texture');
const storePacked = ({ half }: PackFlags, at: string, value: string): string =>
  half ? `packed[${at}] = ${value};` : `textureStore(packed, texel(${at}), ${value});`;

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
  bindings: (flags: PackFlags) => ({ x: 'read', scale: 'read', packed: ['write', packedType(flags)] }) as const,
  code: (flags) => `
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
    ${storePacked(flags, 'i', 'value')}`)}`,
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
  bindings: (flags: PackFlags) =>
    ({ x: ['read', 'vec4f'], scale: ['read', 'vec4f'], packed: ['write', packedType(flags)] }) as const,
  code: (flags) => `
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
    ${storePacked(flags, 'to', 'block[0]')}
    ${storePacked(flags, 'to + u.vectors', 'block[1]')}
    ${storePacked(flags, 'to + 2u * u.vectors', 'block[2]')}
    ${storePacked(flags, 'to + 3u * u.vectors', 'block[3]')}`)}`,
});

/** The texels that a tensor [rows, columns] takes with its columns padded. */
export function matrixTexels(rows: number, columns: number): number {
  return (rows * padded(columns)) / 4;
}

function texture({ gpu }: Device, texels: number, dtype: DType): PooledTexture {
  return dtype === 'f16'
    ? gpu.halfTextures.acquire(texels * 8, 'operands')
    : gpu.textures.acquire(texels * 16, 'operands');
}

/** A tensor of so many texels, as it lies. */
function copied(x: Tensor, texels: number): PooledTexture {
  const { gpu } = x.device;
  return gpu.derived.get([x.buffer], `copied ${x.dtype} ${texels}`, () => {
    const copy = texture(x.device, texels, x.dtype);
    gpu.copyToTexture(x.buffer, copy, texels);
    return copy;
  }) as PooledTexture;
}

function packed(
  { tensor, taps, depth, columns, transposed }: Weights,
  paddedRows: number,
  dtype: DType,
): PooledTexture {
  const { gpu } = tensor.device;
  const { flip = false, scale } = transposed ?? {};
  const kind = `packed ${[dtype, taps, depth, paddedRows, columns, transposed !== undefined, flip]}`;
  return gpu.derived.get(scale ? [tensor.buffer, scale.buffer] : [tensor.buffer], kind, () => {
    const count = (taps * paddedRows * padded(columns)) / 4;
    const half = dtype === 'f16';
    const copy = texture(tensor.device, count, dtype);
    const rounded = half ? gpu.pool.acquire(count * 8, 'operands') : null;
    const target = rounded ? { buffer: rounded, dtype } : copy;
    const flags = { flip: flip ? 1 : 0, scaled: scale ? 1 : 0 };
    if (transposed && depth % 4 === 0) {
      gpu.dispatch(packBlocksProgram, {
        flags: { half },
        buffers: { x: tensor, scale: scale ?? tensor, packed: target },
        uniforms: { count: count / 4, taps, rowVectors: depth / 4, columns, vectors: padded(columns) / 4, ...flags },
        workgroups: workgroupsFor(count / 4),
      });
    } else {
      gpu.dispatch(packProgram, {
        flags: { half },
        buffers: { x: tensor, scale: scale ?? tensor, packed: target },
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
    }
    if (rounded) {
      gpu.copyToTexture(rounded, copy, count);
      gpu.pool.release(rounded);
    }
    return copy;
  }) as PooledTexture;
}

/** x [rows, columns] in a texture, its columns padded. */
export function matrixTexture(x: Tensor, rows: number, columns: number): PooledTexture {
  if (columns % 4 === 0) return copied(x, matrixTexels(rows, columns));
  return packed({ tensor: x, taps: 1, depth: rows, columns }, rows, x.dtype);
}

/** Weights [taps, depth, columns] in a texture of `dtype`, depth and columns padded. */
export function weightsTexture(weights: Weights, dtype: DType): PooledTexture {
  const { tensor, taps, depth, columns, transposed } = weights;
  const asItLies = !transposed && depth % 4 === 0 && columns % 4 === 0 && tensor.dtype === dtype;
  if (asItLies) return copied(tensor, (taps * depth * columns) / 4);
  return packed(weights, padded(depth), dtype);
}

/** Weights [taps, depth, columns] in a buffer of `dtype`. */
export function weightsBuffer({ tensor, taps, depth, columns, transposed }: Weights, dtype: DType): BufferSource {
  if (!transposed && tensor.dtype === dtype) return tensor;
  const { gpu } = tensor.device;
  const { flip = false, scale } = transposed ?? {};
  const kind = `${transposed ? 'transposed' : 'cast'} ${[dtype, taps, depth, columns, flip]}`;
  const derived = gpu.derived.get(scale ? [tensor.buffer, scale.buffer] : [tensor.buffer], kind, () => {
    const buffer = gpu.pool.acquire(tensor.size * bytesOf(dtype), 'operands');
    if (transposed) packTransposed(tensor, { buffer, dtype }, { taps, rows: columns, columns: depth }, { flip, scale });
    else copyElements(tensor, { buffer, dtype });
    return buffer;
  }) as PooledBuffer;
  return { buffer: derived, dtype };
}
