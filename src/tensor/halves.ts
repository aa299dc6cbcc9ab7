/** float16 on the host, which Node has no typed array for. */

const oneNumber = new Float32Array(1);
const itsBits = new Uint32Array(oneNumber.buffer);

/** The nearest float16 of a float32 number, ties to even, as its bits; Infinity from 65520 on. */
export function numberToHalf(value: number): number {
  oneNumber[0] = value;
  const sign = (itsBits[0] >>> 16) & 0x8000;
  const bits = itsBits[0] & 0x7fffffff;
  if (bits > 0x7f800000) return 0x7e00;
  // From 65520 on, half a step beyond the largest.
  if (bits >= 0x477ff000) return sign | 0x7c00;
  // From 2^-14 on: another bias of the exponent, and 13 bits less of the fraction, whose rounding may carry into the exponent.
  if (bits >= 0x38800000) {
    const rebiased = bits - 0x38000000;
    return sign | ((rebiased + 0xfff + ((rebiased >>> 13) & 1)) >>> 13);
  }
  // Below lie multiples of 2^-24; half of one is a tie, which goes to 0.
  if (bits <= 0x33000000) return sign;
  const shift = 126 - (bits >>> 23);
  const fraction = (bits & 0x7fffff) | 0x800000;
  const whole = fraction >>> shift;
  const rest = fraction & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return sign | (rest > half || (rest === half && (whole & 1) === 1) ? whole + 1 : whole);
}

/** The number that the bits of a float16 stand for, as the bits of a float32; exact. */
function widenedBits(half: number): number {
  const sign = (half & 0x8000) << 16;
  const magnitude = half & 0x7fff;
  if (magnitude >= 0x7c00) return sign | 0x7f800000 | ((magnitude & 0x3ff) << 13);
  if (magnitude >= 0x400) return sign | ((magnitude << 13) + 0x38000000);
  // Below 2^-14 lie multiples of 2^-24.
  oneNumber[0] = magnitude * 2 ** -24;
  return sign | itsBits[0];
}

/** Writes the numbers of little-endian float16 `bytes` (two each, of any alignment) to `out`. */
export function decodeHalves(bytes: Uint8Array, out: Float32Array): void {
  // Moved as bits, since a Float32Array may change those of a NaN.
  const bits = new Uint32Array(out.buffer, out.byteOffset, bytes.length / 2);
  for (let i = 0; i < bits.length; i++) bits[i] = widenedBits(bytes[2 * i] | (bytes[2 * i + 1] << 8));
}

/** The nearest float16 of each number, as bits. */
export function encodeHalves(values: ArrayLike<number>): Uint16Array<ArrayBuffer> {
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < halves.length; i++) halves[i] = numberToHalf(values[i]);
  return halves;
}
