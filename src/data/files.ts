import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { UserError } from '../cli/errors.ts';

/**
 * Writes `data` to `path` so that no reader ever sees half a file: to a temporary name in the same folder, then renamed.
 * Missing folders are made. The temporary file is removed when writing fails.
 */
export function writeFileAtomic(path: string, data: string | Uint8Array): void {
  writePartsAtomic(path, [data]);
}

/** As {@link writeFileAtomic}, for data that come in parts and are never held whole. An error of `parts` leaves no file behind. */
export function writePartsAtomic(path: string, parts: Iterable<string | Uint8Array>): void {
  const temporary = temporaryName(path);
  try {
    const file = openSync(temporary, 'wx');
    try {
      for (const part of parts) writeFileSync(file, part);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** As `writeFileAtomic`, for a file that is written piece by piece: `fill` gets the function that appends one. */
export async function writePiecesAtomic(
  path: string,
  fill: (write: (bytes: Uint8Array) => void) => Promise<void>,
): Promise<void> {
  const temporary = temporaryName(path);
  const fd = openSync(temporary, 'wx');
  try {
    try {
      await fill((bytes) => {
        for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
      });
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** A free name beside `path`, whose folder is made. */
function temporaryName(path: string): string {
  mkdirSync(dirname(path), { recursive: true });
  return join(dirname(path), `.${basename(path)}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`);
}

/**
 * Fails with one sentence where `dir` could not be made, because it or a folder above it is a file. It makes nothing.
 * @param option the option that gave it, to begin the sentence
 */
export function requireOutputFolder(dir: string, option: string): void {
  let path = resolve(dir);
  while (!existsSync(path) && path !== dirname(path)) path = dirname(path);
  if (!statSync(path).isDirectory()) throw new UserError(`${option} ${dir}: ${path} is a file, expected a folder.`);
}

/** SHA-256 of a file's bytes, hexadecimal; a piece of it is in memory at a time. */
export function sha256OfFile(path: string): string {
  const hash = createHash('sha256');
  const piece = Buffer.alloc(1 << 20);
  const file = openSync(path, 'r');
  try {
    for (let read = readSync(file, piece); read > 0; read = readSync(file, piece)) hash.update(piece.subarray(0, read));
  } finally {
    closeSync(file);
  }
  return hash.digest('hex');
}

/**
 * Fails with one sentence where `path` could not be written, because it is a folder or a folder above it is a file. It makes nothing.
 * @param option the option that gave it, to begin the sentence
 */
export function requireOutputFile(path: string, option: string): void {
  if (existsSync(path) && statSync(path).isDirectory()) {
    throw new UserError(`${option} ${path}: this is a folder, expected a file.`);
  }
  requireOutputFolder(dirname(path), option);
}
