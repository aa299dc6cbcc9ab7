import type { Reference, RefTensor } from './index.ts';

/** Pixels that one output coordinate reads, with their weights. */
type Taps = (destination: number, extent: number, step: number) => [pixel: number, weight: number][];

/** One axis after the other: rows first, then columns, each output a weighted sum of pixels. */
function resample({ shape, data }: RefTensor, size: number[], steps: number[], taps: Taps): RefTensor {
  const [images, height, width, channels] = shape;
  const [outHeight, outWidth] = size;
  const out = new Float64Array(images * outHeight * outWidth * channels);
  for (let n = 0; n < images; n++) {
    for (let oy = 0; oy < outHeight; oy++) {
      for (const [iy, wy] of taps(oy, height, steps[0])) {
        for (let ox = 0; ox < outWidth; ox++) {
          for (const [ix, wx] of taps(ox, width, steps[1])) {
            for (let c = 0; c < channels; c++) {
              out[((n * outHeight + oy) * outWidth + ox) * channels + c] +=
                wy * wx * data[((n * height + iy) * width + ix) * channels + c];
            }
          }
        }
      }
    }
  }
  return { shape: [images, outHeight, outWidth, channels], data: out };
}

function stepsOf(x: RefTensor, params: Record<string, unknown>): { size: number[]; steps: number[] } {
  const size = params.size as number[];
  return { size, steps: (params.scale as number[] | undefined) ?? [x.shape[1] / size[0], x.shape[2] / size[1]] };
}

/** The choice of the pixel is part of the definition in float32, so it is made in float32. */
export const interpolateNearest: Reference = ({ x }, params) => {
  const { size, steps } = stepsOf(x, params);
  return resample(x, size, steps, (d, extent, step) => [
    [Math.min(Math.floor(Math.fround(d * Math.fround(step))), extent - 1), 1],
  ]);
};

export const interpolateBilinear: Reference = ({ x }, params) => {
  const { size, steps } = stepsOf(x, params);
  return resample(x, size, steps, (d, extent, step) => {
    const at = Math.min(Math.max((d + 0.5) * step - 0.5, 0), extent - 1);
    const low = Math.floor(at);
    return at === low
      ? [[low, 1]]
      : [
          [low, 1 - (at - low)],
          [low + 1, at - low],
        ];
  });
};
