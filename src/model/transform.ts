import type { LoadedImage, Target } from '../data/types.ts';
import { batchImage } from '../kernels/batchImages.ts';
import type { Device } from '../tensor/device.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { MaskRCNNConfig } from './config.ts';
import type { Precision } from './precision.ts';

type TransformConfig = Pick<MaskRCNNConfig, 'minSize' | 'maxSize' | 'imageMean' | 'imageStd' | 'sizeDivisible'>;

/** A batch ready for the backbone. */
export interface ImageBatch {
  /** [N, H, W, 4], normalised, zero-padded to multiples of `sizeDivisible`; the fourth channel is 0 (see `batchImage`). */
  tensors: Tensor;
  /** [height, width] of each image inside the batch, before padding. */
  imageSizes: [number, number][];
}

/**
 * The size at which the network sees an image (torchvision's `_resize_image_and_masks`): the shorter side becomes `minSize`
 * unless the longer would pass `maxSize`; sides are rounded down in double precision. Unchanged when `minSize` is null.
 */
export function networkSize(height: number, width: number, config: TransformConfig): [number, number] {
  const { minSize, maxSize } = config;
  if (minSize === null) return [height, width];
  const shorter = Math.min(height, width);
  const longer = Math.max(height, width);
  const scale = maxSize === null ? minSize / shorter : Math.min(minSize / shorter, maxSize / longer);
  return [Math.floor(height * scale), Math.floor(width * scale)];
}

/**
 * Normalises, resizes and batches images (torchvision's GeneralizedRCNNTransform.forward).
 * @param precision of the batch, which all maps behind it take from it
 */
export function transformImages(
  device: Device,
  images: readonly LoadedImage[],
  config: TransformConfig,
  precision: Precision = 'f32',
): ImageBatch {
  const imageSizes = images.map((image) => networkSize(image.height, image.width, config));
  const padded = (axis: 0 | 1): number =>
    Math.ceil(Math.max(...imageSizes.map((size) => size[axis])) / config.sizeDivisible) * config.sizeDivisible;
  const tensors = device.scope(() => {
    const batch = device.empty([images.length, padded(0), padded(1), 4], precision);
    images.forEach((image, index) => {
      const uploaded = device.tensor(image.data, [image.height, image.width, 3]);
      batchImage(uploaded, batch, { index, size: imageSizes[index], mean: config.imageMean, std: config.imageStd });
    });
    return batch;
  });
  return { tensors, imageSizes };
}

/** Scales boxes [n, 4] by new / old size per axis in float32 (torchvision's `resize_boxes`). */
export function resizeBoxes(
  boxes: Float32Array,
  from: readonly [number, number],
  to: readonly [number, number],
): Float32Array {
  const ratioY = Math.fround(Math.fround(to[0]) / Math.fround(from[0]));
  const ratioX = Math.fround(Math.fround(to[1]) / Math.fround(from[1]));
  return boxes.map((value, index) => value * (index % 2 === 0 ? ratioX : ratioY));
}

/** A target at the network's size. Masks stay as loaded; `resizeMask` makes single ones when they are needed. */
export interface NetworkTarget {
  boxes: Float32Array;
  labels: Int32Array;
  masks: Uint8Array;
  /** [height, width] of the masks as loaded. */
  maskSize: [number, number];
}

export function transformTarget(target: Target, image: LoadedImage, size: readonly [number, number]): NetworkTarget {
  const from: [number, number] = [image.height, image.width];
  const unchanged = from[0] === size[0] && from[1] === size[1];
  return {
    boxes: unchanged ? target.boxes : resizeBoxes(target.boxes, from, size),
    labels: target.labels,
    masks: target.masks,
    maskSize: from,
  };
}

/**
 * One truth mask at the network's size, by nearest neighbour: source = floor(destination · (1 / scale)) as torch's `interpolate`
 * with a recomputed scale factor, where 1 / scale = in / out in float32. [height · width] of 0 and 1.
 */
export function resizeMask(target: NetworkTarget, index: number, size: readonly [number, number]): Float32Array {
  const [inHeight, inWidth] = target.maskSize;
  const [height, width] = size;
  const stepY = Math.fround(inHeight / height);
  const stepX = Math.fround(inWidth / width);
  const columns = Int32Array.from({ length: width }, (_, x) =>
    Math.min(Math.floor(Math.fround(x * stepX)), inWidth - 1),
  );
  const mask = new Float32Array(height * width);
  const start = index * inHeight * inWidth;
  for (let y = 0; y < height; y++) {
    const row = start + Math.min(Math.floor(Math.fround(y * stepY)), inHeight - 1) * inWidth;
    for (let x = 0; x < width; x++) mask[y * width + x] = target.masks[row + columns[x]];
  }
  return mask;
}
