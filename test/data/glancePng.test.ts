import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { glancePng } from '../../src/data/glancePng.ts';
import { writePng } from '../../src/data/png.ts';
import { noise, removeFolders, temporaryFolder } from './folders.ts';

afterAll(removeFolders);

function picture(seed = 1): string {
  const path = join(temporaryFolder(), 'a.png');
  writePng(path, 31, 7, noise(31, 7, seed));
  return path;
}

describe('glancePng', () => {
  it('tells the size, and the same of the same contents only', () => {
    const one = glancePng(picture());
    expect(one).toEqual({ width: 31, height: 7, fingerprint: glancePng(picture()).fingerprint });
    expect(glancePng(picture(2)).fingerprint).not.toBe(one.fingerprint);
  });

  it('reads a file whole that has bytes behind its end mark', () => {
    const path = picture();
    appendFileSync(path, 'and more');
    expect(glancePng(path)).toMatchObject({ width: 31, height: 7 });
    const bytes = readFileSync(path);
    bytes[bytes.length >> 1] ^= 1;
    writeFileSync(path, bytes);
    expect(() => glancePng(path)).toThrow(`${path} is a corrupt PNG file`);
  });

  it('finds what is missing, no PNG, or cut off anywhere', () => {
    const path = picture();
    const bytes = readFileSync(path);
    for (const length of [0, 7, 20, 40, bytes.length >> 1, bytes.length - 1]) {
      writeFileSync(path, bytes.subarray(0, length));
      expect(() => glancePng(path)).toThrow(path);
    }
    writeFileSync(path, 'GIF89a'.repeat(20));
    expect(() => glancePng(path)).toThrow(`${path} is not a PNG file`);
    expect(() => glancePng(join(path, 'b.png'))).toThrow('cannot be read');
  });
});
