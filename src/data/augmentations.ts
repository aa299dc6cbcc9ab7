/** Changes of training samples beyond the notebook's flips; all are off by default. Image, boxes and masks change together. */
import { maskBox } from './dataset.ts';
import type { Random } from './random.ts';
import { axisSamples, clampSamples } from './resize.ts';
import { makeTarget } from './target.ts';
import { compose, horizontalFlip, type Transform, verticalFlip } from './transforms.ts';
import type { LoadedImage, Sample, Target } from './types.ts';

/** What `train` does to its samples, as plain data: options of a run, and jobs for loading threads. */
export interface Augmentation {
  /** Probability 0…1 of a mirrored image, left to right (the notebook: .5). */
  hflip: number;
  /** Probability 0…1 of a mirrored image, top to bottom (the notebook: .5). */
  vflip: number;
  /** Probability 0…1 of one, two or three quarter turns. */
  rotate90: number;
  /** Range of the factor by which image and cells are resized; null leaves them. */
  scaleJitter: readonly [least: number, most: number] | null;
  /** Pixels of a window cut out at a random place, after the resizing; null takes the whole image. */
  crop: readonly [width: number, height: number] | null;
  /** Brightness is multiplied by a factor within 1 ± this (0…1). */
  brightness: number;
  /** Contrast is multiplied by a factor within 1 ± this (0…1). */
  contrast: number;
}

export const NO_AUGMENTATION: Augmentation = {
  hflip: 0,
  vflip: 0,
  rotate90: 0,
  scaleJitter: null,
  crop: null,
  brightness: 0,
  contrast: 0,
};

/** The augmentation among other options, fit to be sent to a thread. */
export function pickAugmentation(options: Augmentation): Augmentation {
  const { hflip, vflip, rotate90, scaleJitter, crop, brightness, contrast } = options;
  return { hflip, vflip, rotate90, scaleJitter, crop, brightness, contrast };
}

/**
 * All of an augmentation in one transform: resize, crop, turn, flips, light. Steps that are off draw no number, except the flips,
 * which draw one each as ever.
 */
export function augment(options: Augmentation): Transform {
  const { hflip, vflip, rotate90, scaleJitter: jitter, crop, brightness, contrast } = options;
  return compose(
    ...(jitter === null ? [] : [scaleJitter(...jitter)]),
    ...(crop === null ? [] : [randomCrop(...crop)]),
    ...(rotate90 === 0 ? [] : [randomRotate90(rotate90)]),
    horizontalFlip(hflip),
    verticalFlip(vflip),
    ...(brightness === 0 && contrast === 0 ? [] : [colorJitter(brightness, contrast)]),
  );
}

/**
 * Resizes by a random factor (torchvision's `ScaleJitter`, with the factor relative to the image as loaded): the image
 * bilinearly with aligned pixel centres, masks by nearest neighbour, boxes from the new masks (inclusive corners). Cells without
 * extent are left out.
 *
 * @param least smallest factor, above 0
 * @param most largest factor
 */
export function scaleJitter(least: number, most: number): Transform {
  return (sample, random) => {
    const factor = least + (most - least) * random.next();
    const { image, target } = sample;
    const width = Math.max(1, Math.floor(image.width * factor));
    const height = Math.max(1, Math.floor(image.height * factor));
    if (width === image.width && height === image.height) return sample;
    // torch's nearest: floor(destination × in / out).
    const columns = Int32Array.from({ length: width }, (_, x) => Math.floor((x * image.width) / width));
    const rows = Int32Array.from({ length: height }, (_, y) => Math.floor((y * image.height) / height));
    const masks = mapMasks(target, image, width, height, (x, y) => rows[y] * image.width + columns[x]);
    const data = resizeBilinear(image, width, height);
    return { ...sample, image: { ...image, width, height, data }, target: withMasks(target, masks, width, height) };
  };
}

/**
 * Cuts a window out at a random place (torchvision's `RandomCrop` without padding: an image smaller than the window keeps its
 * side). Cells are cut with it; those left without extent are left out, so a window may hold none.
 *
 * @param width of the window in pixels
 * @param height of the window in pixels
 */
export function randomCrop(width: number, height: number): Transform {
  return (sample, random) => {
    const { image, target } = sample;
    const [w, h] = [Math.min(width, image.width), Math.min(height, image.height)];
    const left = random.int(image.width - w + 1);
    const top = random.int(image.height - h + 1);
    if (w === image.width && h === image.height) return sample;
    const from = (x: number, y: number): number => (top + y) * image.width + left + x;
    const masks = mapMasks(target, image, w, h, from);
    const data = mapPixels(image, w, h, from);
    return {
      ...sample,
      image: { ...image, width: w, height: h, data },
      target: withMasks(target, masks, w, h),
    };
  };
}

/**
 * Turns by one, two or three quarters counter-clockwise, each as likely. Boxes are those of the turned masks exactly (inclusive corners
 * turn as pixels do), masks keep their area.
 *
 * @param probability 0…1 that it turns at all
 */
export function randomRotate90(probability: number): Transform {
  return (sample, random) => {
    if (!(random.next() < probability)) return sample;
    return rotate90(sample, 1 + random.int(3));
  };
}

/** `quarters` (1 … 3) turns counter-clockwise. */
function rotate90<S extends Sample>(sample: S, quarters: number): S {
  const { image, target } = sample;
  const { width: w, height: h } = image;
  const [width, height] = quarters === 2 ? [w, h] : [h, w];
  // Where a pixel of the turned image comes from.
  const source = (x: number, y: number): readonly [number, number] =>
    quarters === 1 ? [w - 1 - y, x] : quarters === 2 ? [w - 1 - x, h - 1 - y] : [y, h - 1 - x];
  const from = (x: number, y: number): number => {
    const [sx, sy] = source(x, y);
    return sy * w + sx;
  };
  const boxes = new Float32Array(target.boxes.length);
  for (let i = 0; i < boxes.length; i += 4) {
    const [x1, y1, x2, y2] = target.boxes.subarray(i, i + 4);
    if (quarters === 1) boxes.set([y1, w - 1 - x2, y2, w - 1 - x1], i);
    else if (quarters === 2) boxes.set([w - 1 - x2, h - 1 - y2, w - 1 - x1, h - 1 - y1], i);
    else boxes.set([h - 1 - y2, x1, h - 1 - y1, x2], i);
  }
  const masks = mapMasks(target, image, width, height, from);
  return {
    ...sample,
    image: { ...image, width, height, data: mapPixels(image, width, height, from) },
    target: makeTarget(boxes, target.labels, masks, target),
  };
}

/**
 * Changes brightness, then contrast (torchvision's `ColorJitter` of both, in this order): pixels × b, then grey + c × (pixels -
 * grey), where grey is the mean of the image's luma (.2989 R + .587 G + .114 B); each is cut to 0…1.
 *
 * @param brightness b is uniform in 1 ± this, not below 0
 * @param contrast c is uniform in 1 ± this, not below 0
 */
export function colorJitter(brightness: number, contrast: number): Transform {
  const factor = (range: number, random: Random): number => {
    const least = Math.max(0, 1 - range);
    return least + (1 + range - least) * random.next();
  };
  return (sample, random) => {
    const [b, c] = [factor(brightness, random), factor(contrast, random)];
    const data = sample.image.data.map((value) => Math.min(1, Math.max(0, value * b)));
    let luma = 0;
    for (let i = 0; i < data.length; i += 3) luma += 0.2989 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2];
    const grey = (luma / data.length) * 3;
    for (let i = 0; i < data.length; i++) data[i] = Math.min(1, Math.max(0, grey + c * (data[i] - grey)));
    return { ...sample, image: { ...sample.image, data } };
  };
}

/** [height, width, 3] pixels, each from where `from` says. */
function mapPixels(
  image: LoadedImage,
  width: number,
  height: number,
  from: (x: number, y: number) => number,
): Float32Array {
  const data = new Float32Array(width * height * 3);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at += 3) {
      const source = 3 * from(x, y);
      for (let c = 0; c < 3; c++) data[at + c] = image.data[source + c];
    }
  }
  return data;
}

/** [n, height, width] masks, each pixel from where `from` says. */
function mapMasks(
  target: Target,
  image: LoadedImage,
  width: number,
  height: number,
  from: (x: number, y: number) => number,
): Uint8Array {
  const count = target.labels.length;
  const masks = new Uint8Array(count * width * height);
  const pixels = image.width * image.height;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const source = from(x, y);
      for (let n = 0; n < count; n++) masks[n * width * height + at] = target.masks[n * pixels + source];
    }
  }
  return masks;
}

/** The cells that have an extent in these masks, with the boxes of the masks. */
function withMasks(target: Target, masks: Uint8Array, width: number, height: number): Target {
  const pixels = width * height;
  const planes = Array.from(target.labels, (_, n) => masks.subarray(n * pixels, (n + 1) * pixels));
  const kept = planes.flatMap((mask, n) => {
    const box = maskBox(mask, width, height);
    return box === undefined || box[0] === box[2] || box[1] === box[3] ? [] : [{ n, mask, box }];
  });
  const packed = new Uint8Array(kept.length * pixels);
  for (const [i, { mask }] of kept.entries()) packed.set(mask, i * pixels);
  return makeTarget(
    Float32Array.from(kept.flatMap(({ box }) => box)),
    Int32Array.from(kept, ({ n }) => target.labels[n]),
    packed,
    { imageId: target.imageId, iscrowd: Uint8Array.from(kept, ({ n }) => target.iscrowd[n]) },
  );
}

/** Bilinear resizing of floats, pixel centres aligned, without antialiasing. */
function resizeBilinear(image: LoadedImage, width: number, height: number): Float32Array {
  const columns = clampSamples(axisSamples(image.width, width), image.width);
  const rows = clampSamples(axisSamples(image.height, height), image.height);
  const data = new Float32Array(width * height * 3);
  for (let y = 0, at = 0; y < height; y++) {
    const upper = rows.index[y] * image.width;
    const lower = Math.min(rows.index[y] + 1, image.height - 1) * image.width;
    const fy = rows.fraction[y];
    for (let x = 0; x < width; x++) {
      const left = columns.index[x];
      const right = Math.min(left + 1, image.width - 1);
      const fx = columns.fraction[x];
      for (let c = 0; c < 3; c++, at++) {
        const p = (row: number, column: number): number => image.data[3 * (row + column) + c];
        const top = p(upper, left) * (1 - fx) + p(upper, right) * fx;
        data[at] = top * (1 - fy) + (p(lower, left) * (1 - fx) + p(lower, right) * fx) * fy;
      }
    }
  }
  return data;
}
