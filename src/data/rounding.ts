/** Rounds to the nearest whole number, ties to the even one (C's `rint`; OpenCV's and NumPy's rule). */
export function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
