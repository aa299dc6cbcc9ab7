/** Reads TensorBoard's event files, written from the formats' specifications and not from the writer. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** CRC-32C bit by bit. */
export function crc32cBitwise(data: Uint8Array): number {
  let crc = 0xffffffffn;
  for (const byte of data) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) crc = crc & 1n ? (crc >> 1n) ^ 0x82f63b78n : crc >> 1n;
  }
  return Number(crc ^ 0xffffffffn);
}

function masked(data: Uint8Array): number {
  const crc = BigInt(crc32cBitwise(data));
  const rotated = ((crc >> 15n) | (crc << 17n)) & 0xffffffffn;
  return Number((rotated + 0xa282ead8n) & 0xffffffffn);
}

/** The data of each TFRecord. @throws Error for a wrong check sum; a last record that is cut off ends the list */
export function readRecords(file: Buffer): Buffer[] {
  const records: Buffer[] = [];
  let at = 0;
  while (at + 12 <= file.length) {
    const length = Number(file.readBigUInt64LE(at));
    if (at + 16 + length > file.length) break;
    const header = file.subarray(at, at + 8);
    const data = file.subarray(at + 12, at + 12 + length);
    if (file.readUInt32LE(at + 8) !== masked(header)) throw new Error(`length at ${at}: wrong check sum`);
    if (file.readUInt32LE(at + 12 + length) !== masked(data)) throw new Error(`data at ${at}: wrong check sum`);
    records.push(data);
    at += 16 + length;
  }
  return records;
}

type Field = { field: number; value: number | bigint | Buffer };

/** The fields of a protobuf message: varints as bigint, fixed widths as bytes. */
function fields(message: Buffer): Field[] {
  const found: Field[] = [];
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = message[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const key = Number(varint());
    const take = (length: number): Buffer => {
      at += length;
      return message.subarray(at - length, at);
    };
    const type = key & 7;
    if (type === 0) found.push({ field: key >> 3, value: varint() });
    else if (type === 1) found.push({ field: key >> 3, value: take(8) });
    else if (type === 2) found.push({ field: key >> 3, value: take(Number(varint())) });
    else if (type === 5) found.push({ field: key >> 3, value: take(4) });
    else throw new Error(`field ${key >> 3} has wire type ${type}`);
  }
  return found;
}

export interface ReadEvent {
  wallTime: number;
  step: number;
  fileVersion?: string;
  scalars: Record<string, number>;
  /** SessionLog.status; 1 is START. */
  session?: number;
}

/** An `Event` message; numbers of its fields from `event.proto` and `summary.proto`. */
export function readEvent(data: Buffer): ReadEvent {
  const event: ReadEvent = { wallTime: Number.NaN, step: 0, scalars: {} };
  for (const { field, value } of fields(data)) {
    if (field === 1) event.wallTime = (value as Buffer).readDoubleLE();
    else if (field === 2) event.step = Number(value);
    else if (field === 3) event.fileVersion = String(value);
    else if (field === 5) {
      for (const entry of fields(value as Buffer)) {
        const parts = new Map(fields(entry.value as Buffer).map((part) => [part.field, part.value as Buffer]));
        event.scalars[String(parts.get(1))] = (parts.get(2) as Buffer).readFloatLE();
      }
    } else if (field === 7) event.session = Number(fields(value as Buffer)[0].value);
    else throw new Error(`unknown field ${field} of Event`);
  }
  return event;
}

export const readEventFile = (path: string): ReadEvent[] => readRecords(readFileSync(path)).map(readEvent);

/** What TensorBoard shows of a folder: [step, value] by tag, files in the order of names, later sessions over earlier ones. */
export function shownScalars(dir: string): Map<string, [step: number, value: number][]> {
  const shown = new Map<string, [number, number][]>();
  const files = readdirSync(dir).filter((name) => name.includes('tfevents'));
  for (const name of files.sort()) {
    for (const { step, scalars, session } of readEventFile(join(dir, name))) {
      if (session === 1)
        for (const [tag, points] of shown)
          shown.set(
            tag,
            points.filter(([at]) => at < step),
          );
      for (const [tag, value] of Object.entries(scalars)) shown.set(tag, [...(shown.get(tag) ?? []), [step, value]]);
    }
  }
  return shown;
}
