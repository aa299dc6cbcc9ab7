import { readFileSync } from 'node:fs';
import { inflateSync } from 'node:zlib';
import { decode, type TiffIfd } from 'tiff';
import { UserError } from '../cli/errors.ts';
import type { RgbImage } from './png.ts';

/** Pixels of a TIFF at the depth of the file. */
export interface TiffSamples {
  width: number;
  height: number;
  /** [height, width] for a grey file, [height, width, 3] (red first) for any other. */
  data: Uint8Array | Uint16Array;
}

/** What the header of a file with one image tells. */
interface TiffFile {
  path: string;
  bytes: Buffer;
  /** The image's place among the file's pages (others may be thumbnails). */
  page: number;
  header: TiffIfd;
}

const UNCOMPRESSED = 1;
const LZW = 5;
const DEFLATE = [8, 32946];
/** No compression packs more bytes than these into one: LZW a table entry into 12 bits, deflate 258 into 2 bits. */
const MOST_PACKED = 4096;
/** PhotometricInterpretation. */
const WHITE_IS_ZERO = 0;
const RGB = 2;
const PALETTE = 3;
/** SampleFormat. */
const UNSIGNED = 1;
const SIGNED = 2;
const FLOAT = 3;

/**
 * The size of a TIFF file in pixels; finds what {@link readTiff} would not read. TIFF has no check sums: of an uncompressed file
 * it is checked that all pixels lie within it, a compressed one is decoded.
 *
 * @throws UserError as {@link readTiff}
 */
export function inspectTiff(path: string): { width: number; height: number } {
  const file = openTiff(path);
  requirePicture(file);
  if (file.header.compression !== UNCOMPRESSED) decodePage(file);
  return { width: file.header.width, height: file.header.height };
}

/**
 * Reads a TIFF (8 or 16 bits a sample; grey, RGB or palette, with or without alpha; uncompressed, LZW or deflate) by the rules of
 * `readPng`: 16 bits lose their low byte, alpha is dropped, grey becomes three equal channels. (OpenCV does so for grey TIFF; of
 * RGB it rounds 16 bits, and multiplies by alpha.) Baseline TIFF 6.0 (Adobe 1992).
 *
 * The file must hold one image. Reduced copies and transparency masks (NewSubfileType 1 and 4) are passed over; a stack of
 * several is refused, for no page of it can be guessed to be the picture.
 *
 * @throws UserError that names the file where it is missing, truncated, corrupt, a stack, or of a kind that is not read
 */
export function readTiff(path: string): RgbImage {
  const { width, height, data: samples } = readTiffSamples(path);
  const data = new Uint8Array(width * height * 3);
  const shift = samples instanceof Uint16Array ? 8 : 0;
  if (samples.length === data.length) {
    for (let i = 0; i < data.length; i++) data[i] = samples[i] >> shift;
  } else {
    for (let i = 0; i < data.length; i++) data[i] = samples[Math.floor(i / 3)] >> shift;
  }
  return { width, height, data };
}

/** As {@link readTiff}, without loss: 16 bits stay 16, grey stays one channel. */
export function readTiffSamples(path: string): TiffSamples {
  const file = openTiff(path);
  requirePicture(file);
  const { header } = file;
  const { width, height, samplesPerPixel } = header;
  const samples = decodePage(file) as Uint8Array | Uint16Array;
  const kind = samples instanceof Uint16Array ? Uint16Array : Uint8Array;
  if (header.type === PALETTE) {
    const colours = palette(file);
    const data = new Uint16Array(width * height * 3);
    for (let i = 0; i < width * height; i++) data.set(colours[samples[i * samplesPerPixel]], i * 3);
    return { width, height, data };
  }
  const channels = samplesPerPixel < 3 ? 1 : 3;
  if (channels === samplesPerPixel) return { width, height, data: samples };
  const data = new kind(width * height * channels);
  for (let i = 0; i < data.length; i++) {
    data[i] = samples[Math.floor(i / channels) * samplesPerPixel + (i % channels)];
  }
  return { width, height, data };
}

/**
 * Reads the numbers that a grey TIFF holds, without any scaling: 1, 8, 16 or 32-bit integers, or 32 or 64-bit floats. Label images
 * of Cellpose, Fiji, napari and scikit-image are such files.
 *
 * @returns values [height, width]
 * @throws UserError as {@link readTiff}, and for colours
 */
export function readTiffValues(path: string): { width: number; height: number; values: ArrayLike<number> } {
  const file = openTiff(path);
  const { width, height, samplesPerPixel, type, bitsPerSample, sampleFormat } = file.header;
  if (samplesPerPixel !== 1 || type === PALETTE) {
    throw new UserError(`${path} is a colour image, expected a grey one whose values are numbers`);
  }
  const integers = sampleFormat !== FLOAT;
  if (!(integers ? [1, 8, 16, 32] : [32, 64]).includes(bitsPerSample)) {
    throw new UserError(
      `${path} has ${bitsPerSample} bits a sample, expected integers of 8, 16 or 32 bits, or floats of 32 or 64`,
    );
  }
  if (integers && bitsPerSample === 32) return { width, height, values: decode32(file) };
  const values = decodePage(file);
  if (type === WHITE_IS_ZERO) {
    // The library has turned them over to show them; as numbers they are meant as they stand.
    const most = 2 ** bitsPerSample - 1;
    for (let i = 0; i < values.length; i++) values[i] = most - values[i];
  }
  return { width, height, values };
}

function openTiff(path: string): TiffFile {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw new UserError(`${path} cannot be read: ${(error as Error).message}`);
  }
  const little = bytes.toString('latin1', 0, 2) === 'II';
  if (bytes.length < 8 || (!little && bytes.toString('latin1', 0, 2) !== 'MM')) {
    throw new UserError(`${path} is not a TIFF file (its first bytes differ)`);
  }
  const version = little ? bytes.readUInt16LE(2) : bytes.readUInt16BE(2);
  if (version === 43) throw new UserError(`${path} is a BigTIFF file, expected a TIFF of less than 4 GB`);
  if (version !== 42) throw new UserError(`${path} is not a TIFF file (its first bytes differ)`);
  checkChain(bytes, little, path);
  const pages = attempt(path, () => decode(bytes, { ignoreImageData: true }));
  const images = pages.flatMap((page, i) => (((page.newSubfileType ?? 0) & 5) === 0 ? [i] : []));
  // ImageJ writes stacks that are too large for the format as one page, and says so in the description.
  const stack = /^ImageJ=[\s\S]*^images=(\d+)/m.exec(pages[images[0]]?.imageDescription ?? '')?.[1];
  const count = Math.max(images.length, Number(stack ?? 1));
  if (count !== 1) throw new UserError(`${path} holds ${count} images, expected one (save the slices as files)`);
  const file = { path, bytes, page: images[0], header: pages[images[0]] };
  checkHeader(file);
  return file;
}

/** Pages are a linked list: it must end, and within the file. */
function checkChain(bytes: Buffer, little: boolean, path: string): void {
  const uint16 = (at: number): number => (little ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at));
  const uint32 = (at: number): number => (little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at));
  const seen = new Set<number>();
  let next = 4;
  for (let at = uint32(next); at !== 0; at = uint32(next)) {
    if (seen.has(at)) throw new UserError(`${path} is a corrupt TIFF file (its list of pages runs in a circle)`);
    seen.add(at);
    next = at + 2 <= bytes.length ? at + 2 + 12 * uint16(at) : Number.POSITIVE_INFINITY;
    if (next + 4 > bytes.length) throw new UserError(`${path} is a truncated TIFF file (a page begins at byte ${at})`);
  }
  if (seen.size === 0) throw new UserError(`${path} is a corrupt TIFF file (it has no page)`);
}

function checkHeader({ path, bytes, header }: TiffFile): void {
  const { width, height, compression, samplesPerPixel, bitsPerSample, tiled } = header;
  if (!(width >= 1 && height >= 1)) {
    throw new UserError(`${path} is a corrupt TIFF file (its size is ${width} × ${height})`);
  }
  // The format's default of 1 the library does not know.
  if (bitsPerSample === undefined) throw new UserError(`${path} has samples of 1 bit, expected 8 or 16`);
  if (![UNCOMPRESSED, LZW, ...DEFLATE].includes(compression)) {
    throw new UserError(`${path} is compressed by method ${compression}, expected none, LZW or deflate`);
  }
  if (header.orientation !== undefined && header.orientation !== 1) {
    throw new UserError(
      `${path} is stored turned (orientation ${header.orientation}), expected rows from top to bottom`,
    );
  }
  const bits: unknown = header.get('BitsPerSample');
  if (typeof bits !== 'number' && !Array.from(bits as ArrayLike<number>).every((own) => own === bitsPerSample)) {
    throw new UserError(`${path} has channels of different depths, expected one`);
  }
  if (samplesPerPixel > 1 && header.planarConfiguration !== 1) {
    throw new UserError(`${path} keeps its channels in separate planes, expected them pixel by pixel`);
  }
  // The library reads one channel of a tile, and undoes the predictor along the whole image's rows.
  if (tiled && (samplesPerPixel > 1 || (header.predictor !== 1 && (header.tileWidth ?? 0) < width))) {
    throw new UserError(`${path} is cut into tiles, expected strips (save it without tiles)`);
  }
  const offsets = (tiled ? header.tileOffsets : header.stripOffsets) ?? [];
  const lengths = tiled ? header.tileByteCounts : header.stripByteCounts;
  const rows = Math.min(header.rowsPerStrip, height);
  const pieces = tiled
    ? Math.ceil(width / (header.tileWidth ?? 1)) * Math.ceil(height / (header.tileHeight ?? 1))
    : Math.ceil(height / rows);
  if (offsets.length < pieces || (lengths !== undefined && lengths.length < pieces)) {
    throw new UserError(`${path} is a corrupt TIFF file (it has ${offsets.length} pieces of ${pieces})`);
  }
  const rowBytes = Math.ceil((width * samplesPerPixel * bitsPerSample) / 8);
  if (rowBytes * height > MOST_PACKED * bytes.length) {
    throw new UserError(
      `${path} is a corrupt TIFF file (${bytes.length} bytes cannot hold ${width} × ${height} pixels)`,
    );
  }
  for (let i = 0; i < pieces; i++) {
    const needed = tiled ? 0 : rowBytes * Math.min(rows, height - i * rows);
    const length = lengths?.[i] ?? needed;
    if (compression === UNCOMPRESSED && length < needed) {
      throw new UserError(`${path} is a corrupt TIFF file (piece ${i + 1} has ${length} bytes of ${needed})`);
    }
    if (offsets[i] + length > bytes.length) {
      throw new UserError(`${path} is a truncated TIFF file (it ends after ${bytes.length} bytes)`);
    }
  }
}

/** Fails for a file that shows no picture of 8 or 16 bits. */
function requirePicture(file: TiffFile): void {
  const { path, header } = file;
  const { bitsPerSample, samplesPerPixel, sampleFormat, type } = header;
  if (!(type >= WHITE_IS_ZERO && type <= PALETTE)) {
    throw new UserError(`${path} has colours of kind ${type}, expected grey, RGB or a palette`);
  }
  const channels = samplesPerPixel - (header.alpha ? 1 : 0);
  if (channels !== (type === RGB ? 3 : 1)) {
    throw new UserError(`${path} holds ${channels} channels, expected grey, RGB or a palette`);
  }
  if (!(sampleFormat === UNSIGNED && (bitsPerSample === 8 || bitsPerSample === 16))) {
    const kind = { [UNSIGNED]: '', [SIGNED]: 'signed ', [FLOAT]: 'float ' }[sampleFormat] ?? '';
    throw new UserError(`${path} has ${kind}samples of ${bitsPerSample} bits, expected unsigned ones of 8 or 16`);
  }
  if (type === PALETTE) palette(file);
}

/** The file's colours, 16 bits a channel. */
function palette({ path, header }: TiffFile): [number, number, number][] {
  const colours = attempt(path, () => header.palette);
  if (colours === undefined) throw new UserError(`${path} is a corrupt TIFF file (its palette is missing)`);
  // As libtiff: a palette without a value above 255 was written with 8 bits.
  return Math.max(...colours.flat()) < 256 ? colours.map(([r, g, b]) => [r * 257, g * 257, b * 257]) : colours;
}

function decodePage({ path, bytes, page }: TiffFile): Uint8Array | Uint16Array | Float32Array | Float64Array {
  return attempt(path, () => decode(bytes, { pages: [page] })[0].data);
}

/** Integers of 32 bits, which the library leaves out: strips, uncompressed or deflated. */
function decode32({ path, bytes, header }: TiffFile): Int32Array | Uint32Array {
  const { width, height, compression, stripOffsets, sampleFormat, predictor } = header;
  if (header.tiled || predictor !== 1 || compression === LZW) {
    throw new UserError(`${path} has integers of 32 bits in tiles or LZW, expected them uncompressed or of 16 bits`);
  }
  const strips = stripOffsets.map((at, i) => {
    const strip = bytes.subarray(at, at + (header.stripByteCounts?.[i] ?? bytes.length));
    return compression === UNCOMPRESSED ? strip : attempt(path, () => inflateSync(strip));
  });
  const data = Buffer.concat(strips);
  if (data.length < width * height * 4) {
    throw new UserError(`${path} is a corrupt TIFF file (its strips hold ${data.length} bytes)`);
  }
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const little = bytes[0] === 0x49;
  const values = new (sampleFormat === SIGNED ? Int32Array : Uint32Array)(width * height);
  for (let i = 0; i < values.length; i++) {
    values[i] = sampleFormat === SIGNED ? view.getInt32(i * 4, little) : view.getUint32(i * 4, little);
  }
  return values;
}

/** Whatever the library throws is a fault of the file. */
function attempt<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new UserError(`${path} is a corrupt TIFF file (${(error as Error).message})`);
  }
}
