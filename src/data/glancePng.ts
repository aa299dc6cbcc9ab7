import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { UserError } from '../cli/errors.ts';
import { inspectPng } from './png.ts';

const HEAD = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13, 0x49, 0x48, 0x44, 0x52]);
/** The last chunk: no bytes, its type, its check sum. */
const TAIL = Buffer.from([0, 0, 0, 0, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82]);

/** What the two ends of a file tell. */
export interface PngGlance {
  width: number;
  height: number;
  /**
   * Changes with the file's contents, almost surely: its length, and the check sum of the chunk before the end mark, which in
   * most files holds the check sum of all pixels.
   */
  fingerprint: string;
}

/**
 * Looks at the first and the last bytes of a PNG: its size, and that it has its end. For thousands of files: the check sums in
 * between are checked when the file is decoded. A file with bytes behind its end mark is read whole.
 *
 * @throws UserError that names the file where it is missing, no PNG, or truncated
 */
export function glancePng(path: string): PngGlance {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch (error) {
    throw new UserError(`${path} cannot be read: ${(error as Error).message}`);
  }
  const head = Buffer.alloc(24);
  const tail = Buffer.alloc(16);
  let bytes = 0;
  try {
    bytes = fstatSync(file).size;
    if (bytes > head.length + tail.length) {
      readSync(file, head, 0, head.length, 0);
      readSync(file, tail, 0, tail.length, bytes - tail.length);
    }
  } catch (error) {
    throw new UserError(`${path} cannot be read: ${(error as Error).message}`);
  } finally {
    closeSync(file);
  }
  const whole = head.subarray(0, HEAD.length).equals(HEAD) && tail.subarray(4).equals(TAIL);
  const size = { width: head.readUInt32BE(16), height: head.readUInt32BE(20) };
  const { width, height } = whole && size.width > 0 && size.height > 0 ? size : inspectPng(path);
  return { width, height, fingerprint: `${bytes}-${tail.toString('hex', 0, 4)}` };
}
