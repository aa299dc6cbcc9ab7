/**
 * Damaged checkpoints: each must load or end in a UserError, soon, and without asking for more memory than twice its size.
 *
 *     node --import tsx test/model/checkpoints/fuzz.ts 10000 [seed]
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { UserError } from '../../../src/cli/errors.ts';
import type { ByteSource } from '../../../src/model/checkpoints/byteSource.ts';
import { crc32 } from '../../../src/model/checkpoints/crc32.ts';
import { matchWeights } from '../../../src/model/checkpoints/match.ts';
import { openWeights } from '../../../src/model/checkpoints/weightsFile.ts';
import { MaskRCNN } from '../../../src/model/maskRcnn.ts';
import { weightsInfo } from '../../../src/train/weightsInfo.ts';
import { seeded } from '../../support/random.ts';
import { smallestConfig } from '../../train/tinyRun.ts';
import { fixtureFolder } from './fixtures.ts';

/** Buffers of fixed size that reading needs beside the file's: the end of a zip, a piece of a tensor, the first pickle. */
export const SLACK = 256 * 1024;

type Bytes = Uint8Array<ArrayBuffer>;
type Next = () => number;

export interface Outcome {
  files: number;
  /** Files that could still be read whole, and those that ended in a UserError. */
  read: number;
  refused: number;
  /** Files that did anything else. */
  faults: string[];
  /** Largest of (bytes asked for - SLACK) / size; at most 2 is right. */
  worstMemory: number;
  worstMilliseconds: number;
  /** How often each kind of message came, by its words without names and numbers. */
  messages: Map<string, number>;
}

/** Counts what is asked of typed arrays while it watches. */
class Allocations {
  static readonly #watched = [
    'ArrayBuffer',
    'Uint8Array',
    'Int8Array',
    'Uint16Array',
    'Int16Array',
    'Uint32Array',
    'Int32Array',
    'Float32Array',
    'Float64Array',
    'BigInt64Array',
    'BigUint64Array',
  ] as const;
  readonly #originals: [string, unknown][] = [];
  bytes = 0;

  constructor() {
    const globals = globalThis as unknown as Record<string, new (...args: unknown[]) => object>;
    for (const name of Allocations.#watched) {
      const original = globals[name];
      this.#originals.push([name, original]);
      const size = 'BYTES_PER_ELEMENT' in original ? Number(original.BYTES_PER_ELEMENT) : 1;
      globals[name] = new Proxy(original, {
        construct: (target, args, newTarget) => {
          const [length] = args as unknown[];
          if (typeof length === 'number') this.bytes += length * size;
          return Reflect.construct(target, args, newTarget);
        },
      });
    }
  }

  restore(): void {
    for (const [name, original] of this.#originals) (globalThis as unknown as Record<string, unknown>)[name] = original;
  }
}

const GIANT = [
  0xffffffffn,
  0x7fffffffn,
  0x80000000n,
  0x100000000n,
  0x1fffffffffffffn,
  0x7fffffffffffffffn,
  0xffffffffffffffffn,
  0n,
];

/** A place where the file tells of itself: near its start or its end, or anywhere. */
function place(bytes: Bytes, next: Next): number {
  const zone = next();
  const head = Math.min(bytes.length, 24_000);
  if (zone < 0.45) return Math.floor(next() * head);
  if (zone < 0.8) return bytes.length - 1 - Math.floor(next() * Math.min(bytes.length, 10_000));
  return Math.floor(next() * bytes.length);
}

const copy = (bytes: Uint8Array): Bytes => new Uint8Array(bytes);

function joined(...parts: Uint8Array[]): Bytes {
  return copy(Buffer.concat(parts));
}

const mutations: Record<string, (bytes: Bytes, next: Next) => Bytes> = {
  flip(bytes, next) {
    const out = copy(bytes);
    for (let n = 1 + Math.floor(next() * 6); n > 0; n--) out[place(out, next)] ^= 1 << Math.floor(next() * 8);
    return out;
  },
  cut: (bytes, next) => copy(bytes.subarray(0, next() < 0.5 ? place(bytes, next) : Math.floor(next() * bytes.length))),
  hole(bytes, next) {
    const from = place(bytes, next);
    return joined(bytes.subarray(0, from), bytes.subarray(from + 1 + Math.floor(next() * 64)));
  },
  repeat(bytes, next) {
    const from = place(bytes, next);
    const length = 1 + Math.floor(next() * 200);
    return joined(bytes.subarray(0, from + length), bytes.subarray(from));
  },
  swap(bytes, next) {
    const out = copy(bytes);
    const width = next() < 0.5 ? 4 : 8;
    const [a, b] = [place(out, next), place(out, next)];
    const kept = out.slice(a, a + width);
    for (let i = 0; i < width; i++) if (a + i < out.length && b + i < out.length) out[a + i] = out[b + i];
    for (let i = 0; i < width; i++) if (b + i < out.length) out[b + i] = kept[i];
    return out;
  },
  giant(bytes, next) {
    const out = copy(bytes);
    let value = GIANT[Math.floor(next() * GIANT.length)];
    const width = [2, 4, 8][Math.floor(next() * 3)];
    for (let i = place(out, next), end = i + width; i < end && i < out.length; i++, value >>= 8n)
      out[i] = Number(value & 255n);
    return out;
  },
  /** A number of a JSON header, or digits anywhere, become a longer one. */
  digits(bytes, next) {
    const text = Buffer.from(bytes.subarray(0, 24_000)).toString('latin1');
    const numbers = [...text.matchAll(/\d+/g)];
    if (numbers.length === 0) return mutations.flip(bytes, next);
    const found = numbers[Math.floor(next() * numbers.length)];
    const put = ['99999999999999', '4294967296', '-1', '1e300', '0', '9007199254740993'][Math.floor(next() * 6)];
    return joined(bytes.subarray(0, found.index), Buffer.from(put), bytes.subarray(found.index + found[0].length));
  },
  /** Operations of the pickle machine in the wrong places. */
  operations(bytes, next) {
    const out = copy(bytes);
    const operations = '(.012NJKMIFGXcRbQhjqr]})telsud\x80\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x93\x94\x95UTCB';
    for (let n = 1 + Math.floor(next() * 4); n > 0; n--) {
      out[Math.floor(next() * Math.min(out.length, 20_000))] = operations.charCodeAt(
        Math.floor(next() * operations.length),
      );
    }
    return out;
  },
};

/** Gives the pickle of a damaged zip its right checksum, so that the damage reaches the machine. */
function withChecksum(bytes: Bytes): Bytes {
  const buffer = Buffer.from(bytes.buffer);
  for (
    let at = buffer.indexOf('PK\x01\x02', 0, 'latin1');
    at >= 0;
    at = buffer.indexOf('PK\x01\x02', at + 4, 'latin1')
  ) {
    if (at + 46 > buffer.length) break;
    const nameLength = buffer.readUInt16LE(at + 28);
    if (!buffer.toString('latin1', at + 46, at + 46 + nameLength).endsWith('data.pkl')) continue;
    const start = buffer.readUInt32LE(at + 42);
    if (start + 30 > buffer.length) break;
    const data = start + 30 + buffer.readUInt16LE(start + 26) + buffer.readUInt16LE(start + 28);
    buffer.writeUInt32LE(crc32(bytes.subarray(data, data + buffer.readUInt32LE(at + 24))), at + 16);
  }
  return bytes;
}

/** What every command does with a file: open it, look for its model, read its tensors. */
async function load(bytes: Bytes, allocations: Allocations, models: readonly MaskRCNN[]): Promise<number> {
  const source: ByteSource = {
    name: 'w',
    size: bytes.length,
    async read(offset, length) {
      allocations.bytes += length;
      return bytes.slice(offset, offset + length);
    },
  };
  allocations.bytes = 0;
  let most = 0;
  try {
    const file = await openWeights(source);
    const opened = allocations.bytes;
    most = opened;
    for (const act of [
      () => weightsInfo(file),
      ...models.map(
        ({ state }) =>
          () =>
            matchWeights(file, state, { purpose: 'start' }),
      ),
    ]) {
      try {
        act();
      } catch (error) {
        if (!(error instanceof UserError)) throw error;
      }
    }
    for (const name of file.tensors.keys()) {
      allocations.bytes = 0;
      try {
        await file.read(name);
      } finally {
        most = Math.max(most, opened + allocations.bytes);
      }
    }
  } catch (error) {
    most = Math.max(most, allocations.bytes);
    if (!(error instanceof UserError)) throw error;
    throw Object.assign(error, { most });
  }
  return most;
}

/** Files that end at their first operation already. */
const REFUSED = /^(hostile|truncated|module|namespace|complex|no_tensors|list)/;

/** Files to damage: those of torch in the fixtures, and the goldens' where they lie beside the checkout. */
export function originals(which: 'fixtures' | 'all'): { name: string; bytes: Bytes }[] {
  const goldens = resolve(import.meta.dirname, '../../../../shared/goldens/checkpoints');
  return [fixtureFolder, ...(which === 'all' && existsSync(goldens) ? [goldens] : [])].flatMap((folder) =>
    readdirSync(folder)
      .filter((name) => /\.(pth|safetensors)$/.test(name) && !REFUSED.test(name))
      .map((name) => ({ name, bytes: new Uint8Array(readFileSync(join(folder, name))) })),
  );
}

export async function fuzz(
  files: readonly { name: string; bytes: Bytes }[],
  count: number,
  seed: number,
  tell: (done: number) => void = () => undefined,
): Promise<Outcome> {
  const outcome: Outcome = {
    files: 0,
    read: 0,
    refused: 0,
    faults: [],
    worstMemory: 0,
    worstMilliseconds: 0,
    messages: new Map(),
  };
  const kinds = Object.keys(mutations);
  const models = [new MaskRCNN(smallestConfig())];
  const next = seeded(seed);
  const allocations = new Allocations();
  try {
    for (let i = 0; i < count; i++) {
      const { name, bytes } = files[i % files.length];
      const kind = kinds[Math.floor(next() * kinds.length)];
      let damaged = mutations[kind](bytes, next);
      if (next() < 0.2) damaged = mutations[kinds[Math.floor(next() * kinds.length)]](damaged, next);
      if (damaged[0] === 0x50 && next() < 0.5) damaged = withChecksum(damaged);
      const what = `${name}, file ${i} of seed ${seed} (${kind})`;
      const started = performance.now();
      let most = 0;
      try {
        most = await load(damaged, allocations, models);
        outcome.read++;
      } catch (error) {
        if (error instanceof UserError) {
          most = (error as UserError & { most?: number }).most ?? 0;
          outcome.refused++;
          const words = error.message.replace(/'[^']*'|\[[^\]]*\]|\S*\d\S*/g, '#');
          outcome.messages.set(words, (outcome.messages.get(words) ?? 0) + 1);
          if (error.message.length > 20_000)
            outcome.faults.push(`${what}: a message of ${error.message.length} letters`);
        } else {
          outcome.faults.push(`${what}: ${error instanceof Error ? error.stack : String(error)}`);
        }
      }
      const memory = (most - SLACK) / Math.max(damaged.length, 1);
      if (memory > 2) outcome.faults.push(`${what}: ${most} bytes were asked for, the file has ${damaged.length}`);
      outcome.worstMemory = Math.max(outcome.worstMemory, memory);
      outcome.worstMilliseconds = Math.max(outcome.worstMilliseconds, performance.now() - started);
      outcome.files++;
      tell(outcome.files);
    }
  } finally {
    allocations.restore();
  }
  return outcome;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [count = 10_000, seed = 1] = process.argv.slice(2).map(Number);
  const started = performance.now();
  const tell = (done: number): void => {
    if (done % 1000 === 0) process.stderr.write(`${done} of ${count} files\n`);
  };
  const { messages, faults, ...figures } = await fuzz(originals('all'), count, seed, tell);
  console.log({
    ...figures,
    seconds: (performance.now() - started) / 1000,
    peakResidentMB: process.resourceUsage().maxRSS / 1024,
  });
  for (const [words, times] of [...messages].sort((a, b) => b[1] - a[1]).slice(0, 40))
    console.log(String(times).padStart(6), words.slice(0, 160));
  for (const fault of faults) console.error(fault);
  process.exitCode = faults.length > 0 ? 1 : 0;
}
