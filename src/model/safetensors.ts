/** Safetensors files in Node: one tensor at a time by positioned reads, written at once under a temporary name. */
import { UserError } from '../cli/errors.ts';
import { writeFileAtomic } from '../data/files.ts';
import { openToRead, readAt } from './checkpoints/fileSource.ts';
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

/**
 * Opens a file and checks its whole header; tensors are read when asked for. Close it when done.
 * @throws UserError naming the file when it cannot be opened, is of another kind, damaged or cut short
 */
export function openSafetensors(path: string): SafetensorsFile {
  const { fd, size, close: closeFile } = openToRead(path);
  let open = true;
  const close = () => {
    closeFile();
    open = false;
  };
  try {
    const length = headerLength(readAt(fd, 0, Math.min(8, size)), size, path);
    const header = parseHeader(readAt(fd, 8, length), size, path);
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
