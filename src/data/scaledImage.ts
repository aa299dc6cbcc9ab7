/** From decoded pixels to what the network sees. Imports nothing of Node: the browser decodes by itself and goes on here. */
import { UserError } from '../cli/errors.ts';
import type { RgbImage } from './png.ts';
import { resizeImage } from './resize.ts';
import type { LoadedImage } from './types.ts';

/** An image as loaded, and what it was before it was resized. */
export interface ScaledImage extends LoadedImage {
  /** Size of the file in pixels. */
  fileWidth: number;
  fileHeight: number;
}

/**
 * The side of an image after resizing: the notebook's `int(HEIGHT * resize)`.
 *
 * @param resize factor; undefined or 1 leaves the side as it is
 */
export function resizedSide(side: number, resize: number | undefined): number {
  return resize === undefined ? side : Math.floor(side * resize);
}

/**
 * Resizes an image as the notebook (`cv2.resize`), then scales it to 0…1 (`to_tensor`).
 *
 * @param resize factor on both sides; undefined for the image's own size
 * @param where the image's file, for messages
 * @throws UserError for a factor that leaves no pixel
 */
export function scaleImage(
  image: RgbImage,
  { resize, id, where }: { resize?: number; id: string; where: string },
): ScaledImage {
  const width = resizedSide(image.width, resize);
  const height = resizedSide(image.height, resize);
  if (!(width >= 1 && height >= 1)) {
    throw new UserError(`the resize factor ${resize} leaves no pixel of ${where} (${image.width} × ${image.height})`);
  }
  const bytes = resizeImage(image.data, image.width, image.height, width, height);
  const data = new Float32Array(bytes.length);
  for (let i = 0; i < bytes.length; i++) data[i] = bytes[i] / 255;
  return { id, width, height, data, fileWidth: image.width, fileHeight: image.height };
}
