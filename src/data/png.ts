import { readFileSync } from 'node:fs';
import * as zlib from 'node:zlib';
import { PNG } from 'pngjs';
import { UserError } from '../cli/errors.ts';
import { writeFileAtomic } from './files.ts';

/** An 8-bit colour image. */
export interface RgbImage {
  width: number;
  height: number;
  /** [height, width, 3], red first (OpenCV has blue first; a grey file has three equal channels in both). */
  data: Uint8Array;
}

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
/** The chunks that hold pixels. Transparency (tRNS) is not among them: OpenCV drops alpha and keeps the colour under it. */
const PIXEL_CHUNKS = new Set(['IHDR', 'PLTE', 'IDAT', 'IEND']);

interface PngFile {
  width: number;
  height: number;
  depth: number;
  /** 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGBA. */
  colorType: number;
  /** Signature and pixel chunks only. */
  pixels: Buffer;
}

/** Reads a file and walks through its chunks: their lengths and check sums must hold, and the file must reach its end mark. */
function openPng(path: string): PngFile {
  let file: Buffer;
  try {
    file = readFileSync(path);
  } catch (error) {
    throw new UserError(`${path} cannot be read: ${(error as Error).message}`);
  }
  if (!file.subarray(0, 8).equals(SIGNATURE)) throw new UserError(`${path} is not a PNG file (its first bytes differ)`);
  const kept: Buffer[] = [SIGNATURE];
  let at = 8;
  let type = '';
  while (type !== 'IEND') {
    const end = at + 12 <= file.length ? at + 12 + file.readUInt32BE(at) : Number.POSITIVE_INFINITY;
    if (end > file.length) throw new UserError(`${path} is a truncated PNG file (it ends after ${file.length} bytes)`);
    type = file.toString('latin1', at + 4, at + 8);
    if (at === 8 && (type !== 'IHDR' || end !== 33)) throw new UserError(`${path} is a corrupt PNG file (no header)`);
    // zlib.crc32 came with Node 20.15; on older ones pngjs's own check of the pixel chunks is left.
    if (typeof zlib.crc32 === 'function' && zlib.crc32(file.subarray(at + 4, end - 4)) !== file.readUInt32BE(end - 4)) {
      throw new UserError(`${path} is a corrupt PNG file (the check sum of its ${type} chunk at byte ${at} is wrong)`);
    }
    if (PIXEL_CHUNKS.has(type)) kept.push(file.subarray(at, end));
    at = end;
  }
  const width = file.readUInt32BE(16);
  const height = file.readUInt32BE(20);
  if (width === 0 || height === 0)
    throw new UserError(`${path} is a corrupt PNG file (its size is ${width} × ${height})`);
  return { width, height, depth: file[24], colorType: file[25], pixels: Buffer.concat(kept) };
}

/**
 * The size of a PNG file in pixels, without decoding it; finds truncated files and wrong check sums.
 *
 * @throws UserError that names the file
 */
export function inspectPng(path: string): { width: number; height: number } {
  const { width, height } = openPng(path);
  return { width, height };
}

/**
 * Reads a PNG of any colour type and depth (grey, grey with alpha, RGB, RGBA, palette; 1 to 16 bits; interlaced or not) as
 * OpenCV's `imread(path, IMREAD_COLOR)`: 16 bits lose their low byte, alpha is dropped, grey becomes three equal channels.
 * The one difference is the order of the channels: red first here.
 *
 * @throws UserError that names the file where it is missing, truncated or corrupt
 */
export function readPng(path: string): RgbImage {
  const file = openPng(path);
  const { width, height, depth } = file;
  // pngjs would round 16 bits to 8.
  const rgba = decode(file, path, { skipRescale: depth === 16 });
  const shift = depth === 16 ? 8 : 0;
  const data = new Uint8Array(width * height * 3);
  for (let i = 0, from = 0; i < data.length; i += 3, from += 4) {
    data[i] = rgba[from] >> shift;
    data[i + 1] = rgba[from + 1] >> shift;
    data[i + 2] = rgba[from + 2] >> shift;
  }
  return { width, height, data };
}

/** Writes a PNG, atomically; see `encodePng`. */
export function writePng(path: string, width: number, height: number, data: Uint8Array | Uint16Array): void {
  writeFileAtomic(path, encodePng(width, height, data));
}

/**
 * Reads the numbers that a grey PNG holds, without any scaling: 0 … 2^depth - 1. A colour PNG is taken for a grey one where its
 * three channels are equal in every pixel; alpha is dropped.
 *
 * @returns values [height, width]
 * @throws UserError that names the file where it cannot be read, or shows colours (or numbers that stand for some: a palette)
 */
export function readPngValues(path: string): { width: number; height: number; values: Uint16Array } {
  const file = openPng(path);
  const { width, height, colorType } = file;
  if (colorType === 3) throw new UserError(`${path} has a palette, expected a grey image whose values are numbers`);
  const rgba = decode(file, path, { skipRescale: true });
  const values = new Uint16Array(width * height);
  for (let i = 0, from = 0; i < values.length; i++, from += 4) {
    if (rgba[from] !== rgba[from + 1] || rgba[from] !== rgba[from + 2]) {
      throw new UserError(`${path} is a colour image, expected a grey one whose values are numbers`);
    }
    values[i] = rgba[from];
  }
  return { width, height, values };
}

/** @returns [height, width, 4]; 16-bit numbers for a file of that depth that is not rescaled (pngjs's types know Buffer only) */
function decode({ pixels }: PngFile, path: string, options: { skipRescale: boolean }): Uint8Array | Uint16Array {
  try {
    return PNG.sync.read(pixels, options).data as Uint8Array | Uint16Array;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new UserError(`${path} is a corrupt PNG file (${reason})`);
  }
}

/**
 * The bytes of a PNG file.
 *
 * @param data [height, width, 1 (grey), 3 (RGB) or 4 (RGBA)], in a file of 8 bits a channel or, if it is 16-bit, of 16
 */
export function encodePng(width: number, height: number, data: Uint8Array | Uint16Array): Buffer {
  const channels = data.length / (width * height);
  const colorType = ({ 1: 0, 3: 2, 4: 6 } as const)[channels];
  if (colorType === undefined) {
    throw new RangeError(`encodePng: ${data.length} numbers are not ${width} × ${height} pixels of 1, 3 or 4 channels`);
  }
  const png = new PNG({ width, height });
  // 16 bits pngjs takes in the machine's order and from the start of the memory below.
  const { buffer, byteOffset, byteLength } = data instanceof Uint16Array ? data.slice() : data;
  png.data = Buffer.from(buffer, byteOffset, byteLength);
  const bitDepth = data instanceof Uint16Array ? 16 : 8;
  const options = { bitDepth, colorType, inputColorType: colorType, inputHasAlpha: channels === 4 } as const;
  return PNG.sync.write(png, options);
}
