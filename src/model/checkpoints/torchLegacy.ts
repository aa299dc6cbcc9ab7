/**
 * torch.save's form before PyTorch 1.6 (torch/serialization.py, `_legacy_save`): pickles of a magic number, a protocol version, the
 * system, the object and the storages' keys, one after another, then each storage as its number of elements and its bytes.
 */
import { UserError } from '../../cli/errors.ts';
import { bytesPerElement } from '../dtypes.ts';
import { type ByteSource, readExactly, readPieces } from './byteSource.ts';
import { PickleEnds } from './pickle.ts';
import type { Storages } from './storedValues.ts';
import { type StorageRef, shown, stateDictOf, unpickleTorch } from './torchObjects.ts';
import type { TorchFile } from './torchZip.ts';

const MAGIC = 0x1950a86a20f9469cfc6cn;
const PROTOCOL_VERSION = 1001;
/** Pickles lie in this much of the file, mostly. */
const FIRST_BYTES = 64 * 1024;
const MAX_PICKLE_BYTES = 64 * 1024 * 1024;

interface Pickles {
  system: unknown;
  root: unknown;
  /** All that the object refers to, by key. */
  storages: Map<string, StorageRef>;
  /** Keys in the order of the storages' bytes. */
  keys: unknown;
  /** Where those begin. */
  end: number;
}

/** @throws PickleEnds when the pickles are longer than `bytes` */
function parsePickles(bytes: Uint8Array, { name, size }: ByteSource): Pickles {
  let end = 0;
  const next = () => {
    const read = unpickleTorch(bytes, end, name, size);
    end = read.end;
    return read;
  };
  if (next().value !== MAGIC) throw new UserError(`${name} is a pickle, but not one that torch.save wrote.`);
  if (next().value !== PROTOCOL_VERSION) {
    throw new UserError(`${name} has another version of torch.save's legacy form, expected ${PROTOCOL_VERSION}.`);
  }
  const system = next().value;
  const { value: root, storages } = next();
  return { system, root, storages, keys: next().value, end };
}

/**
 * Pickles do not tell their length: more of the file is read until they are whole. The last step takes all that is left, so that all
 * attempts together read less than twice the file.
 */
async function readPickles(source: ByteSource): Promise<Pickles> {
  const most = Math.min(source.size, MAX_PICKLE_BYTES);
  for (let length = Math.min(FIRST_BYTES, most); ; length = length * 16 > most ? most : length * 8) {
    const bytes = await readExactly(source, 0, length);
    try {
      return parsePickles(bytes, source);
    } catch (error) {
      if (!(error instanceof PickleEnds) || length >= most) throw error;
    }
  }
}

/** The first byte of each storage's elements. */
async function locate(source: ByteSource, { storages, keys, end }: Pickles): Promise<Map<string, number>> {
  const offsets = new Map<string, number>();
  let at = end;
  for (const key of Array.isArray(keys) ? keys : []) {
    const storage = storages.get(key);
    if (!storage) throw new UserError(`${source.name} is damaged: its storages are not those of its pickle.`);
    const stored = new DataView((await readExactly(source, at, 8)).buffer).getBigInt64(0, true);
    if (stored !== BigInt(storage.elements)) {
      throw new UserError(
        `${source.name} is damaged: its storage ${shown(storage.key)} has ${stored} elements, but its pickle says ${storage.elements}.`,
      );
    }
    offsets.set(storage.key, at + 8);
    at += 8 + storage.elements * bytesPerElement[storage.dtype];
    if (at > source.size) {
      throw new UserError(
        `${source.name} is cut short: its storage ${shown(storage.key)} should end at byte ${at}, but it has ${source.size} bytes.`,
      );
    }
  }
  return offsets;
}

/** Opens a legacy file: its pickles are read, its storages are only found. @throws UserError naming the file */
export async function openTorchLegacy(source: ByteSource): Promise<TorchFile> {
  const pickles = await readPickles(source);
  if (!(pickles.system instanceof Map) || pickles.system.get('little_endian') !== true) {
    throw new UserError(`${source.name} was written on a big-endian machine, expected little-endian numbers.`);
  }
  const tensors = stateDictOf(pickles.root, source.name);
  const offsets = await locate(source, pickles);
  const storages: Storages = {
    async read({ key, dtype }, first, count, take) {
      const start = offsets.get(key);
      if (start === undefined) throw new UserError(`${source.name} is damaged: its storage ${shown(key)} is missing.`);
      const step = bytesPerElement[dtype];
      await readPieces(source, { offset: start + first * step, length: count * step, step }, take);
    },
  };
  return { tensors, storages, metadata: {} };
}
