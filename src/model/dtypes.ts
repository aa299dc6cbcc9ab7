/**
 * Element types of stored tensors under safetensors' names, and how their little-endian bytes become values. Every host that runs
 * WebGPU is little-endian, as the formats are.
 */
import { UserError } from '../cli/errors.ts';

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

/** float16 bits to their value. */
function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The nearest float16 of a number, ties to even; Infinity from 65520 on. */
export function numberToHalf(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (magnitude >= 65520) return sign | 0x7c00;
  // Numbers below 2^-14 have the spacing of the smallest exponent.
  const exponent = Math.max(Math.floor(Math.log2(magnitude)), -14);
  const scaled = magnitude * 2 ** (10 - exponent);
  const below = Math.floor(scaled);
  const rest = scaled - below;
  const rounded = rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
  // A fraction that rounds up to 2048 carries into the exponent by plain addition.
  return sign | (exponent === -14 ? rounded : ((exponent + 15) << 10) + (rounded - 1024));
}

const pair = new DataView(new ArrayBuffer(8));

/** One element at byte `at`; bfloat16 is the upper half of a float32. */
const readers: Record<Exclude<Dtype, 'F32' | 'I32'>, (view: DataView, at: number) => number | bigint> = {
  BOOL: (view, at) => (view.getUint8(at) === 0 ? 0 : 1),
  U8: (view, at) => view.getUint8(at),
  I8: (view, at) => view.getInt8(at),
  U16: (view, at) => view.getUint16(at, true),
  I16: (view, at) => view.getInt16(at, true),
  F16: (view, at) => halfToNumber(view.getUint16(at, true)),
  BF16: (view, at) => {
    pair.setUint16(2, view.getUint16(at, true), true);
    return pair.getFloat32(0, true);
  },
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
  const halves = Uint16Array.from(data, numberToHalf);
  const lost = data.findIndex((value, i) => Number.isFinite(value) && (halves[i] & 0x7fff) === 0x7c00);
  if (lost >= 0) throw new UserError(`${what} holds ${data[lost]} at index ${lost}, more than float16 can.`);
  return new Uint8Array(halves.buffer);
}
