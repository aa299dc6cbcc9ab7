import { UserError } from '../cli/errors.ts';
import { type CocoRle, cocoCountsFromString, cocoCountsToString } from './cocoRle.ts';
import type { MaskCrop } from './types.ts';

/**
 * A crop's mask in COCO's compressed form: the same as `cocoRleEncode` of the full-size mask, without making one.
 *
 * @param mask lies inside the image; pixels > 0 are covered
 * @param width of the image in pixels
 * @param height of the image in pixels
 */
export function cropToCocoRle(mask: MaskCrop, width: number, height: number): CocoRle {
  const counts: number[] = [];
  let end = 0;
  for (let column = 0; column < mask.width; column++) {
    for (let row = 0, at = column; row < mask.height; row++, at += mask.width) {
      if (!(mask.data[at] > 0)) continue;
      const pixel = (mask.x + column) * height + mask.y + row;
      // A crop as high as the image has runs that go on in the next column.
      if (pixel === end && counts.length > 0) counts[counts.length - 1]++;
      else counts.push(pixel - end, 1);
      end = pixel + 1;
    }
  }
  if (end < width * height) counts.push(width * height - end);
  return { size: [height, width], counts: cocoCountsToString(counts) };
}

/**
 * The reverse of {@link cropToCocoRle}: the mask cut to the box of its pixels; work and memory follow the box, not the image.
 *
 * @param where what to name in an error
 * @returns 0 or 1 per pixel
 * @throws UserError where the lengths do not fill the size, no pixel is covered, or the text is malformed
 */
export function cropFromCocoRle({ size: [height, width], counts: text }: CocoRle, where: string): MaskCrop {
  const counts = cocoCountsFromString(text, where);
  let [left, right, top, bottom] = [width, -1, height, -1];
  let at = 0;
  for (const [i, count] of counts.entries()) {
    if (i % 2 === 1 && count > 0) {
      const last = at + count - 1;
      left = Math.min(left, Math.floor(at / height));
      right = Math.floor(last / height);
      const inOneColumn = Math.floor(at / height) === right;
      top = inOneColumn ? Math.min(top, at % height) : 0;
      bottom = inOneColumn ? Math.max(bottom, last % height) : height - 1;
    }
    at += count;
  }
  if (at !== width * height) {
    throw new UserError(
      `${where}: the run lengths add up to ${at} pixels, expected ${width * height} (${width} × ${height})`,
    );
  }
  if (right < 0) throw new UserError(`${where}: the mask covers no pixel`);
  const mask = { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
  const data = new Float32Array(mask.width * mask.height);
  at = 0;
  for (const [i, count] of counts.entries()) {
    if (i % 2 === 1) {
      for (let pixel = at; pixel < at + count; pixel++) {
        data[((pixel % height) - top) * mask.width + Math.floor(pixel / height) - left] = 1;
      }
    }
    at += count;
  }
  return { ...mask, data };
}
