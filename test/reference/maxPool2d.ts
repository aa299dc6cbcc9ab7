import type { Reference } from './index.ts';

export const maxPool2d: Reference = ({ x }, params) => {
  const {
    kernelSize,
    stride = kernelSize,
    padding = 0,
  } = params as { kernelSize: number; stride?: number; padding?: number };
  const [images, height, width, channels] = x.shape;
  const outHeight = Math.floor((height + 2 * padding - kernelSize) / stride) + 1;
  const outWidth = Math.floor((width + 2 * padding - kernelSize) / stride) + 1;
  const values: number[] = [];
  for (let n = 0; n < images; n++) {
    for (let oy = 0; oy < outHeight; oy++) {
      for (let ox = 0; ox < outWidth; ox++) {
        for (let c = 0; c < channels; c++) {
          let best = Number.NEGATIVE_INFINITY;
          for (let k = 0; k < kernelSize * kernelSize; k++) {
            const iy = oy * stride - padding + Math.floor(k / kernelSize);
            const ix = ox * stride - padding + (k % kernelSize);
            if (iy < 0 || iy >= height || ix < 0 || ix >= width) continue;
            best = Math.max(best, x.data[((n * height + iy) * width + ix) * channels + c]);
          }
          values.push(best);
        }
      }
    }
  }
  return { shape: [images, outHeight, outWidth, channels], data: Float64Array.from(values) };
};
