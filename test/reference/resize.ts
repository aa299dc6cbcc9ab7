/**
 * Bilinear resize with aligned pixel centres in float64: out(y, x) is the image, extended by its edge pixels, read at
 * ((y + .5) · h / h' - .5, (x + .5) · w / w' - .5).
 *
 * @param data [height, width, channels]
 * @returns [newHeight, newWidth, channels], not rounded
 */
export function resizeReference(
  data: ArrayLike<number>,
  width: number,
  height: number,
  channels: number,
  newWidth: number,
  newHeight: number,
): Float64Array {
  const out = new Float64Array(newWidth * newHeight * channels);
  const clamp = (value: number, size: number): number => Math.min(Math.max(value, 0), size - 1);
  for (let i = 0; i < out.length; i++) {
    const c = i % channels;
    const x = clamp((((Math.floor(i / channels) % newWidth) + 0.5) * width) / newWidth - 0.5, width);
    const y = clamp(((Math.floor(i / channels / newWidth) + 0.5) * height) / newHeight - 0.5, height);
    for (const row of [Math.floor(y), Math.floor(y) + 1]) {
      for (const column of [Math.floor(x), Math.floor(x) + 1]) {
        const weight = (1 - Math.abs(y - row)) * (1 - Math.abs(x - column));
        if (weight > 0) out[i] += weight * data[(row * width + column) * channels + c];
      }
    }
  }
  return out;
}
