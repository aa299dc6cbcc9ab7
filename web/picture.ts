/** Pictures between files, canvases and the engine's plain arrays. */
import { UserError } from '../src/cli/errors.ts';
import type { RgbImage } from '../src/data/png.ts';

function context(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  const found = canvas.getContext('2d', { willReadFrequently: true });
  if (!found) throw new Error('The browser gives no 2D canvas.');
  return found;
}

/**
 * Decodes a picture by the browser, at its own size and without colour management, as `readPng` does in Node: 8 bits, three
 * channels, alpha dropped. One difference: a canvas keeps no colour under wholly transparent pixels, they are black here.
 *
 * @throws UserError naming the file when the browser cannot decode it
 */
export async function decodePicture(file: Blob, name: string): Promise<RgbImage> {
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: 'none', premultiplyAlpha: 'none' });
  } catch {
    throw new UserError(`${name} is not a picture that this browser can read, expected a PNG.`);
  }
  const { width, height } = bitmap;
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const painter = context(canvas);
  painter.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = painter.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height * 3);
  for (let i = 0, from = 0; i < data.length; i += 3, from += 4) {
    data[i] = rgba[from];
    data[i + 1] = rgba[from + 1];
    data[i + 2] = rgba[from + 2];
  }
  return { width, height, data };
}

/** Fills a canvas with a picture and gives it the picture's size. */
export function showPicture(canvas: HTMLCanvasElement, { width, height, data }: RgbImage): void {
  canvas.width = width;
  canvas.height = height;
  const rgba = new ImageData(width, height);
  for (let i = 0, to = 0; i < data.length; i += 3, to += 4) {
    rgba.data[to] = data[i];
    rgba.data[to + 1] = data[i + 1];
    rgba.data[to + 2] = data[i + 2];
    rgba.data[to + 3] = 255;
  }
  context(canvas).putImageData(rgba, 0, 0);
}
