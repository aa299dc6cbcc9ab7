/**
 * Element types of stored tensors under safetensors' names, and how their little-endian bytes become values. Every host that runs
 * WebGPU is little-endian, as the formats are.
 */
import { UserError } from '../cli/errors.ts';
import { decodeHalves, encodeHalves } from '../tensor/halves.ts';

export const bytesPerElement = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  U16: 2,
  I16: 2,
  F16: 2,
  BF16: 2,
  U32: 4,
  I32: 4,
  F32: 4,
  U64: 8,
  I64: 8,
  F64: 8,
} as const;

export type Dtype = keyof typeof bytesPerElement;
export const dtypes = Object.keys(bytesPerElement) as Dtype[];

/** Values on the host: floating dtypes as Float32Array (F64 rounded to nearest), all others as Int32Array. */
export type Values = Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>;

/** Whether values of this dtype are read as Float32Array; all others are read as Int32Array. */
export function isFloating(dtype: Dtype): boolean {
  return dtype === 'F32' || dtype === 'F16' || dtype === 'BF16' || dtype === 'F64';
}

/** `count` zeros of the type that `dtype` is read as. */
export function emptyValues(dtype: Dtype, count: number): Values {
  return isFloating(dtype) ? new Float32Array(count) : new Int32Array(count);
}

/** The number of elements of a shape; NaN or beyond the safe integers where it cannot be one. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, side) => product * side, 1);
}

/** Decodes float16 or bfloat16 by moving bits: `bits` shares the memory of `out`. */
function decodeTwoBytes(out: Values, first: number, dtype: 'F16' | 'BF16', bytes: Uint8Array): void {
  const count = bytes.length / 2;
  if (dtype === 'F16') {
    decodeHalves(bytes, new Float32Array(out.buffer, out.byteOffset + first * 4, count));
    return;
  }
  const bits = new Uint32Array(out.buffer, out.byteOffset + first * 4, count);
  // bfloat16 is the upper half of a float32.
  for (let i = 0; i < count; i++) bits[i] = (bytes[2 * i] << 16) | (bytes[2 * i + 1] << 24);
}

/** One element at byte `at`. */
const readers: Record<
  Exclude<Dtype, 'F32' | 'I32' | 'F16' | 'BF16'>,
  (view: DataView, at: number) => number | bigint
> = {
  BOOL: (view, at) => (view.getUint8(at) === 0 ? 0 : 1),
  U8: (view, at) => view.getUint8(at),
  I8: (view, at) => view.getInt8(at),
  U16: (view, at) => view.getUint16(at, true),
  I16: (view, at) => view.getInt16(at, true),
  U32: (view, at) => view.getUint32(at, true),
  U64: (view, at) => view.getBigUint64(at, true),
  I64: (view, at) => view.getBigInt64(at, true),
  F64: (view, at) => view.getFloat64(at, true),
};

/**
 * Decodes whole elements into `out` from index `first` on.
 * @param bytes a multiple of the element's size; its place in its buffer need not be aligned
 * @param what names file and tensor, to begin the sentence of an error
 * @throws UserError for a value beyond int32
 */
export function decodeInto(out: Values, first: number, dtype: Dtype, bytes: Uint8Array, what: string): void {
  if (dtype === 'F32' || dtype === 'I32') {
    new Uint8Array(out.buffer, out.byteOffset + first * 4, bytes.length).set(bytes);
    return;
  }
  if (dtype === 'F16' || dtype === 'BF16') {
    decodeTwoBytes(out, first, dtype, bytes);
    return;
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = bytesPerElement[dtype];
  const count = bytes.length / size;
  const read = readers[dtype];
  const wide = dtype === 'U32' || dtype === 'U64' || dtype === 'I64';
  for (let i = 0; i < count; i++) {
    const value = read(view, i * size);
    if (wide && (value < -0x80000000 || value > 0x7fffffff)) {
      throw new UserError(`${what} holds ${value} at index ${first + i}, expected values that fit 32-bit integers.`);
    }
    out[first + i] = Number(value);
  }
}

/** The dtypes that are written. */
export type WrittenDtype = 'F32' | 'F16' | 'I64' | 'I32' | 'U8' | 'BOOL';

/**
 * The bytes of values, as `decodeInto` reads them; they may share the values' memory.
 * @param what names the tensor, to begin the sentence of an error
 * @throws UserError for a number that float16 cannot hold
 */
export function encodeValues(
  dtype: WrittenDtype,
  data: Float32Array | Int32Array | Uint8Array,
  what: string,
): Uint8Array {
  if (dtype === 'I64') return new Uint8Array(BigInt64Array.from(data as Int32Array, BigInt).buffer);
  if (dtype !== 'F16') return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const halves = encodeHalves(data);
  for (let i = 0; i < data.length; i++) {
    if ((halves[i] & 0x7fff) === 0x7c00 && Number.isFinite(data[i])) {
      throw new UserError(`${what} holds ${data[i]} at index ${i}, more than float16 can.`);
    }
  }
  return new Uint8Array(halves.buffer);
}
