import { Uint8ArrayReader, Uint8ArrayWriter, ZipWriter } from '@zip.js/zip.js/lib/zip-core-native.js';
import { describe, expect, it } from 'vitest';
import { bytesSource } from '../../../src/model/checkpoints/byteSource.ts';
import { pickleStateDict } from '../../../src/model/checkpoints/pickleWriter.ts';
import { openWeights } from '../../../src/model/checkpoints/weightsFile.ts';
import { fuzz, originals } from './fuzz.ts';

const open = (bytes: Uint8Array) => openWeights(bytesSource(bytes, 'w.pth'));

describe('damaged checkpoints', () => {
  // All ten thousand: node --import tsx test/model/checkpoints/fuzz.ts 10000
  it.each([
    ['fixtures', 500],
    ['all', 60],
  ] as const)('of %s end in a sentence, soon, within twice their size: %i', async (which, count) => {
    const { files, read, refused, faults, worstMemory, messages } = await fuzz(originals(which), count, 3);
    expect(faults).toEqual([]);
    expect(worstMemory).toBeLessThanOrEqual(2);
    expect(read + refused).toBe(files);
    // Damage reaches the zip, the pickle machine and the storages.
    if (which === 'fixtures') {
      const all = [...messages.keys()].join('\n');
      for (const part of ['(zip:', 'its pickle holds', 'checksum', 'its storage']) expect(all).toContain(part);
    }
  });
});

/** A legacy file of one float storage of `stored` elements, and a pickle of one tensor on it. */
function legacyFile(elements: number, shape: number[], strides: number[], stored: Uint8Array, padding = 0): Uint8Array {
  const int = (value: number): string => `J${String.fromCharCode(...new Uint8Array(Int32Array.of(value).buffer))}`;
  const text = (value: string): string => `X${int(value.length).slice(1)}${value}`;
  const tuple = (values: number[]): string => `(${values.map(int).join('')}t`;
  const id = `(${text('storage')}ctorch\nFloatStorage\n${text('k')}${text('cpu')}${int(elements)}NtQ`;
  const tensor = `ctorch._utils\n_rebuild_tensor_v2\n(${id}K\x00${tuple(shape)}${tuple(strides)}\x89NtR`;
  const pickles = [
    '\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.',
    '\x80\x02M\xe9\x03.',
    `\x80\x02}${text('little_endian')}\x88s.`,
    `\x80\x02}${text('padding')}${text(' '.repeat(padding))}s${text('w')}${tensor}s.`,
    `\x80\x02]${text('k')}a.`,
  ];
  const count = Buffer.alloc(8);
  count.writeBigInt64LE(BigInt(elements));
  return Buffer.concat([Buffer.from(pickles.join(''), 'latin1'), count, stored]);
}

describe('files made to ask for memory', () => {
  it('a small file of the form is read', async () => {
    const file = await open(legacyFile(2, [2, 3], [1, 0], new Uint8Array(Float32Array.of(1, 2).buffer)));
    expect([...(await file.read('w'))]).toEqual([1, 1, 1, 2, 2, 2]);
  });

  it.each([60_000, 400_000, 3_000_000])('a pickle of %i bytes is read, within twice the file', async (padding) => {
    const bytes = legacyFile(2, [2], [1], new Uint8Array(Float32Array.of(1, 2).buffer), padding);
    const source = bytesSource(bytes, 'w.pth');
    let asked = 0;
    const counted: typeof source = {
      ...source,
      read(offset, length) {
        asked += length;
        return source.read(offset, length);
      },
    };
    expect([...(await (await openWeights(counted)).read('w'))]).toEqual([1, 2]);
    expect(asked).toBeLessThan(2 * bytes.length);
  });

  it.each<[string, () => Uint8Array, string]>([
    [
      'a view that repeats a value',
      () => legacyFile(1, [2 ** 30], [0], new Uint8Array(4)),
      'would take 4294967300 bytes to read, more than twice',
    ],
    [
      'a shape beyond all numbers',
      () => legacyFile(1, [2 ** 30, 2 ** 30], [0, 0], new Uint8Array(4)),
      'reaches beyond its storage of 1 elements',
    ],
    [
      'strides beyond its storage',
      () => legacyFile(2, [2], [2 ** 30], new Uint8Array(8)),
      'reaches beyond its storage of 2 elements',
    ],
    ['negative strides', () => legacyFile(2, [2], [-1], new Uint8Array(8)), 'shape and strides are not whole numbers'],
    [
      'a storage that is not there',
      () => legacyFile(2 ** 30, [2 ** 30], [1], new Uint8Array(8)),
      'cut short: its storage k should end at byte',
    ],
  ])('%s', async (_, bytes, message) => {
    await expect(open(bytes()).then((file) => file.read('w'))).rejects.toThrow(message);
  });

  it('a record that unpacks to a thousand times the file', async () => {
    const elements = 4_000_000;
    const zip = new ZipWriter(new Uint8ArrayWriter(), { level: 9 });
    await zip.add(
      'a/data.pkl',
      new Uint8ArrayReader(pickleStateDict([{ name: 'w', dtype: 'F32', shape: [elements] }])),
    );
    await zip.add('a/data/0', new Uint8ArrayReader(new Uint8Array(4 * elements)));
    const bytes = await zip.close();
    expect(bytes.length).toBeLessThan(40_000);
    const file = await open(bytes);
    await expect(file.read('w')).rejects.toThrow('would take 16000000 bytes to read, more than twice');
  });

  it('a pickle that unpacks to a thousand times the file', async () => {
    const zip = new ZipWriter(new Uint8ArrayWriter(), { level: 9 });
    await zip.add('a/data.pkl', new Uint8ArrayReader(new Uint8Array(30_000_000).fill(']'.charCodeAt(0))));
    await expect(open(await zip.close())).rejects.toThrow('would unpack to 30000000 bytes, more than weights can');
  });

  it('a pickle of nothing but lists', async () => {
    const bytes = new Uint8Array(4_000_000).fill(']'.charCodeAt(0));
    bytes.set([0x80, 2]);
    await expect(open(bytes)).rejects.toThrow('far more values in its pickle');
  });

  it('a safetensors header longer than the file', async () => {
    const bytes = new Uint8Array(100);
    new DataView(bytes.buffer).setBigUint64(0, 99_000_000n, true);
    await expect(open(bytes)).rejects.toThrow('is cut short: its header should end at byte 99000008');
  });
});
