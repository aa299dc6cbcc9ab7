/** Safetensors files in Node: one tensor at a time by positioned reads, written at once under a temporary name. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { UserError } from '../cli/errors.ts';
import { writeFileAtomic } from '../data/files.ts';
import {
  encodeSafetensors,
  headerLength,
  parseHeader,
  type Safetensors,
  safetensorsReader,
  type TensorToWrite,
} from './safetensorsFormat.ts';

export * from './safetensorsFormat.ts';

/** A file kept open, so that its tensors belong together even if another is renamed over its path. */
export interface SafetensorsFile extends Safetensors {
  path: string;
  /** Ends reading; further calls do nothing. */
  close(): void;
}

/** Fills a fresh buffer from byte `position` on; a shorter buffer where the file ends first. */
function readAt(fd: number, position: number, length: number): Uint8Array<ArrayBuffer> {
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
 * Opens a file and checks its whole header; tensors are read when asked for. Close it when done.
 * @throws UserError naming the file when it cannot be opened, is of another kind, damaged or cut short
 */
export function openSafetensors(path: string): SafetensorsFile {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new UserError(code === 'ENOENT' ? `There is no file ${path}.` : `${path} cannot be opened (${code}).`);
  }
  let open = true;
  const close = () => {
    if (open) closeSync(fd);
    open = false;
  };
  try {
    const status = fstatSync(fd);
    if (!status.isFile()) throw new UserError(`${path} is not a file, expected a safetensors file.`);
    const length = headerLength(readAt(fd, 0, Math.min(8, status.size)), status.size, path);
    const header = parseHeader(readAt(fd, 8, length), status.size, path);
    const reader = safetensorsReader(
      header,
      (entry) => {
        if (!open) throw new Error(`${path} was closed before tensor '${entry.name}' was read.`);
        const bytes = readAt(fd, entry.offset, entry.length);
        if (bytes.length !== entry.length) {
          throw new UserError(`${path} was cut short while it was read: tensor '${entry.name}' is incomplete.`);
        }
        return bytes.buffer;
      },
      path,
    );
    return { ...reader, path, close };
  } catch (error) {
    close();
    throw error;
  }
}

/** Writes a file (see `encodeSafetensors` for its order of tensors) so that no reader ever sees half of it. */
export function writeSafetensors(
  path: string,
  tensors: Iterable<TensorToWrite>,
  metadata: Readonly<Record<string, string>> = {},
): void {
  writeFileAtomic(path, encodeSafetensors(tensors, metadata));
}
