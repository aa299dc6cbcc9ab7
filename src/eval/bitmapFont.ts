import type { RgbImage } from '../data/png.ts';

export type Colour = readonly [red: number, green: number, blue: number];

// The classic 5 × 7 dot-matrix letters for ASCII 32 … 126, ten to a line: five columns each, two hexadecimal digits a column,
// the top row in bit 0; bit 7 holds descenders.
const GLYPHS =
  '000000000000005f00000007000700147f147f14242a7f2a12231308646236495620500008070300001c2241000041221c00' +
  '2a1c7f1c2a08083e080800807030000808080808000060600020100804023e5149453e00427f400072494949462141494d33' +
  '1814127f1027454545393c4a49493141211109073649494936464949291e0000140000004034000000081422411414141414' +
  '004122140802015909063e415d594e7c1211127c7f494949363e414141227f4141413e7f494949417f090909013e41415173' +
  '7f0808087f00417f41002040413f017f081422417f404040407f021c027f7f0408107f3e4141413e7f090909063e4151215e' +
  '7f09192946264949493203017f01033f4040403f1f2040201f3f4038403f631408146303047804036159494d43007f414141' +
  '0204081020004141417f04020102044040404040000307080020545478407f284444383844444428384444287f3854545418' +
  '00087e090218a4a49c787f0804047800447d40002040403d007f1028440000417f40007c047804787c080404783844444438' +
  'fc1824241818242418fc7c08040408485454542404043f44243c4040207c1c2040201c3c4030403c44281028444c9090907c' +
  '4464544c440008364100000077000000413608000201020402';
const COLUMNS = 5;
const ADVANCE = COLUMNS + 1;
/** Rows of a letter with its descender. */
const ROWS = 8;

/** Width of a line of text in pixels at a scale of 1 or more, without the gap after its last letter. */
export const textWidth = (text: string, scale = 1): number => Math.max(0, [...text].length * ADVANCE - 1) * scale;
/** Height of a line of text in pixels, descenders included. */
export const textHeight = (scale = 1): number => ROWS * scale;

/**
 * Writes a line of text into an image, in place; what falls outside is cut off. Letters outside ASCII become question marks.
 *
 * @param x column of the text's left edge
 * @param y row of its top edge
 * @param scale whole number of pixels for a dot of the letters
 */
export function drawText(image: RgbImage, text: string, x: number, y: number, colour: Colour, scale = 1): void {
  [...text].forEach((letter, index) => {
    const code = letter.charCodeAt(0);
    const glyph = (code >= 32 && code <= 126 ? code : 63) - 32;
    for (let column = 0; column < COLUMNS; column++) {
      const at = 2 * (glyph * COLUMNS + column);
      const bits = Number.parseInt(GLYPHS.slice(at, at + 2), 16);
      for (let row = 0; row < ROWS; row++) {
        if ((bits >> row) & 1)
          fillRect(image, x + (index * ADVANCE + column) * scale, y + row * scale, scale, scale, colour);
      }
    }
  });
}

/** Fills a rectangle of an image with one colour, in place; what falls outside is cut off. */
export function fillRect(image: RgbImage, x: number, y: number, width: number, height: number, colour: Colour): void {
  const right = Math.min(image.width, x + width);
  const bottom = Math.min(image.height, y + height);
  for (let row = Math.max(0, y); row < bottom; row++) {
    for (let column = Math.max(0, x); column < right; column++)
      image.data.set(colour, 3 * (row * image.width + column));
  }
}
