import type { Random } from './random.ts';
import type { Sample } from './types.ts';

/**
 * A change of a sample, drawing what it needs from `random`. It returns a new sample (or the same one where nothing
 * changes) and leaves its input alone; fields beside image and target are kept.
 */
export type Transform = <S extends Sample>(sample: S, random: Random) => S;

/** Applies transforms in order (torchvision's `Compose`). */
export function compose(...transforms: Transform[]): Transform {
  return (sample, random) => transforms.reduce((current, transform) => transform(current, random), sample);
}

/**
 * Subtracts a mean and divides by a deviation, channel by channel (torchvision's `normalize`; the notebook's `Normalize` with its
 * RESNET_MEAN and RESNET_STD). The model normalises what it gets once more, as in the notebook.
 *
 * @param mean of red, green and blue, in the image's range 0…1
 * @param std of red, green and blue, above 0
 */
export function normalize(mean: readonly number[], std: readonly number[]): Transform {
  return (sample) => ({
    ...sample,
    image: { ...sample.image, data: sample.image.data.map((value, i) => (value - mean[i % 3]) / std[i % 3]) },
  });
}

/**
 * Mirrors image, boxes and masks left to right (the notebook's `HorizontalFlip`).
 *
 * As in the notebook, xmin and xmax become `width - xmax` and `width - xmin` although corners are inclusive: a flipped box
 * lies one pixel to the right of its flipped mask's own box, and flipping twice gives the box back.
 *
 * @param probability 0…1; one number is drawn for each sample whatever it is
 */
export function horizontalFlip(probability: number): Transform {
  return (sample, random) => {
    if (!(random.next() < probability)) return sample;
    const { image, target } = sample;
    const { width, height } = image;
    const data = image.data.slice();
    for (let y = 0; y < height; y++) mirrorPixels(data.subarray(y * width * 3, (y + 1) * width * 3));
    const masks = target.masks.slice();
    for (let start = 0; start < masks.length; start += width) masks.subarray(start, start + width).reverse();
    const boxes = mirrorBoxes(target.boxes, 0, width);
    return { ...sample, image: { ...image, data }, target: { ...target, boxes, masks } };
  };
}

/**
 * Mirrors image, boxes and masks top to bottom (the notebook's `VerticalFlip`); boxes by `height - y`, see
 * {@link horizontalFlip}.
 */
export function verticalFlip(probability: number): Transform {
  return (sample, random) => {
    if (!(random.next() < probability)) return sample;
    const { image, target } = sample;
    const { width, height } = image;
    const data = new Float32Array(image.data.length);
    const rowLength = width * 3;
    for (let y = 0; y < height; y++) {
      data.set(image.data.subarray(y * rowLength, (y + 1) * rowLength), (height - 1 - y) * rowLength);
    }
    const masks = new Uint8Array(target.masks.length);
    for (let plane = 0; plane < masks.length; plane += width * height) {
      for (let y = 0; y < height; y++) {
        const row = plane + y * width;
        masks.set(target.masks.subarray(row, row + width), plane + (height - 1 - y) * width);
      }
    }
    const boxes = mirrorBoxes(target.boxes, 1, height);
    return { ...sample, image: { ...image, data }, target: { ...target, boxes, masks } };
  };
}

/** Reverses a row of RGB pixels in place, each pixel's channels keeping their order. */
function mirrorPixels(row: Float32Array): void {
  row.reverse();
  for (let i = 0; i < row.length; i += 3) {
    const red = row[i + 2];
    row[i + 2] = row[i];
    row[i] = red;
  }
}

/** Box corners along one axis (0: x, 1: y) become `size - other corner`. */
function mirrorBoxes(boxes: Float32Array, axis: 0 | 1, size: number): Float32Array {
  const mirrored = boxes.slice();
  for (let i = axis; i < boxes.length; i += 4) {
    mirrored[i] = size - boxes[i + 2];
    mirrored[i + 2] = size - boxes[i];
  }
  return mirrored;
}
