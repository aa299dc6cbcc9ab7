/** Weights written one tensor at a time: safetensors, or a zip as torch.save writes it. The same content gives the same bytes. */
import { Uint8ArrayReader, ZipWriter } from '@zip.js/zip.js/lib/zip-core-native.js';
import { encodeValues, type Values } from '../dtypes.ts';
import { safetensorsLayout, type TensorDescription } from '../safetensorsFormat.ts';
import { pickleStateDict } from './pickleWriter.ts';
import { METADATA_RECORD } from './torchZip.ts';

/** A tensor whose values are asked for when its turn comes. */
export interface LazyTensor extends TensorDescription {
  /** Row-major, one for each element. */
  values(): Promise<Values | Uint8Array>;
}

/** Takes the file's bytes, in order. */
export type Write = (bytes: Uint8Array) => void;

async function tensorBytes(tensor: LazyTensor): Promise<Uint8Array> {
  return encodeValues(tensor.dtype, await tensor.values(), `Tensor '${tensor.name}'`);
}

/** @throws UserError for a number that float16 cannot hold, and what `values` throws */
export async function writeSafetensorsTo(
  write: Write,
  tensors: readonly LazyTensor[],
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  const { head, order } = safetensorsLayout(tensors, metadata);
  write(head);
  for (const tensor of order) write(await tensorBytes(tensor));
}

/** Where the records of the zip lie; torch.load takes any folder. */
const ROOT = 'archive/';
/** torch aligns storages to this, so that they can be mapped into memory. */
const ALIGNMENT = 64;
/** Bytes of a zip's local header before the record's name, and of an extra field before its data. */
const HEADER_BYTES = 30;
const EXTRA_BYTES = 4;
/** The type of torch's padding field, "FB". */
const PADDING_FIELD = 0x4246;
/** 1980-01-01 as zips count: their first day, so that the bytes do not tell when they were written. */
const FIRST_DAY = 0x210000;

/**
 * A zip that `torch.load(file, weights_only=True)` reads as an OrderedDict in the order given. Metadata lie in a record of their own,
 * which torch passes over.
 * @throws UserError for a number that float16 cannot hold, and what `values` throws
 */
export async function writeTorchTo(
  write: Write,
  tensors: readonly LazyTensor[],
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  let position = 0;
  const sink = new WritableStream<Uint8Array>({
    write(chunk) {
      position += chunk.length;
      write(chunk);
    },
  });
  const zip = new ZipWriter(sink, {
    level: 0,
    useWebWorkers: false,
    extendedTimestamp: false,
    msDosCompatible: true,
    rawLastModDate: FIRST_DAY,
  });
  const add = async (record: string, bytes: Uint8Array): Promise<void> => {
    const name = ROOT + record;
    const start = position + HEADER_BYTES + name.length + EXTRA_BYTES;
    const padding = new Uint8Array((ALIGNMENT - (start % ALIGNMENT)) % ALIGNMENT).fill('Z'.charCodeAt(0));
    await zip.add(name, new Uint8ArrayReader(bytes as Uint8Array<ArrayBuffer>), {
      extraField: new Map([[PADDING_FIELD, padding]]),
    });
  };
  const text = (value: string): Uint8Array => new TextEncoder().encode(value);
  await add('data.pkl', pickleStateDict(tensors));
  await add('byteorder', text('little'));
  for (const [index, tensor] of tensors.entries()) await add(`data/${index}`, await tensorBytes(tensor));
  await add('version', text('3\n'));
  if (Object.keys(metadata).length > 0) await add(METADATA_RECORD, text(JSON.stringify(metadata)));
  await zip.close();
}
