import type { Reference } from './index.ts';

/** Every input pixel adds its value times the kernel to the outputs from (y · stride, x · stride) on. */
export const convTranspose2d: Reference = ({ x, weight, bias }, params) => {
  const { stride, relu = false } = params as { stride: number; relu?: boolean };
  const [images, height, width, channels] = x.shape;
  const [kh, kw, , outChannels] = weight.shape;
  const outHeight = (height - 1) * stride + kh;
  const outWidth = (width - 1) * stride + kw;
  const data = Float64Array.from(
    { length: images * outHeight * outWidth * outChannels },
    (_, i) => bias?.data[i % outChannels] ?? 0,
  );
  x.data.forEach((value, i) => {
    const ci = i % channels;
    const column = Math.floor(i / channels) % width;
    const row = Math.floor(i / channels / width) % height;
    const image = Math.floor(i / channels / width / height);
    for (let ky = 0; ky < kh; ky++) {
      for (let kx = 0; kx < kw; kx++) {
        const pixel = (image * outHeight + row * stride + ky) * outWidth + column * stride + kx;
        for (let co = 0; co < outChannels; co++) {
          data[pixel * outChannels + co] += value * weight.data[((ky * kw + kx) * channels + ci) * outChannels + co];
        }
      }
    }
  });
  return { shape: [images, outHeight, outWidth, outChannels], data: relu ? data.map((v) => Math.max(v, 0)) : data };
};
