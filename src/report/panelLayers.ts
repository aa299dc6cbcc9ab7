import { encodePng, type RgbImage } from '../data/png.ts';

/** Part of a picture. */
export function crop(
  { width, data }: RgbImage,
  place: { x: number; y: number; width: number; height: number },
): RgbImage {
  const part = new Uint8Array(3 * place.width * place.height);
  for (let row = 0; row < place.height; row++) {
    const from = 3 * ((place.y + row) * width + place.x);
    part.set(data.subarray(from, from + 3 * place.width), 3 * row * place.width);
  }
  return { width: place.width, height: place.height, data: part };
}

/** The file of a picture, in one channel where it shows no colours. */
export function encodePlain({ width, height, data }: RgbImage): Buffer {
  const grey = new Uint8Array(width * height);
  for (let i = 0; i < grey.length; i++) {
    grey[i] = data[3 * i];
    if (data[3 * i + 1] !== grey[i] || data[3 * i + 2] !== grey[i]) return encodePng(width, height, data);
  }
  return encodePng(width, height, grey);
}

/**
 * The file of what was drawn over a picture: laid over `base` it gives `drawn` again, and it is clear wherever they agree, so
 * that it takes a fraction of the bytes.
 *
 * @param drawn of the same size as `base`
 */
export function encodeLayer(drawn: RgbImage, base: RgbImage): Buffer {
  const { width, height } = base;
  const layer = new Uint8Array(4 * width * height);
  for (let i = 0; i < width * height; i++) {
    const at = 3 * i;
    const pixel = drawn.data.subarray(at, at + 3);
    if (pixel[0] === base.data[at] && pixel[1] === base.data[at + 1] && pixel[2] === base.data[at + 2]) continue;
    layer.set(pixel, 4 * i);
    layer[4 * i + 3] = 255;
  }
  return encodePng(width, height, layer);
}
