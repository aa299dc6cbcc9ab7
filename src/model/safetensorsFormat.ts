/**
 * The safetensors format on bytes alone, so that the browser shares it; `safetensors.ts` adds files.
 * Layout (https://github.com/huggingface/safetensors#format): u64 little-endian header length, JSON header
 * `{name: {dtype, shape, data_offsets}, __metadata__?}`, then the tensors' bytes without holes.
 */
import { UserError } from '../cli/errors.ts';
import {
  bytesPerElement,
  type Dtype,
  decodeInto,
  dtypes,
  elementCount,
  emptyValues,
  encodeValues,
  isFloating,
  type Values,
  type WrittenDtype,
} from './dtypes.ts';

/** The reference writer's cap: a longer header is a file of another kind, or a hostile one. */
const maxHeaderLength = 100_000_000;

export interface SafetensorsEntry {
  name: string;
  dtype: Dtype;
  shape: number[];
  /** Where its bytes begin, counted from the start of the file. */
  offset: number;
  /** Bytes. */
  length: number;
}

export interface SafetensorsHeader {
  /** `__metadata__`, empty where the file has none. */
  metadata: Record<string, string>;
  /** By name, in the order of their bytes. */
  tensors: Map<string, SafetensorsEntry>;
}

/** An opened file. Floating dtypes are read as Float32Array (F64 rounded to nearest), all others as Int32Array. */
export interface Safetensors extends SafetensorsHeader {
  /**
   * One tensor's values, row-major. BOOL becomes 0 or 1.
   * @throws UserError without such a tensor, with a value beyond int32, or when the file ends too early
   */
  read(name: string): Values;
  /** As `read`. @throws UserError also when the tensor holds integers */
  readFloat32(name: string): Float32Array<ArrayBuffer>;
  /** As `read`. @throws UserError also when the tensor holds floating-point values */
  readInt32(name: string): Int32Array<ArrayBuffer>;
}

/** Length in bytes of the JSON header, from a file's first 8 bytes. @throws UserError when it cannot be one */
export function headerLength(start: Uint8Array, fileLength: number, where: string): number {
  if (fileLength < 8 || start.length < 8) {
    throw new UserError(
      `${where} is not a safetensors file: it has ${fileLength} bytes, fewer than the 8 of the header's length.`,
    );
  }
  const length = new DataView(start.buffer, start.byteOffset, 8).getBigUint64(0, true);
  if (length < 2n || length > BigInt(maxHeaderLength)) {
    throw new UserError(
      `${where} is not a safetensors file: it begins with a header length of ${length}, expected 2 to ${maxHeaderLength} bytes.`,
    );
  }
  if (8n + length > BigInt(fileLength)) {
    throw new UserError(
      `${where} is cut short: its header should end at byte ${8n + length}, but the file has ${fileLength} bytes.`,
    );
  }
  return Number(length);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSize(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

/** Checks one entry on its own; `dataStart` is the first byte behind the header. */
function parseEntry(name: string, value: unknown, dataStart: number, where: string): SafetensorsEntry {
  const bad = (what: string) => new UserError(`${where}: tensor '${name}' ${what}.`);
  if (!isRecord(value)) throw bad('is not described by an object with dtype, shape and data_offsets');
  const { dtype, shape, data_offsets: offsets } = value;
  const known = dtypes.find((d) => d === dtype);
  if (known === undefined) {
    throw bad(`has the dtype ${JSON.stringify(dtype) ?? 'undefined'}, expected one of ${dtypes.join(', ')}`);
  }
  if (!Array.isArray(shape) || !shape.every(isSize)) {
    throw bad(`has the shape ${JSON.stringify(shape) ?? 'undefined'}, expected an array of non-negative integers`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize) || offsets[0] > offsets[1]) {
    throw bad(
      `has the data_offsets ${JSON.stringify(offsets) ?? 'undefined'}, expected [begin, end] with begin <= end`,
    );
  }
  const length: number = offsets[1] - offsets[0];
  const expected = shape.reduce((product: number, side: number) => product * side, bytesPerElement[known]);
  if (expected !== length) {
    throw bad(`of dtype ${known} and shape [${shape}] needs ${expected} bytes, but its data_offsets span ${length}`);
  }
  return { name, dtype: known, shape: [...shape], offset: dataStart + offsets[0], length };
}

/**
 * Reads and checks the JSON header (the bytes between the length and the data) of a file of `fileLength` bytes.
 * @throws UserError naming `where` and the first thing that is wrong
 */
export function parseHeader(header: Uint8Array, fileLength: number, where: string): SafetensorsHeader {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(header));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new UserError(`${where} is not a safetensors file: its header is not JSON (${reason}).`);
  }
  if (!isRecord(json)) throw new UserError(`${where} is not a safetensors file: its header is not a JSON object.`);

  const dataStart = 8 + header.length;
  let metadata: Record<string, string> = {};
  const entries: SafetensorsEntry[] = [];
  for (const [name, value] of Object.entries(json)) {
    if (name === '__metadata__') {
      if (!isRecord(value) || !Object.values(value).every((text) => typeof text === 'string')) {
        throw new UserError(`${where}: its __metadata__ is not an object of strings.`);
      }
      metadata = value as Record<string, string>;
    } else {
      entries.push(parseEntry(name, value, dataStart, where));
    }
  }

  // An empty tensor sits at a point where another begins: it must come first to leave no seeming overlap.
  entries.sort((a, b) => a.offset - b.offset || a.length - b.length);
  let end = dataStart;
  for (const { name, offset, length } of entries) {
    if (offset !== end) {
      const fault = offset < end ? 'overlaps the tensor before it' : 'leaves a hole before it';
      throw new UserError(
        `${where}: tensor '${name}' ${fault}: it begins at byte ${offset - dataStart} of the data, expected ${end - dataStart}.`,
      );
    }
    end += length;
  }
  if (end > fileLength) {
    const cut = entries.find((entry) => entry.offset + entry.length > fileLength)!;
    throw new UserError(
      `${where} is cut short: it has ${fileLength} bytes, expected ${end}; the first incomplete tensor is '${cut.name}'.`,
    );
  }
  if (end < fileLength) {
    throw new UserError(`${where} has ${fileLength - end} bytes behind its last tensor, expected none.`);
  }
  return { metadata, tensors: new Map(entries.map((entry) => [entry.name, entry])) };
}

/** The values of one tensor from its own bytes; the result may share `buffer`. */
function decode({ name, dtype }: SafetensorsEntry, buffer: ArrayBuffer, where: string): Values {
  if (dtype === 'F32') return new Float32Array(buffer);
  if (dtype === 'I32') return new Int32Array(buffer);
  const values = emptyValues(dtype, buffer.byteLength / bytesPerElement[dtype]);
  decodeInto(values, 0, dtype, new Uint8Array(buffer), `${where}: tensor '${name}'`);
  return values;
}

/** Joins a header with a way to get one tensor's bytes (a fresh buffer each time). */
export function safetensorsReader(
  header: SafetensorsHeader,
  bytesOf: (entry: SafetensorsEntry) => ArrayBuffer,
  where: string,
): Safetensors {
  const find = (name: string): SafetensorsEntry => {
    const entry = header.tensors.get(name);
    if (entry === undefined) throw new UserError(`${where} has no tensor '${name}'.`);
    return entry;
  };
  const read = (name: string) => {
    const entry = find(name);
    return decode(entry, bytesOf(entry), where);
  };
  const mismatch = (name: string, expected: string) =>
    new UserError(`${where}: tensor '${name}' has the dtype ${find(name).dtype}, expected ${expected}.`);
  return {
    ...header,
    read,
    readFloat32(name) {
      const values = isFloating(find(name).dtype) ? read(name) : undefined;
      if (!(values instanceof Float32Array)) throw mismatch(name, 'floating-point values');
      return values;
    },
    readInt32(name) {
      const values = isFloating(find(name).dtype) ? undefined : read(name);
      if (!(values instanceof Int32Array)) throw mismatch(name, 'integers');
      return values;
    },
  };
}

/** A whole file in memory. @throws UserError naming `where` and the first thing that is wrong */
export function parseSafetensors(bytes: Uint8Array<ArrayBuffer>, where: string): Safetensors {
  const length = headerLength(bytes.subarray(0, 8), bytes.length, where);
  const header = parseHeader(bytes.subarray(8, 8 + length), bytes.length, where);
  // Copied, since a view into the file need not be aligned to its element size.
  return safetensorsReader(header, ({ offset, length }) => bytes.slice(offset, offset + length).buffer, where);
}

/** A tensor to write: `data` row-major, one value for each element of `shape` ([] is a scalar of one value). */
export type TensorToWrite = { name: string; shape: readonly number[] } & (
  | { dtype: 'F32' | 'F16'; data: Float32Array }
  | { dtype: 'I32' | 'I64'; data: Int32Array }
  | { dtype: 'U8' | 'BOOL'; data: Uint8Array }
);

/** A tensor to write, without its values. */
export interface TensorDescription {
  name: string;
  shape: readonly number[];
  dtype: WrittenDtype;
}

/** The reference writer puts dtypes of stricter alignment first; I64 of that list is before F32, as here. */
const writingOrder: readonly WrittenDtype[] = ['I64', 'F32', 'I32', 'F16', 'U8', 'BOOL'];

/** Order of the names' UTF-8 bytes, which is the order of code points (UTF-16 order differs beyond U+FFFF). */
function compareNames(a: string, b: string): number {
  const left = Array.from(a, (character) => character.codePointAt(0)!);
  const right = Array.from(b, (character) => character.codePointAt(0)!);
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    if (left[i] !== right[i]) return left[i] - right[i];
  }
  return left.length - right.length;
}

/**
 * The first bytes of a file, and its tensors in the order in which theirs follow: by dtype, then name, as the reference writer
 * (safetensors' Rust crate) orders them, whatever the order given; metadata by key.
 * @throws Error for a name given twice
 */
export function safetensorsLayout<T extends TensorDescription>(
  tensors: Iterable<T>,
  metadata: Readonly<Record<string, string>> = {},
): { head: Uint8Array<ArrayBuffer>; order: T[]; dataBytes: number } {
  const order = [...tensors].sort(
    (a, b) => writingOrder.indexOf(a.dtype) - writingOrder.indexOf(b.dtype) || compareNames(a.name, b.name),
  );
  // Built as text: an object would move keys that look like integers to the front.
  const fields: string[] = [];
  const keys = Object.keys(metadata).sort(compareNames);
  if (keys.length > 0) {
    const pairs = keys.map((key) => `${JSON.stringify(key)}:${JSON.stringify(metadata[key])}`);
    fields.push(`"__metadata__":{${pairs.join(',')}}`);
  }
  const names = new Set(['__metadata__']);
  let end = 0;
  for (const { name, dtype, shape } of order) {
    if (names.has(name)) throw new Error(`encodeSafetensors: the name '${name}' is taken.`);
    names.add(name);
    const begin = end;
    end += elementCount(shape) * bytesPerElement[dtype];
    fields.push(
      `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(',')}],"data_offsets":[${begin},${end}]}`,
    );
  }
  const json = new TextEncoder().encode(`{${fields.join(',')}}`);
  const padded = Math.ceil(json.length / 8) * 8;
  const head = new Uint8Array(8 + padded).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(padded), true);
  head.set(json, 8);
  return { head, order, dataBytes: end };
}

/**
 * The bytes of a file, the same for the same content whatever the order given (see `safetensorsLayout`).
 * @throws Error for a name given twice or data that does not fill its shape
 */
export function encodeSafetensors(
  tensors: Iterable<TensorToWrite>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array<ArrayBuffer> {
  const { head, order, dataBytes } = safetensorsLayout(tensors, metadata);
  const bytes = new Uint8Array(head.length + dataBytes);
  bytes.set(head);
  let offset = head.length;
  for (const { name, shape, dtype, data } of order) {
    const count = elementCount(shape);
    if (count !== data.length) {
      throw new Error(`encodeSafetensors: '${name}' of shape [${shape}] needs ${count} values, got ${data.length}.`);
    }
    const values = encodeValues(dtype, data, name);
    bytes.set(values, offset);
    offset += values.length;
  }
  return bytes;
}
