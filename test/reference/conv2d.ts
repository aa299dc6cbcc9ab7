import type { Reference } from './index.ts';

/** The sum over the window of every output, then scale, bias, residual, ReLU. */
export const conv2d: Reference = ({ x, weight, bias, scale, residual }, params) => {
  const {
    stride = 1,
    padding = 0,
    dilation = 1,
    groups = 1,
    relu = false,
  } = params as {
    stride?: number;
    padding?: number;
    dilation?: number;
    groups?: number;
    relu?: boolean;
  };
  const [images, height, width, channels] = x.shape;
  const [kh, kw, depth, outChannels] = weight.shape;
  const outHeight = Math.floor((height + 2 * padding - dilation * (kh - 1) - 1) / stride) + 1;
  const outWidth = Math.floor((width + 2 * padding - dilation * (kw - 1) - 1) / stride) + 1;
  const perGroup = outChannels / groups;
  const data = new Float64Array(images * outHeight * outWidth * outChannels);
  for (let n = 0; n < images; n++) {
    for (let oy = 0; oy < outHeight; oy++) {
      for (let ox = 0; ox < outWidth; ox++) {
        const out = ((n * outHeight + oy) * outWidth + ox) * outChannels;
        for (let ky = 0; ky < kh; ky++) {
          for (let kx = 0; kx < kw; kx++) {
            const y = oy * stride - padding + ky * dilation;
            const z = ox * stride - padding + kx * dilation;
            if (y < 0 || z < 0 || y >= height || z >= width) continue;
            for (let co = 0; co < outChannels; co++) {
              const group = Math.floor(co / perGroup);
              for (let ci = 0; ci < depth; ci++) {
                const pixel = ((n * height + y) * width + z) * channels + group * depth + ci;
                data[out + co] += x.data[pixel] * weight.data[((ky * kw + kx) * depth + ci) * outChannels + co];
              }
            }
          }
        }
      }
    }
  }
  for (let i = 0; i < data.length; i++) {
    const co = i % outChannels;
    const value = data[i] * (scale?.data[co] ?? 1) + (bias?.data[co] ?? 0) + (residual?.data[i] ?? 0);
    data[i] = relu ? Math.max(value, 0) : value;
  }
  return { shape: [images, outHeight, outWidth, outChannels], data };
};
