import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { passesLimit, section } from '../tensor/parts.ts';
import type { Tensor } from '../tensor/tensor.ts';

/*
 * One image into its place of the batch: y = resize((x - mean) / std) inside [height, width], 0 outside. Resizing is bilinear with
 * align_corners false, sampling by in / out size (torch's `interpolate(recompute_scale_factor=True)`), without antialiasing.
 *
 * Every rounding here reaches every activation behind it, and may turn the sign of one that is nearly 0. So the order is
 * torchvision's (normalise, then resize), and source coordinates come from the host: torch rounds step · (d + ½) - ½ once (a
 * fused multiply-add), where a shader may round twice, which at coordinate 100 costs 4e-6 of a pixel.
 */
const program = defineProgram({
  name: 'batchImage',
  uniforms: {
    count: 'u32',
    inHeight: 'u32',
    inWidth: 'u32',
    height: 'u32',
    width: 'u32',
    batchWidth: 'u32',
    offset: 'u32',
    mean0: 'f32',
    mean1: 'f32',
    mean2: 'f32',
    std0: 'f32',
    std1: 'f32',
    std2: 'f32',
  },
  bindings: { image: 'read', rows: 'read', columns: 'read', batch: ['write', 'vec4f'] },
  code: () => `
fn tap(y: u32, x: u32) -> vec3f {
  let at = (y * u.inWidth + x) * 3u;
  let pixel = vec3f(image[at], image[at + 1u], image[at + 2u]);
  return (pixel - vec3f(u.mean0, u.mean1, u.mean2)) / vec3f(u.std0, u.std1, u.std2);
}
${perElement(`
    let y = i / u.batchWidth;
    let x = i % u.batchWidth;
    var value = vec3f(0.0);
    if (y < u.height && x < u.width) {
      let sy = rows[y];
      let sx = columns[x];
      let y0 = min(u32(sy), u.inHeight - 1u);
      let x0 = min(u32(sx), u.inWidth - 1u);
      let y1 = min(y0 + 1u, u.inHeight - 1u);
      let x1 = min(x0 + 1u, u.inWidth - 1u);
      let fy = sy - f32(y0);
      let fx = sx - f32(x0);
      let top = tap(y0, x0) * (1.0 - fx) + tap(y0, x1) * fx;
      let bottom = tap(y1, x0) * (1.0 - fx) + tap(y1, x1) * fx;
      value = top * (1.0 - fy) + bottom * fy;
    }
    batch[u.offset + i] = vec4f(value, 0.0);`)}`,
});

/** Where each output pixel's centre lies in the input, in input pixels from the centre of the first one, not below 0. [to] */
function sourceCoordinates(from: number, to: number): Float32Array {
  const step = Math.fround(from / to);
  // float64 holds the product exactly, so storing it is the one rounding.
  return Float32Array.from({ length: to }, (_, d) => Math.max((d + 0.5) * step - 0.5, 0));
}

export interface BatchImageOptions {
  /** Place in the batch. */
  index: number;
  /** Size [height, width] inside the batch. */
  size: readonly [number, number];
  mean: readonly number[];
  std: readonly number[];
}

/**
 * Normalises, resizes and pads one image into a batch (torchvision's GeneralizedRCNNTransform: normalize, resize, batch_images).
 *
 * @param image [height, width, 3], 0…1.
 * @param batch [N, H, W, 4], written at `index` only; the fourth channel is 0, so that the first convolution loads whole vec4s.
 */
export function batchImage(image: Tensor, batch: Tensor, { index, size, mean, std }: BatchImageOptions): void {
  const [, batchHeight, batchWidth] = batch.shape;
  const [height, width] = size;
  const [inHeight, inWidth, channels] = image.shape;
  if (channels !== 3 || batch.shape[3] !== 4)
    throw new Error(`batchImage: expected an image of 3 channels and a batch of 4, got ${image} and ${batch}.`);
  if (height > batchHeight || width > batchWidth)
    throw new Error(`batchImage: ${height}×${width} does not fit into ${batch}.`);
  const count = batchHeight * batchWidth;
  const { device } = image;
  const rows = device.tensor(sourceCoordinates(inHeight, height), [height]);
  const columns = device.tensor(sourceCoordinates(inWidth, width), [width]);
  const large = passesLimit(device.gpu, [batch]);
  const place = large ? section(batch, index * count * 4, [1, batchHeight, batchWidth, 4], true) : null;
  device.gpu.dispatch(program, {
    buffers: { image, rows, columns, batch: place?.tensor ?? batch },
    uniforms: {
      count,
      inHeight,
      inWidth,
      height,
      width,
      batchWidth,
      offset: large ? 0 : index * count,
      mean0: mean[0],
      mean1: mean[1],
      mean2: mean[2],
      std0: std[0],
      std1: std[1],
      std2: std[2],
    },
    workgroups: workgroupsFor(count),
  });
  place?.finish();
  rows.dispose();
  columns.dispose();
}
