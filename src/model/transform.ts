import type { LoadedImage, Target } from '../data/types.ts';
import { batchImage } from '../kernels/batchImages.ts';
import { type TruthMasks, uploadTruthMasks } from '../kernels/maskTargets.ts';
import type { Device } from '../tensor/device.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { MaskRCNNConfig } from './config.ts';
import type { Precision } from './precision.ts';

type TransformConfig = Pick<MaskRCNNConfig, 'minSize' | 'maxSize' | 'imageMean' | 'imageStd' | 'sizeDivisible'>;

/** A batch ready for the backbone. */
export interface ImageBatch {
  /** [N, H, W, 4], normalised, zero-padded to multiples of `sizeDivisible`; the fourth channel is 0 (see `batchImage`). */
  tensors: Tensor;
  /** [height, width] of each image inside the batch, before padding; and the same on the device, f32 [N, 2]. */
  imageSizes: [number, number][];
  sizes: Tensor;
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
  const sizes = device.tensor(Float32Array.from(imageSizes.flat()), [images.length, 2]);
  const tensors = device.scope(() => {
    const batch = device.empty([images.length, padded(0), padded(1), 4], precision);
    // A write submits what has been encoded, so all uploads come before the first dispatch.
    const uploaded = images.map(({ data, height, width }) => device.tensor(data, [height, width, 3]));
    uploaded.forEach((image, index) => {
      batchImage(image, batch, { index, size: imageSizes[index], mean: config.imageMean, std: config.imageStd });
    });
    return batch;
  });
  return { tensors, imageSizes, sizes };
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

/** The truth of a batch on the device, images one after another: T instances in all. */
export interface BatchTruths {
  /** f32 [T, 4] xmin, ymin, xmax, ymax in pixels of the batch. */
  boxes: Tensor;
  /** i32 [T]. */
  labels: Tensor;
  /** u32 [N + 1]: image n has the instances `ranges[n]` up to `ranges[n + 1]`. */
  ranges: Tensor;
  /** The largest number of instances of an image. */
  most: number;
  /** Null for a box-only model. */
  masks: TruthMasks | null;
}

/** Scales the targets to the network's size and uploads them. Masks stay as loaded: see `projectMasksOnBoxes`. */
export function transformTargets(
  device: Device,
  targets: readonly Target[],
  images: readonly LoadedImage[],
  config: TransformConfig & Pick<MaskRCNNConfig, 'masks'>,
): BatchTruths {
  const scaled = targets.map(({ boxes, labels, masks }, i) => {
    const size: [number, number] = [images[i].height, images[i].width];
    const to = networkSize(...size, config);
    const unchanged = size[0] === to[0] && size[1] === to[1];
    return { boxes: unchanged ? boxes : resizeBoxes(boxes, size, to), labels, masks, size, networkSize: to };
  });
  const counts = scaled.map(({ labels }) => labels.length);
  const ranges = new Uint32Array(counts.length + 1);
  counts.forEach((count, i) => {
    ranges[i + 1] = ranges[i] + count;
  });
  const total = ranges[counts.length];
  const boxes = new Float32Array(total * 4);
  const labels = new Int32Array(total);
  scaled.forEach((target, i) => {
    boxes.set(target.boxes, ranges[i] * 4);
    labels.set(target.labels, ranges[i]);
  });
  return {
    boxes: device.tensor(boxes, [total, 4]),
    labels: device.tensor(labels, [total]),
    ranges: device.tensor(ranges, [ranges.length]),
    most: Math.max(...counts),
    masks: config.masks ? uploadTruthMasks(device, scaled) : null,
  };
}
