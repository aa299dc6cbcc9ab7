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
  bindings: ({ half }: { half: boolean }) =>
    ({ x: 'read', scale: 'read', packed: ['write', half ? 'vec4f' : 'texture'] }) as const,
  code: ({ half }) => `
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
    ${half ? 'packed[i] = value' : 'textureStore(packed, texel(i), value)'};`)}`,
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
    const copy = texture(tensor.device, count, dtype);
    const half = dtype === 'f16';
    // A store to a texture of halves may round towards 0 (lavapipe's does), one to a buffer rounds to the nearest.
    const rounded = half ? gpu.pool.acquire(count * 8, 'operands') : null;
    gpu.dispatch(packProgram, {
      flags: { half },
      buffers: { x: tensor, scale: scale ?? tensor, packed: rounded ? { buffer: rounded, dtype } : copy },
      uniforms: {
        count,
        taps,
        rows: depth,
        paddedRows,
        columns,
        vectors: padded(columns) / 4,
        transposed: transposed ? 1 : 0,
        flip: flip ? 1 : 0,
        scaled: scale ? 1 : 0,
      },
      workgroups: workgroupsFor(count),
    });
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
