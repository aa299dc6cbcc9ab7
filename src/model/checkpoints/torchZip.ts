/**
 * torch.save's zip form (PyTorch 1.6 and later; torch/csrc/jit/serialization, caffe2/serialize/inline_container.h): one folder with
 * `data.pkl`, a file `data/<key>` for each storage, stored and aligned, `version`, `byteorder`.
 */
import { type FileEntry, type Reader, ZipReader } from '@zip.js/zip.js/lib/zip-core-reader.js';
import { UserError } from '../../cli/errors.ts';
import { bytesPerElement } from '../dtypes.ts';
import { type ByteSource, pieceWriter, readExactly, readPieces } from './byteSource.ts';
import { crc32 } from './crc32.ts';
import type { Storages } from './storedValues.ts';
import { type StorageRef, type StoredTensor, shown, stateDictOf, unpickleTorch } from './torchObjects.ts';

/** What this program knows of a model besides its weights, which torch.load passes over. */
export const METADATA_RECORD = 'extra/webgpu-mask-rcnn.json';

const MAX_PICKLE_BYTES = 64 * 1024 * 1024;
const MAX_METADATA_BYTES = 1024 * 1024;
/** A packed pickle may be this large whatever the file's size. */
const MIN_LIMIT = 1024 * 1024;
/** How much more than the whole file one packed entry may hold; weights hardly shrink by packing. */
const MAX_UNPACKED = 8;
/** Entries of a zip: a multiple of what weights need, but bounded by the file, as each takes memory. */
const maxEntries = (size: number): number => 1000 + size / 512;

// A worker would cost more than the copying that it takes over.
const ZIP_OPTIONS = { useWebWorkers: false };
/** Bytes of a packed entry that are read at a time. */
const CHUNK = 64 * 1024;

/** A source as the zip library reads it; without its base class, which would bring its writer into the page. */
class SourceReader implements Reader<ByteSource> {
  readonly size: number;
  readonly #source: ByteSource;

  constructor(source: ByteSource) {
    this.#source = source;
    this.size = source.size;
  }

  get readable(): ReadableStream<Uint8Array> {
    return this.createReadable();
  }

  createReadable(range: { offset?: number; size?: number } = {}): ReadableStream<Uint8Array> {
    const offset = range.offset ?? 0;
    const size = range.size ?? this.size - offset;
    let done = 0;
    return new ReadableStream({
      pull: async (controller) => {
        const chunk = await this.readUint8Array(offset + done, Math.min(CHUNK, size - done));
        done += chunk.length;
        if (chunk.length > 0) controller.enqueue(chunk);
        if (done >= size || chunk.length === 0) controller.close();
      },
    });
  }

  async readUint8Array(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const end = Math.min(offset + length, this.size);
    return readExactly(this.#source, offset, Math.max(0, end - offset));
  }
}

/** An archive of torch.save whose records are found by their names within its folder. */
class TorchArchive implements Storages {
  readonly #source: ByteSource;
  readonly #entries: Map<string, FileEntry>;
  readonly #root: string;
  readonly #verified = new Set<FileEntry>();

  constructor(source: ByteSource, entries: Map<string, FileEntry>) {
    this.#source = source;
    this.#entries = entries;
    const pickle = [...entries.keys()].find((name) => /^[^/]+\/data\.pkl$/.test(name));
    if (pickle === undefined) {
      throw new UserError(`${source.name} is a zip file without data.pkl, expected one that torch.save wrote.`);
    }
    this.#root = pickle.slice(0, -'data.pkl'.length);
  }

  #entry(record: string): FileEntry {
    const entry = this.#entries.get(this.#root + record);
    if (!entry) throw new UserError(`${this.#source.name} is damaged: it has no record ${shown(record)}.`);
    if (entry.encrypted) throw new UserError(`${this.#source.name} is encrypted, expected a file of torch.save.`);
    if (entry.uncompressedSize > MAX_UNPACKED * this.#source.size) {
      throw new UserError(
        `${this.#source.name}: its record ${shown(record)} would unpack to ${entry.uncompressedSize} bytes, more than weights can.`,
      );
    }
    return entry;
  }

  /** Streams a packed entry and compares its checksum. */
  async #unpack(entry: FileEntry, write: (chunk: Uint8Array) => void): Promise<void> {
    try {
      await entry.getData(new WritableStream({ write }), { checkCrc32: true });
    } catch (error) {
      throw damaged(this.#source, error);
    }
  }

  /** Where the bytes of a stored entry begin in the file. */
  async #dataOffset(entry: FileEntry): Promise<number> {
    try {
      await entry.getData(new WritableStream(), { checkOverlappingEntryOnly: true });
    } catch (error) {
      throw damaged(this.#source, error);
    }
    const { localDirectory } = entry;
    if (!localDirectory) throw new Error('The zip library did not read a local header.');
    return localDirectory.dataOffset;
  }

  /** Reads a stored entry in place and compares its checksum. */
  async #readStored(entry: FileEntry, step: number, take: (bytes: Uint8Array<ArrayBuffer>, done: number) => void) {
    const { uncompressedSize: length, filename } = entry;
    let checksum = 0;
    await readPieces(this.#source, { offset: await this.#dataOffset(entry), length, step }, (bytes, done) => {
      checksum = crc32(bytes, checksum);
      take(bytes, done);
    });
    if (checksum !== entry.crc32) {
      throw new UserError(`${this.#source.name} is damaged: its record ${shown(filename)} has another checksum.`);
    }
    this.#verified.add(entry);
  }

  has(record: string): boolean {
    return this.#entries.has(this.#root + record);
  }

  /** A whole small record. */
  async bytes(record: string, limit: number): Promise<Uint8Array<ArrayBuffer>> {
    const entry = this.#entry(record);
    const length = entry.uncompressedSize;
    if (length > Math.min(limit, Math.max(2 * this.#source.size, MIN_LIMIT))) {
      throw new UserError(`${this.#source.name}: its record ${record} has ${length} bytes, more than weights need.`);
    }
    const bytes = new Uint8Array(length);
    if (isStored(entry)) {
      await this.#readStored(entry, 1, (piece, done) => bytes.set(piece, done));
    } else {
      await this.#unpack(
        entry,
        pieceWriter({ offset: 0, length, step: 1 }, (piece, done) => bytes.set(piece, done)),
      );
    }
    return bytes;
  }

  async read(
    { key, dtype, elements }: StorageRef,
    first: number,
    count: number,
    take: (bytes: Uint8Array<ArrayBuffer>, done: number) => void,
  ): Promise<void> {
    const step = bytesPerElement[dtype];
    const entry = this.#entry(`data/${key}`);
    if (entry.uncompressedSize !== elements * step) {
      throw new UserError(
        `${this.#source.name} is damaged: its record data/${shown(key)} has ${entry.uncompressedSize} bytes, but its pickle says ${elements} elements of ${dtype}.`,
      );
    }
    const range = { offset: first * step, length: count * step, step };
    if (!isStored(entry)) return this.#unpack(entry, pieceWriter(range, take));
    if (count === elements) return this.#readStored(entry, step, take);
    // One of several views: only its bytes are read, after the checksum of them all was compared once.
    if (!this.#verified.has(entry)) await this.#readStored(entry, step, () => undefined);
    await readPieces(this.#source, { ...range, offset: (await this.#dataOffset(entry)) + range.offset }, take);
  }
}

/** @throws through the library when an entry is not as long as it says */
const isStored = ({ compressionMethod, compressedSize, uncompressedSize }: FileEntry): boolean =>
  compressionMethod === 0 && compressedSize === uncompressedSize;

function damaged(source: ByteSource, error: unknown): unknown {
  if (error instanceof UserError || !(error instanceof Error)) return error;
  return new UserError(`${source.name} is cut short or damaged (zip: ${error.message.toLowerCase()}).`);
}

async function readEntries(source: ByteSource): Promise<Map<string, FileEntry>> {
  const entries = new Map<string, FileEntry>();
  try {
    for await (const entry of new ZipReader(new SourceReader(source), ZIP_OPTIONS).getEntriesGenerator()) {
      if (!entry.directory) entries.set(entry.filename, entry);
      if (entries.size > maxEntries(source.size)) {
        throw new UserError(`${source.name} is a zip file of far more records than weights have.`);
      }
    }
  } catch (error) {
    throw damaged(source, error);
  }
  return entries;
}

function parseMetadata(bytes: Uint8Array, where: string): Record<string, string> {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    json = null;
  }
  if (typeof json !== 'object' || json === null || !Object.values(json).every((text) => typeof text === 'string')) {
    throw new UserError(`${where}: its record ${METADATA_RECORD} is not an object of strings.`);
  }
  return json as Record<string, string>;
}

export interface TorchFile {
  tensors: Map<string, StoredTensor>;
  storages: Storages;
  metadata: Record<string, string>;
}

/** Opens a zip of torch.save: its directory and pickle are read, its storages are not. @throws UserError naming the file */
export async function openTorchZip(source: ByteSource): Promise<TorchFile> {
  const archive = new TorchArchive(source, await readEntries(source));
  if (archive.has('byteorder')) {
    const order = new TextDecoder().decode(await archive.bytes('byteorder', 64)).trim();
    if (order !== 'little') {
      throw new UserError(`${source.name} was written with the byte order ${shown(order)}, expected little.`);
    }
  }
  const pickle = await archive.bytes('data.pkl', MAX_PICKLE_BYTES);
  const { value } = unpickleTorch(pickle, 0, source.name, source.size);
  const metadata = archive.has(METADATA_RECORD)
    ? parseMetadata(await archive.bytes(METADATA_RECORD, MAX_METADATA_BYTES), source.name)
    : {};
  return { tensors: stateDictOf(value, source.name), storages: archive, metadata };
}
