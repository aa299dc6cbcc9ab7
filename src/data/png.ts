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
  return { width, height, depth: file[24], pixels: Buffer.concat(kept) };
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
  const { width, height, depth, pixels } = openPng(path);
  let rgba: Uint8Array | Uint16Array;
  try {
    // pngjs would round 16 bits to 8; unscaled, it hands out a Uint16Array (its types know Buffer only).
    rgba = PNG.sync.read(pixels, { skipRescale: depth === 16 }).data as Uint8Array | Uint16Array;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new UserError(`${path} is a corrupt PNG file (${reason})`);
  }
  const shift = depth === 16 ? 8 : 0;
  const data = new Uint8Array(width * height * 3);
  for (let i = 0, from = 0; i < data.length; i += 3, from += 4) {
    data[i] = rgba[from] >> shift;
    data[i + 1] = rgba[from + 1] >> shift;
    data[i + 2] = rgba[from + 2] >> shift;
  }
  return { width, height, data };
}

/** Writes an 8-bit PNG, atomically; see `encodePng`. */
export function writePng(path: string, width: number, height: number, data: Uint8Array): void {
  writeFileAtomic(path, encodePng(width, height, data));
}

/**
 * The bytes of an 8-bit PNG file.
 *
 * @param data [height, width, 1 (grey), 3 (RGB) or 4 (RGBA)]
 */
export function encodePng(width: number, height: number, data: Uint8Array): Buffer {
  const channels = data.length / (width * height);
  const colorType = ({ 1: 0, 3: 2, 4: 6 } as const)[channels];
  if (colorType === undefined) {
    throw new RangeError(`encodePng: ${data.length} bytes are not ${width} × ${height} pixels of 1, 3 or 4 channels`);
  }
  const png = new PNG({ width, height });
  png.data = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const options = { colorType, inputColorType: colorType, inputHasAlpha: channels === 4 };
  return PNG.sync.write(png, options);
}
