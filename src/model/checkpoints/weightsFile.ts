/** One way to read weights, whatever file they are in: safetensors, or torch.save's zip or legacy form. */
import { UserError } from '../../cli/errors.ts';
import {
  bytesPerElement,
  type Dtype,
  decodeInto,
  elementCount,
  emptyValues,
  isFloating,
  type Values,
} from '../dtypes.ts';
import { headerLength, parseHeader } from '../safetensorsFormat.ts';
import { type ByteSource, readExactly, readPieces } from './byteSource.ts';
import { readStored } from './storedValues.ts';
import { openTorchLegacy } from './torchLegacy.ts';
import { openTorchZip, type TorchFile } from './torchZip.ts';

/** What is known of a tensor before its values are read. */
export interface TensorInfo {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

/** A file's names and shapes are known once it is open; each tensor's values are read when asked for and not kept. */
export interface WeightsFile {
  /** Path or name, to begin the sentences of errors. */
  readonly path: string;
  readonly form: 'safetensors' | 'torch zip' | 'torch legacy';
  /** What this program wrote beside the weights; empty for files of others. */
  readonly metadata: Readonly<Record<string, string>>;
  /** By name, in the file's order. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** One tensor's values, row-major. @throws UserError without such a tensor, or when it cannot be read whole */
  read(name: string): Promise<Values>;
  /** As `read`. @throws UserError also when the tensor holds integers */
  readFloat32(name: string): Promise<Float32Array<ArrayBuffer>>;
}

type Parts = Omit<WeightsFile, 'path' | 'read' | 'readFloat32'> & { values(name: string): Promise<Values> };

async function openSafetensorsParts(source: ByteSource): Promise<Parts> {
  const { name: path, size } = source;
  const length = headerLength(await readExactly(source, 0, Math.min(8, size)), size, path);
  const { metadata, tensors } = parseHeader(await readExactly(source, 8, length), size, path);
  return {
    form: 'safetensors',
    metadata,
    tensors,
    async values(name) {
      const entry = tensors.get(name)!;
      const { dtype, offset, length, shape } = entry;
      const step = bytesPerElement[dtype];
      const what = `${path}: tensor '${name}'`;
      // One-byte elements are read as integers of four.
      if (length * (4 / step) > 2 * size)
        throw new UserError(`${what} of ${dtype} [${shape}] is larger than weights are.`);
      const out = emptyValues(dtype, elementCount(shape));
      await readPieces(source, { offset, length, step }, (bytes, done) =>
        decodeInto(out, done / step, dtype, bytes, what),
      );
      return out;
    },
  };
}

async function openTorchParts(source: ByteSource, form: 'torch zip' | 'torch legacy'): Promise<Parts> {
  const open: (source: ByteSource) => Promise<TorchFile> = form === 'torch zip' ? openTorchZip : openTorchLegacy;
  const { tensors, storages, metadata } = await open(source);
  return {
    form,
    metadata,
    tensors,
    values: (name) => readStored(tensors.get(name)!, storages, source.size, `${source.name}: tensor '${name}'`),
  };
}

/** A zip begins with its first local header, a pickle of protocol 2 with the bytes 80 02. */
async function openParts(source: ByteSource): Promise<Parts> {
  if (source.size === 0)
    throw new UserError(`${source.name} is empty, expected weights (.safetensors, .pth, .pt, .bin).`);
  const start = await readExactly(source, 0, Math.min(8, source.size));
  if (start[0] === 0x50 && start[1] === 0x4b) return openTorchParts(source, 'torch zip');
  if (start[0] === 0x80 && start[1] >= 2 && start[1] <= 5) return openTorchParts(source, 'torch legacy');
  return openSafetensorsParts(source);
}

/**
 * Opens a file by what it holds, not by its ending. Names and shapes are checked against the file's size.
 * @throws UserError naming the file and what is wrong, refused or missing
 */
export async function openWeights(source: ByteSource): Promise<WeightsFile> {
  const { values, ...parts } = await openParts(source);
  const path = source.name;
  const read = (name: string): Promise<Values> => {
    if (!parts.tensors.has(name)) throw new UserError(`${path} has no tensor '${name}'.`);
    return values(name);
  };
  return {
    ...parts,
    path,
    read: async (name) => read(name),
    async readFloat32(name) {
      const info = parts.tensors.get(name);
      if (info && !isFloating(info.dtype)) {
        throw new UserError(`${path}: tensor '${name}' has the dtype ${info.dtype}, expected floating-point values.`);
      }
      return (await read(name)) as Float32Array<ArrayBuffer>;
    },
  };
}
