/**
 * TensorBoard's event files, scalars only. A file is a row of TFRecords (`tensorflow/core/lib/io/record_writer.h`):
 *
 *     uint64 length | uint32 masked CRC-32C of the length | data | uint32 masked CRC-32C of the data     (little-endian)
 *
 * whose data are `Event` messages (`tensorflow/core/util/event.proto`, `framework/summary.proto`) in protobuf's wire format.
 */
import { appendFileSync, existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** What the first record of a file says: from version 2 on TensorBoard heeds SessionLog.START. */
const FILE_VERSION = 'brain.Event:2';

/** The reversed polynomial of CRC-32C (Castagnoli), the one of iSCSI. */
const CASTAGNOLI = 0x82f63b78;

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ CASTAGNOLI : crc >>> 1;
  return crc;
});

/** CRC-32C (RFC 3720, appendix B.4). @returns an unsigned 32-bit integer */
export function crc32c(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** TFRecord's mask: data that hold check sums of their own would else defeat the check (`tensorflow/core/lib/hash/crc32c.h`). */
function maskedCrc(data: Uint8Array): number {
  const crc = crc32c(data);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** One TFRecord around `data`. */
export function tfRecord(data: Uint8Array): Buffer {
  const record = Buffer.alloc(16 + data.length);
  record.writeBigUInt64LE(BigInt(data.length), 0);
  record.writeUInt32LE(maskedCrc(record.subarray(0, 8)), 8);
  record.set(data, 12);
  record.writeUInt32LE(maskedCrc(data), 12 + data.length);
  return record;
}

// Protobuf's wire types.
const VARINT = 0;
const FIXED64 = 1;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;

/** A whole number from 0 to 2⁵³ - 1, seven bits to a byte, the lowest first. */
function varint(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest % 128) | 128);
  }
}

const tag = (field: number, type: number): Buffer => Buffer.from(varint(field * 8 + type));
const integer = (field: number, value: number): Buffer =>
  Buffer.concat([tag(field, VARINT), Buffer.from(varint(value))]);

function double(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([tag(field, FIXED64), bytes]);
}

function float(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([tag(field, FIXED32), bytes]);
}

function nested(field: number, message: Uint8Array): Buffer {
  return Buffer.concat([tag(field, LENGTH_DELIMITED), Buffer.from(varint(message.length)), message]);
}

/** What one record of an event file says. */
export interface TensorboardEvent {
  /** Seconds since 1970. */
  wallTime: number;
  /** 0, 1, … */
  step?: number;
  /** First record of a file only. */
  fileVersion?: string;
  /** Values by tag; stored as float32. */
  scalars?: Readonly<Record<string, number>>;
  /** The program has started here: TensorBoard hides what earlier files say of `step` and later ones. */
  sessionStart?: boolean;
}

/** An `Event` message in protobuf's wire format. */
export function encodeEvent({ wallTime, step, fileVersion, scalars, sessionStart }: TensorboardEvent): Buffer {
  const parts = [double(1, wallTime)];
  if (step !== undefined) parts.push(integer(2, step));
  if (fileVersion !== undefined) parts.push(nested(3, Buffer.from(fileVersion)));
  if (scalars !== undefined) {
    const values = Object.entries(scalars).map(([name, value]) =>
      nested(1, Buffer.concat([nested(1, Buffer.from(name)), float(2, value)])),
    );
    parts.push(nested(5, Buffer.concat(values)));
  }
  // SessionLog { status: START }
  if (sessionStart) parts.push(nested(7, integer(1, 1)));
  return Buffer.concat(parts);
}

/**
 * Name of the event file that a run's n-th session writes. TensorBoard takes every file with `tfevents` in its name and reads
 * those of a folder in the order of their names; TensorFlow puts the time of the start and the host's name where this has the
 * number of the session and the program's name, so that equal runs have equal folders.
 */
export const eventFileName = (session: number): string =>
  `events.out.tfevents.${String(session).padStart(10, '0')}.webgpu-mask-rcnn`;

/** Appends scalars to a new event file; each is on disk when `scalars` returns, so TensorBoard can watch the run. */
export class EventFile {
  readonly path: string;
  readonly #now: () => number;

  /**
   * Starts the next session's file in a folder.
   *
   * @param firstStep the first step that this session will write, 0 for a new run. Where an earlier session wrote of it or of later
   *   ones, these steps are done again, and TensorBoard hides the old values (as `purge_step` of torch's `SummaryWriter`)
   * @param now seconds since 1970
   */
  constructor(dir: string, firstStep: number, now: () => number = () => Date.now() / 1000) {
    let session = 1;
    while (existsSync(join(dir, eventFileName(session)))) session++;
    this.path = join(dir, eventFileName(session));
    this.#now = now;
    writeFileSync(this.path, tfRecord(encodeEvent({ wallTime: now(), fileVersion: FILE_VERSION })));
    this.#append({ wallTime: now(), step: firstStep, sessionStart: true });
  }

  /** Writes values of a step by tag. Tags with a common part before a slash stand together in TensorBoard. */
  scalars(step: number, scalars: Readonly<Record<string, number>>): void {
    this.#append({ wallTime: this.#now(), step, scalars });
  }

  #append(event: TensorboardEvent): void {
    appendFileSync(this.path, tfRecord(encodeEvent(event)));
  }
}
