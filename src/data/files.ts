import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { UserError } from '../cli/errors.ts';

/**
 * Writes `data` to `path` so that no reader ever sees half a file: to a temporary name in the same folder, then renamed.
 * Missing folders are made. The temporary file is removed when writing fails.
 */
export function writeFileAtomic(path: string, data: string | Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true });
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`);
  try {
    writeFileSync(temporary, data);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
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
