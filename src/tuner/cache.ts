import { existsSync, linkSync, mkdirSync, readdirSync, readFileSync, rmSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { writeFileAtomic } from '../data/files.ts';
import { cacheFolder, cacheName } from '../gpu/cacheFolder.ts';
import type { Device } from '../tensor/device.ts';
import { type AdapterKey, choicesAreLegal, differingPart, type TunedKernels, tunedSchema } from './tunedChoice.ts';

/** Where measured choices are kept, a file for each adapter. */
export function tunerFolder(): string {
  return join(cacheFolder(), 'tuner');
}

/** The file of an adapter, whatever its driver and our kernels: choices for older ones are found there, and measured anew. */
export function tunedFile({ name, vendor, architecture, device }: AdapterKey, folder = tunerFolder()): string {
  return join(folder, cacheName(name, [name, vendor, architecture, device]));
}

/** What a file holds, or one sentence why it is of no use; null where there is none. */
export function readTuned(path: string): TunedKernels | string | null {
  if (!existsSync(path)) return null;
  try {
    return tunedSchema.parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch {
    return `${path} does not hold measured kernels as this version writes them; they are measured anew.`;
  }
}

/** The choices for an adapter, or one sentence why those that are kept are of no use; null where there are none. */
export function cachedKernels(device: Device, key: AdapterKey, folder = tunerFolder()): TunedKernels | string | null {
  const path = tunedFile(key, folder);
  const found = readTuned(path);
  if (found === null || typeof found === 'string') return found;
  const other = differingPart(found.key, key);
  if (other !== undefined) {
    const what = other === 'kernels' ? 'other versions of the kernels' : `another ${other} (${found.key[other]})`;
    return `${path} was measured with ${what}; the kernels are measured anew.`;
  }
  if (!choicesAreLegal(device, found)) {
    return `${path} names kernels that ${key.name} cannot run; they are measured anew.`;
  }
  return found;
}

/**
 * Keeps choices for the next time. Of processes that measure at once the first to end wins, so that all runs from then on compute by the same
 * kernels.
 *
 * @param replace overwrites choices that are there
 * @returns what is kept now: `tuned`, or what another process has kept meanwhile
 */
export function keepTuned(tuned: TunedKernels, { replace = false, folder = tunerFolder() } = {}): TunedKernels {
  const path = tunedFile(tuned.key, folder);
  const text = `${JSON.stringify(tuned, null, 2)}\n`;
  if (replace) {
    writeFileAtomic(path, text);
    return tuned;
  }
  const complete = `${path}.${process.pid}`;
  writeFileAtomic(complete, text);
  try {
    // A second name is given only where there is none: unlike renaming, it never overwrites.
    mkdirSync(dirname(path), { recursive: true });
    linkSync(complete, path);
    return tuned;
  } catch (error) {
    const other = (error as NodeJS.ErrnoException).code === 'EEXIST' ? readTuned(path) : null;
    const isTuned = other !== null && typeof other !== 'string';
    if (isTuned && differingPart(other.key, tuned.key) === undefined) return other;
    // What is there is of no use, or the file system knows no second names.
    writeFileAtomic(path, text);
    return tuned;
  } finally {
    unlinkSync(complete);
  }
}

/** All files of measured choices. */
export function tunedFiles(folder = tunerFolder()): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => join(folder, name));
}

/** Removes all measured choices. @returns how many there were */
export function clearTuned(folder = tunerFolder()): number {
  const files = tunedFiles(folder);
  for (const file of files) rmSync(file, { force: true });
  return files.length;
}
