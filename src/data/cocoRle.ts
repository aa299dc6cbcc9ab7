/** COCO's run lengths (pycocotools `maskApi.c`): column-major, lengths of 0s and 1s in turn, beginning with the 0s. */
import { UserError } from '../cli/errors.ts';

/** A mask as COCO files hold it in compressed form. */
export interface CocoRle {
  size: [height: number, width: number];
  /** Lengths as text, see {@link cocoCountsToString}. */
  counts: string;
}

/**
 * Reads COCO's compressed text (`rleFrString`): each length, from the fourth on less the one two before it, is cut into groups of
 * five bits, lowest first; a sixth bit tells that another group follows, and 48 is added to make a printable character.
 *
 * @param where what to name in an error, e.g. `annotations.json, annotation 7`
 * @returns lengths of 0s, 1s, 0s …
 * @throws UserError for a character outside the code, a text that ends within a number, or a negative length
 */
export function cocoCountsFromString(text: string, where: string): number[] {
  const counts: number[] = [];
  let at = 0;
  while (at < text.length) {
    let value = 0;
    let scale = 1;
    let more = true;
    while (more) {
      const code = text.charCodeAt(at) - 48;
      if (!(code >= 0 && code < 64) || scale > 2 ** 40) {
        const found = at < text.length ? `holds "${text[at]}" at character ${at + 1}` : 'ends within a number';
        throw new UserError(`${where}: the compressed run lengths are malformed (the text ${found})`);
      }
      more = (code & 32) !== 0;
      value += (code & 31) * scale;
      scale *= 32;
      // The last group's highest bit is the sign.
      if (!more && (code & 16) !== 0) value -= scale;
      at++;
    }
    if (counts.length > 2) value += counts[counts.length - 2];
    if (value < 0) throw new UserError(`${where}: the compressed run lengths hold a negative length (${value})`);
    counts.push(value);
  }
  return counts;
}

/** The reverse of {@link cocoCountsFromString} (`rleToString`). */
export function cocoCountsToString(counts: ArrayLike<number>): string {
  let text = '';
  for (let i = 0; i < counts.length; i++) {
    let value = counts[i];
    if (i > 2) value -= counts[i - 2];
    let more = true;
    while (more) {
      let group = value & 31;
      value >>= 5;
      // Nothing is left when the remaining bits all repeat the sign of this group.
      more = (group & 16) !== 0 ? value !== -1 : value !== 0;
      if (more) group |= 32;
      text += String.fromCharCode(group + 48);
    }
  }
  return text;
}

/** A mask as run lengths: as text, or as a list of numbers. */
export interface CocoRunLengths {
  size: readonly [height: number, width: number];
  counts: string | readonly number[];
}

/**
 * The run lengths of a mask as numbers, checked.
 *
 * @param where what to name in an error
 * @throws UserError where the lengths do not fill the size, or the text is malformed
 */
export function cocoRunLengths({ size: [height, width], counts }: CocoRunLengths, where: string): readonly number[] {
  const lengths = typeof counts === 'string' ? cocoCountsFromString(counts, where) : counts;
  let total = 0;
  for (const length of lengths) {
    if (!(Number.isInteger(length) && length >= 0)) throw new UserError(`${where}: ${length} is no run length`);
    total += length;
  }
  if (total !== height * width) {
    throw new UserError(
      `${where}: the run lengths add up to ${total} pixels, expected ${height * width} (${width} × ${height})`,
    );
  }
  return lengths;
}

/**
 * Draws run lengths as a mask.
 *
 * @param where what to name in an error
 * @returns [height, width] row-major, 0 or 1
 * @throws UserError where the lengths do not fill the size, or the text is malformed
 */
export function cocoRleDecode(rle: CocoRunLengths, where: string): Uint8Array {
  const [height, width] = rle.size;
  const counts = cocoRunLengths(rle, where);
  const mask = new Uint8Array(height * width);
  let at = 0;
  for (const [i, count] of counts.entries()) {
    if (i % 2 === 1) {
      for (let pixel = at; pixel < at + count; pixel++) {
        mask[(pixel % height) * width + Math.floor(pixel / height)] = 1;
      }
    }
    at += count;
  }
  return mask;
}

/** Run lengths of a mask, not yet as text. @param mask [height, width] row-major, covered where not 0 */
export function cocoCounts(mask: Uint8Array, width: number, height: number): number[] {
  const counts: number[] = [];
  let covered = false;
  let length = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0, at = x; y < height; y++, at += width) {
      if ((mask[at] !== 0) !== covered) {
        counts.push(length);
        covered = !covered;
        length = 0;
      }
      length++;
    }
  }
  counts.push(length);
  return counts;
}

/** A mask in compressed form (pycocotools' `encode`). @param mask [height, width] row-major, covered where not 0 */
export function cocoRleEncode(mask: Uint8Array, width: number, height: number): CocoRle {
  return { size: [height, width], counts: cocoCountsToString(cocoCounts(mask, width, height)) };
}
