import { UserError } from '../cli/errors.ts';

/**
 * The runs of a run-length text as pairs (0-based start, length), checked against the image.
 *
 * @param text the competition's format: "start length start length …", row-major, starts counted from 1; empty means no pixel
 * @param width columns of the image
 * @param height rows of the image
 * @param where what to name in an error, e.g. `train.csv, line 12`
 * @returns [2 × runs] starts and lengths, in the order of the text
 * @throws UserError for an odd count, a token that is no integer, a length below 1 or a run that leaves the image
 */
export function rleRuns(text: string, width: number, height: number, where: string): Int32Array {
  const pixels = width * height;
  const runs = new Int32Array((text.length + 1) >> 1);
  let count = 0;
  let at = 0;
  while (at < text.length) {
    if (isSpace(text.charCodeAt(at))) {
      at++;
      continue;
    }
    const from = at;
    let value = 0;
    while (at < text.length && !isSpace(text.charCodeAt(at))) {
      const digit = text.charCodeAt(at++) - 48;
      value = digit >= 0 && digit <= 9 ? value * 10 + digit : Number.NaN;
    }
    const token = text.slice(from, at);
    if (Number.isNaN(value)) {
      const shown = token.length > 20 ? `${token.slice(0, 20)}…` : token;
      throw new UserError(`${where}: the run-length text holds "${shown}", expected whole numbers "start length …"`);
    }
    if (count % 2 === 0) {
      if (value < 1 || value > pixels) {
        throw new UserError(
          `${where}: a run starts at ${token}, expected 1 to ${pixels} (${width} × ${height} pixels)`,
        );
      }
      runs[count++] = value - 1;
    } else {
      const start = runs[count - 1];
      if (value < 1) {
        throw new UserError(`${where}: the run that starts at ${start + 1} has length ${token}, expected 1 or more`);
      }
      if (start + value > pixels) {
        throw new UserError(
          `${where}: the run "${start + 1} ${token}" ends beyond the image's ${pixels} pixels (${width} × ${height})`,
        );
      }
      runs[count++] = value;
    }
  }
  if (count % 2 === 1) {
    throw new UserError(`${where}: the run-length text holds ${count} numbers, expected pairs "start length"`);
  }
  return runs.slice(0, count);
}

function isSpace(code: number): boolean {
  return code === 32 || (code >= 9 && code <= 13);
}

/**
 * Decodes a run-length text into a mask (the notebook's `rle_decode`, which checks nothing).
 *
 * @param text see {@link rleRuns}
 * @param where what to name in an error
 * @param value what a covered pixel holds (the notebook's `color`), 1 … 255
 * @returns [height, width], `value` where a run covers, else 0
 * @throws UserError as {@link rleRuns}
 */
export function rleDecode(text: string, width: number, height: number, where: string, value = 1): Uint8Array {
  const mask = new Uint8Array(width * height);
  const runs = rleRuns(text, width, height, where);
  for (let i = 0; i < runs.length; i += 2) mask.fill(value, runs[i], runs[i] + runs[i + 1]);
  return mask;
}

/**
 * The notebook's `rle_decode(mask_rle, shape, color)` for every shape and colour: floats, and where there are channels one value
 * for all of them or one for each. For masks alone, {@link rleDecode} takes a quarter of the memory.
 *
 * @param text see {@link rleRuns}
 * @param shape rows and columns, or rows, columns and channels
 * @param where what to name in an error
 * @param colour what a covered pixel holds
 * @returns values of `shape`, row-major, 0 where no run covers
 * @throws UserError as {@link rleRuns}
 * @throws RangeError for a colour with another number of values than there are channels
 */
export function rleDecodeColour(
  text: string,
  shape: readonly [height: number, width: number, channels?: number],
  where: string,
  colour: number | readonly number[] = 1,
): Float32Array {
  const [height, width, channels = 1] = shape;
  const values = typeof colour === 'number' ? Array<number>(channels).fill(colour) : colour;
  if (values.length !== channels) {
    throw new RangeError(`rleDecodeColour: a colour of ${values.length} values for ${channels} channels`);
  }
  const image = new Float32Array(height * width * channels);
  const runs = rleRuns(text, width, height, where);
  for (let i = 0; i < runs.length; i += 2) {
    const end = (runs[i] + runs[i + 1]) * channels;
    for (let at = runs[i] * channels; at < end; at++) image[at] = values[at % channels];
  }
  return image;
}

/**
 * Encodes a mask (the notebook's `rle_encoding`): "start length …", row-major, starts counted from 1, runs as long as they
 * can be, across the ends of rows; an empty text for an empty mask.
 *
 * @param mask pixels in row-major order; every value but 0 counts as covered (in the notebook 1 alone; its masks hold no other)
 */
export function rleEncode(mask: Uint8Array): string {
  const parts: number[] = [];
  // Most of a mask is empty: it is passed over four pixels at a time where its memory allows.
  const words = mask.byteOffset % 4 === 0 ? new Uint32Array(mask.buffer, mask.byteOffset, mask.length >> 2) : undefined;
  let at = 0;
  while (at < mask.length) {
    if (mask[at] === 0) {
      at++;
      if (words !== undefined && at % 4 === 0) {
        let word = at >> 2;
        while (word < words.length && words[word] === 0) word++;
        at = word << 2;
      }
      continue;
    }
    const start = at;
    const end = mask.indexOf(0, at);
    at = end < 0 ? mask.length : end;
    parts.push(start + 1, at - start);
  }
  return parts.join(' ');
}

/**
 * Makes masks disjoint in place: each pixel stays with the first mask in order that covers it (the notebook's
 * `remove_overlapping_pixels`, called for each mask with all before it). A mask may end up empty.
 *
 * @param masks masks of one size holding 0 and 1 only, best first; changed in place
 * @returns the same array
 */
export function removeOverlaps(masks: Uint8Array[]): Uint8Array[] {
  if (masks.length === 0) return masks;
  const pixels = masks[0].length;
  const taken = new Uint8Array(Math.ceil(pixels / 4) * 4);
  const takenWords = new Uint32Array(taken.buffer);
  for (const mask of masks) {
    if (mask.length !== pixels) {
      throw new RangeError(`removeOverlaps: a mask has ${mask.length} pixels, the first ${pixels}`);
    }
    // Four pixels at once where the mask's memory allows it: bytes of 0 and 1 never carry into each other.
    const words = mask.byteOffset % 4 === 0 ? pixels >> 2 : 0;
    const maskWords = words > 0 ? new Uint32Array(mask.buffer, mask.byteOffset, words) : takenWords;
    for (let i = 0; i < words; i++) {
      const own = maskWords[i];
      if (own === 0) continue;
      maskWords[i] = own & ~takenWords[i];
      takenWords[i] |= own;
    }
    for (let i = words * 4; i < pixels; i++) {
      if (mask[i] === 0) continue;
      if (taken[i] !== 0) mask[i] = 0;
      taken[i] = 1;
    }
  }
  return masks;
}
