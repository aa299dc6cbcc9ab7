/** Files as byte sources, in Node. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { UserError } from '../../cli/errors.ts';
import type { ByteSource } from './byteSource.ts';

/** A file kept open, so that what is read belongs together even if another is renamed over its path. */
export interface FileSource extends ByteSource {
  /** Ends reading; further calls do nothing. */
  close(): void;
}

/** Fills a fresh buffer from byte `position` on; a shorter buffer where the file ends first. */
export function readAt(fd: number, position: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const count = readSync(fd, bytes, done, length - done, position + done);
    if (count === 0) return bytes.slice(0, done);
    done += count;
  }
  return bytes;
}

/**
 * Opens a file of weights for reading.
 * @throws UserError naming the path when there is none, it cannot be opened or is no file
 */
export function openToRead(path: string): { fd: number; size: number; close(): void } {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new UserError(code === 'ENOENT' ? `There is no file ${path}.` : `${path} cannot be opened (${code}).`);
  }
  let open = true;
  const close = (): void => {
    if (open) closeSync(fd);
    open = false;
  };
  const status = fstatSync(fd);
  if (!status.isFile()) {
    close();
    throw new UserError(`${path} is not a file, expected a file of weights.`);
  }
  return { fd, size: status.size, close };
}

/** @throws UserError naming the path when there is none, it cannot be opened or is no file */
export function fileSource(path: string): FileSource {
  const { fd, size, close } = openToRead(path);
  return { name: path, size, close, read: async (offset, length) => readAt(fd, offset, length) };
}
