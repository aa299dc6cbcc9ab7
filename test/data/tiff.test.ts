import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import { inspectTiff, readTiff, readTiffSamples, readTiffValues } from '../../src/data/tiff.ts';
import { removeFolders, temporaryFolder } from './folders.ts';
import { type TiffTags, tiffFile } from './tiffFile.ts';

afterAll(removeFolders);

/** Files of 3 × 2 pixels by tifffile and OpenCV, and what OpenCV 5.0's imread(…, IMREAD_COLOR) makes of them, red first. */
const FILES: Record<string, [base64: string, rgb: number[]]> = {
  grey8: [
    'SUkqAAgAAAAMAAABBAABAAAAAwAAAAEBBAABAAAAAgAAAAIBAwABAAAACAAAAAMBAwABAAAAAQAAAAYBAwABAAAAAQAAABEBBAABAAAAsAAAABUBAwABAAAAAQAAABYBBAABAAAAAgAAABcBBAABAAAABgAAABoBBQABAAAAngAAABsBBQABAAAApgAAACgBAwABAAAAAQAAAAAAAAABAAAAAQAAAAEAAAABAAAAAAD4wr7Pkxo=',
    [248, 248, 248, 194, 194, 194, 190, 190, 190, 207, 207, 207, 147, 147, 147, 26, 26, 26],
  ],
  grey16BigEndian: [
    'TU0AKgAAAAgADAEAAAQAAAABAAAAAwEBAAQAAAABAAAAAgECAAMAAAABABAAAAEDAAMAAAABAAEAAAEGAAMAAAABAAEAAAERAAQAAAABAAAAsAEVAAMAAAABAAEAAAEWAAQAAAABAAAAAgEXAAQAAAABAAAADAEaAAUAAAABAAAAngEbAAUAAAABAAAApgEoAAMAAAABAAEAAAAAAAAAAAABAAAAAQAAAAEAAAABAADT9S3vnQU8n+w2Lm0=',
    [211, 211, 211, 45, 45, 45, 157, 157, 157, 60, 60, 60, 236, 236, 236, 46, 46, 46],
  ],
  greyWhiteIsZero: [
    'SUkqAAgAAAAMAAABBAABAAAAAwAAAAEBBAABAAAAAgAAAAIBAwABAAAACAAAAAMBAwABAAAAAQAAAAYBAwABAAAAAAAAABEBBAABAAAAsAAAABUBAwABAAAAAQAAABYBBAABAAAAAgAAABcBBAABAAAABgAAABoBBQABAAAAngAAABsBBQABAAAApgAAACgBAwABAAAAAQAAAAAAAAABAAAAAQAAAAEAAAABAAAAAAD4wr7Pkxo=',
    [7, 7, 7, 61, 61, 61, 65, 65, 65, 48, 48, 48, 108, 108, 108, 229, 229, 229],
  ],
  grey16Lzw: [
    'SUkqABgAAACAPVpvoshY3p8eJdXjchQEDAAAAQMAAQAAAAMAAAABAQMAAQAAAAIAAAACAQMAAQAAABAAAAADAQMAAQAAAAUAAAAGAQMAAQAAAAEAAAARAQQAAQAAAAgAAAAVAQMAAQAAAAEAAAAWAQMAAQAAAAIAAAAXAQQAAQAAABAAAAAcAQMAAQAAAAEAAAA9AQMAAQAAAAIAAABTAQMAAQAAAAEAAAAAAAAA',
    [211, 211, 211, 45, 45, 45, 157, 157, 157, 60, 60, 60, 236, 236, 236, 46, 46, 46],
  ],
  rgb8Lzw: [
    'SUkqACAAAACACApMdztIDDJdLlKghJIEDnxdIF+QEAAMAAABAwABAAAAAwAAAAEBAwABAAAAAgAAAAIBAwADAAAAtgAAAAMBAwABAAAABQAAAAYBAwABAAAAAgAAABEBBAABAAAACAAAABUBAwABAAAAAwAAABYBAwABAAAAAgAAABcBBAABAAAAFwAAABwBAwABAAAAAQAAAD0BAwABAAAAAgAAAFMBAwADAAAAvAAAAAAAAAAIAAgACAABAAEAAQA=',
    [32, 82, 199, 7, 36, 205, 57, 222, 134, 149, 8, 146, 22, 15, 14, 208, 144, 10],
  ],
  rgb8Deflate: [
    'SUkqAAgAAAANAAABBAABAAAAAwAAAAEBBAABAAAAAgAAAAIBAwADAAAAqgAAAAMBAwABAAAACAAAAAYBAwABAAAAAgAAABEBBAABAAAAwAAAABUBAwABAAAAAwAAABYBBAABAAAAAgAAABcBBAABAAAAGwAAABoBBQABAAAAsAAAABsBBQABAAAAuAAAABwBAwABAAAAAQAAACgBAwABAAAAAQAAAAAAAAAIAAgACAABAAAAAQAAAAEAAAABAAAAeJw7HqRwVoW97Z7lJI6pfPxiXBMuAABCXgab',
    [199, 82, 32, 205, 36, 7, 134, 222, 57, 146, 8, 149, 14, 15, 22, 10, 144, 208],
  ],
};

const dir = temporaryFolder();
const path = join(dir, 'a.tif');
const write = (...parameters: Parameters<typeof tiffFile>): string => {
  writeFileSync(path, tiffFile(...parameters));
  return path;
};
const bytes = (...values: number[]): Buffer => Buffer.from(values);
const words = (...values: number[]): Buffer => Buffer.from(Uint16Array.from(values).buffer);
const GREY = bytes(1, 2, 3, 4, 5, 6);

describe('readTiff', () => {
  it.each(Object.entries(FILES))('reads %s as OpenCV', (_, [base64, rgb]) => {
    writeFileSync(path, Buffer.from(base64, 'base64'));
    const { width, height, data } = readTiff(path);
    expect([width, height, [...data]]).toEqual([3, 2, rgb]);
    expect(inspectTiff(path)).toEqual({ width: 3, height: 2 });
  });

  it('takes the high byte of 16 bits, the colour under alpha, and the colours of a palette', () => {
    write(words(0x1234, 0xff, 0x80ff, 0, 0x100, 0xffff), {
      bits: [16, 16, 16],
      samples: 3,
      photometric: 2,
      width: 2,
      height: 1,
    });
    expect([...readTiff(path).data]).toEqual([0x12, 0, 0x80, 0, 1, 0xff]);
    expect([...readTiffSamples(path).data]).toEqual([0x1234, 0xff, 0x80ff, 0, 0x100, 0xffff]);

    const rgba = { bits: [8, 8, 8, 8], samples: 4, photometric: 2, width: 2, height: 1, extraSamples: 2 };
    write(bytes(1, 2, 3, 0, 4, 5, 6, 255), rgba);
    expect([...readTiff(path).data]).toEqual([1, 2, 3, 4, 5, 6]);

    const map = Array.from({ length: 768 }, (_, i) => ((i % 256) * 256 + Math.floor(i / 256)) % 65536);
    write(GREY, { photometric: 3, colorMap: map });
    expect([...readTiff(path).data].slice(0, 6)).toEqual([1, 1, 1, 2, 2, 2]);
    expect([...readTiffSamples(path).data].slice(0, 3)).toEqual([256, 257, 258]);
    // A palette of 8-bit colours, as some programs write it.
    write(GREY, { photometric: 3, colorMap: map.map((_, i) => 255 - (i % 256)) });
    expect([...readTiff(path).data].slice(0, 3)).toEqual([254, 254, 254]);
  });

  it('keeps grey grey, and passes over a thumbnail', () => {
    write(GREY, {}, [{ data: GREY, tags: { subfile: 1 } }]);
    expect(readTiffSamples(path)).toEqual({ width: 3, height: 2, data: Uint8Array.from(GREY) });
  });

  const raw = (text: string): string => {
    writeFileSync(path, Buffer.from(text, 'latin1'));
    return path;
  };
  const one = (tags: TiffTags, data = GREY): string => write(data, tags);
  it.each<[string, () => string, string]>([
    ['a stack', () => write(GREY, {}, [{ data: GREY }, { data: GREY }]), 'holds 3 images, expected one'],
    [
      'an ImageJ stack in one page',
      () => one({ description: 'ImageJ=1.54f\nimages=40\nslices=40\n' }),
      'holds 40 images',
    ],
    ['floats', () => one({ bits: [32], sampleFormat: 3 }, Buffer.alloc(24)), 'has float samples of 32 bits'],
    ['signed numbers', () => one({ sampleFormat: 2 }), 'has signed samples of 8 bits'],
    [
      'two grey channels',
      () => one({ bits: [8, 8], samples: 2, extraSamples: 0, width: 1, height: 3 }),
      'holds 2 channels',
    ],
    [
      'planes',
      () => one({ bits: [8, 8, 8], samples: 3, photometric: 2, planar: 2, width: 2, height: 1 }),
      'separate planes',
    ],
    ['CMYK', () => one({ bits: [8, 8, 8, 8], samples: 4, photometric: 5, width: 1, height: 1 }), 'colours of kind 5'],
    ['JPEG', () => one({ compression: 7 }), 'is compressed by method 7, expected none, LZW or deflate'],
    ['a turned picture', () => one({ orientation: 6 }), 'is stored turned (orientation 6)'],
    ['no palette', () => one({ photometric: 3 }), 'its palette is missing'],
    ['no size', () => one({ width: 0 }), 'its size is 0 × 2'],
    ['too short a strip', () => one({ byteCount: 5 }), 'piece 1 has 5 bytes of 6'],
    ['broken deflate', () => one({ compression: 8 }), 'is a corrupt TIFF file ('],
    ['a strip beyond the end', () => one({ stripOffset: 1e6 }), 'is a truncated TIFF file'],
    ['PNG', () => raw('\x89PNG\r\n\x1a\n0000'), 'is not a TIFF file'],
    ['BigTIFF', () => raw('II\x2b\0\x08\0\0\0'), 'is a BigTIFF file'],
    ['no file', () => join(dir, 'gone.tif'), 'cannot be read'],
  ])('refuses %s in one sentence', (_, make, part) => {
    const file = make();
    for (const read of [inspectTiff, readTiff]) {
      expect(() => read(file)).toThrow(UserError);
      expect(() => read(file)).toThrow(part);
      expect(() => read(file)).toThrow(file);
    }
  });

  it('refuses a list of pages that runs in a circle', () => {
    const file = tiffFile(GREY, {}, [{ data: GREY }]);
    // The second page's successor becomes the first page.
    const first = file.readUInt32LE(4);
    const second = file.readUInt32LE(first + 2 + 12 * file.readUInt16LE(first));
    file.writeUInt32LE(first, second + 2 + 12 * file.readUInt16LE(second));
    writeFileSync(path, file);
    expect(() => inspectTiff(path)).toThrow('runs in a circle');
  });

  it('finds every truncation, and ends every damaged file with a picture or a sentence', () => {
    const outcome = (read: (path: string) => unknown, file: Buffer): string => {
      writeFileSync(path, file);
      try {
        read(path);
        return 'read';
      } catch (error) {
        return error instanceof UserError ? 'refused' : String(error);
      }
    };
    const file = Buffer.from(FILES.grey16Lzw[0], 'base64');
    const cut = [...file.keys()].map((length) => outcome(inspectTiff, file.subarray(0, length)));
    expect(new Set(cut)).toEqual(new Set(['refused']));
    const damaged = [...file.keys()].flatMap((i) => {
      const changed = Buffer.from(file);
      changed[i] ^= 0xff;
      return [outcome(readTiff, changed), outcome(readTiffValues, changed)];
    });
    expect(new Set(damaged)).toEqual(new Set(['read', 'refused']));
  });
});

describe('readTiffValues', () => {
  it.each<[string, Buffer, TiffTags, number[]]>([
    ['8 bits', GREY, {}, [1, 2, 3, 4, 5, 6]],
    ['1 bit', bytes(0b10100000, 0b01000000), { bits: [1] }, [1, 0, 1, 0, 1, 0]],
    ['16 bits', words(0, 1, 256, 65535, 7, 8), { bits: [16] }, [0, 1, 256, 65535, 7, 8]],
    [
      '16 bits where white is 0',
      words(0, 1, 256, 65535, 7, 8),
      { bits: [16], photometric: 0 },
      [0, 1, 256, 65535, 7, 8],
    ],
    [
      '32 bits',
      Buffer.from(Uint32Array.of(0, 1, 70000, 2 ** 32 - 1, 5, 6).buffer),
      { bits: [32] },
      [0, 1, 70000, 2 ** 32 - 1, 5, 6],
    ],
    [
      '32 bits with sign, deflated',
      deflateSync(Buffer.from(Int32Array.of(0, 1, 70000, -3, 5, 6).buffer)),
      { bits: [32], sampleFormat: 2, compression: 8 },
      [0, 1, 70000, -3, 5, 6],
    ],
    [
      'floats',
      Buffer.from(Float32Array.of(0, 1, 70000, 2.5, 5, 6).buffer),
      { bits: [32], sampleFormat: 3 },
      [0, 1, 70000, 2.5, 5, 6],
    ],
  ])('reads %s unscaled', (_, data, tags, expected) => {
    const { width, height, values } = readTiffValues(write(data, tags));
    expect([width, height, Array.from(values)]).toEqual([3, 2, expected]);
  });

  it('refuses colours, and depths that hold no labels', () => {
    const rgb = write(bytes(1, 1, 1), { bits: [8, 8, 8], samples: 3, photometric: 2, width: 1, height: 1 });
    expect(() => readTiffValues(rgb)).toThrow('is a colour image');
    expect(() => readTiffValues(write(Buffer.alloc(12), { bits: [16], sampleFormat: 3 }))).toThrow(
      'has 16 bits a sample',
    );
    const short = write(readFileSync(path).subarray(0, 20), { bits: [32], compression: 8 });
    expect(() => readTiffValues(short)).toThrow('is a corrupt TIFF file');
  });
});
