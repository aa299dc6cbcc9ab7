import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import { inspectPng, readPng, readPngValues, writePng } from '../../src/data/png.ts';
import { noise, removeFolders, temporaryFolder } from './folders.ts';

afterAll(removeFolders);

/** Files of 3 × 2 pixels, and what OpenCV 5.0's imread(…, IMREAD_COLOR) makes of them, in the order red, green, blue. */
const FILES: Record<string, [base64: string, rgb: number[]]> = {
  grey8: [
    'iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAAAAAC4HznGAAAAEElEQVR42mNY8XQHw7vVIgARygPzEyIXnAAAAABJRU5ErkJggg==',
    [168, 168, 168, 229, 229, 229, 184, 184, 184, 238, 238, 238, 171, 171, 171, 20, 20, 20],
  ],
  grey16: [
    'iVBORw0KGgoAAAANSUhEUgAAAAMAAAACEAAAAADoj+WFAAAAFklEQVR42mP4OvMMq6opw4G1bBX2CQAp1QVEub3xIwAAAABJRU5ErkJggg==',
    [245, 245, 245, 204, 204, 204, 37, 37, 37, 192, 192, 192, 6, 6, 6, 63, 63, 63],
  ],
  grey2: [
    'iVBORw0KGgoAAAANSUhEUgAAAAMAAAACAgAAAADyryFnAAAADElEQVR42mMoY6gBAAHiAPNR4RcLAAAAAElFTkSuQmCC',
    [85, 85, 85, 255, 255, 255, 85, 85, 85, 85, 85, 85, 255, 255, 255, 255, 255, 255],
  ],
  greyAlpha16: [
    'iVBORw0KGgoAAAANSUhEUgAAAAMAAAACEAQAAABn7XLSAAAAI0lEQVR42mN4K3DoF1f6Od5+JjV3htYylaQjypaTjDZPzAAAiE4KFbQvggEAAAAASUVORK5CYII=',
    [237, 237, 237, 10, 10, 10, 143, 143, 143, 133, 133, 133, 196, 196, 196, 50, 50, 50],
  ],
  rgb8: [
    'iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAIAAAASFvFNAAAAHUlEQVR42mM4Z9qruFV9OvcWhqVJ1TwTdkioNQIATnQHeUSpCGsAAAAASUVORK5CYII=',
    [206, 53, 141, 33, 181, 39, 151, 11, 180, 165, 98, 123, 12, 144, 184, 24, 38, 129],
  ],
  rgb16: [
    'iVBORw0KGgoAAAANSUhEUgAAAAMAAAACEAIAAABChi0OAAAAL0lEQVR42mMINXtiUL+ScXnud4EDfnc4bPZuZeDYGZG/vyvZ2cAl5aezRr2uojEANHoPN7XV1coAAAAASUVORK5CYII=',
    [85, 228, 127, 1, 109, 16, 78, 8, 189, 8, 88, 191, 99, 48, 100, 67, 127, 33],
  ],
  rgba8: [
    'iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAYAAACddGYaAAAAI0lEQVR42mO4GWp6pqJN/gZf/QJZhgsLS1KCpx9bsPagWR0AmkQMKuFar58AAAAASUVORK5CYII=',
    [217, 85, 53, 120, 134, 31, 14, 127, 160, 208, 161, 116, 83, 151, 198, 173, 193, 54],
  ],
  rgba16: [
    'iVBORw0KGgoAAAANSUhEUgAAAAMAAAACEAYAAADN5LpZAAAAPUlEQVR42gEyAM3/AH45dqprgzutNIu1qT/EkA+KiYf1D4w7jgD8jEznM9p9RZd1jFy90TDhR9nYL3xbcBBTKxf7Wq8a4QAAAABJRU5ErkJggg==',
    [126, 118, 107, 52, 181, 63, 138, 135, 15, 252, 76, 51, 151, 140, 189, 71, 216, 124],
  ],
  palette: [
    'iVBORw0KGgoAAAANSUhEUgAAAAMAAAACBAMAAABvWnspAAAACVBMVEUtWLhfSNferSTr4XNFAAAADklEQVR42mNgVGBQZAAAAM0AQ3pY260AAAAASUVORK5CYII=',
    [45, 88, 184, 95, 72, 215, 222, 173, 36, 222, 173, 36, 95, 72, 215, 45, 88, 184],
  ],
  paletteAlpha: [
    'iVBORw0KGgoAAAANSUhEUgAAAAMAAAACBAMAAABvWnspAAAACVBMVEW+Hr7evktPV/9yVh/eAAAAA3RSTlMAgP/s97MYAAAADklEQVR42mNgVGBQZAAAAM0AQ3pY260AAAAASUVORK5CYII=',
    [190, 30, 190, 222, 190, 75, 79, 87, 255, 79, 87, 255, 222, 190, 75, 190, 30, 190],
  ],
  rgbTransparent: [
    'iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAIAAAASFvFNAAAABnRSTlMAhQAJAGEixFIyAAAAHElEQVR42mNo5UzsbpeweWrCcMjY477X3hK/GABJSQewSqo5rwAAAABJRU5ErkJggg==',
    [133, 9, 97, 139, 135, 24, 60, 229, 52, 194, 51, 72, 223, 74, 189, 116, 78, 92],
  ],
};

describe('readPng', () => {
  const dir = temporaryFolder();
  it.each(Object.entries(FILES))('reads %s as OpenCV', (name, [base64, rgb]) => {
    const path = join(dir, `${name}.png`);
    writeFileSync(path, Buffer.from(base64, 'base64'));
    const image = readPng(path);
    expect([image.width, image.height]).toEqual([3, 2]);
    expect([...image.data]).toEqual(rgb);
    expect(inspectPng(path)).toEqual({ width: 3, height: 2 });
  });

  it('names a file that is missing or no PNG', () => {
    const path = join(dir, 'text.png');
    expect(() => readPng(path)).toThrow(UserError);
    expect(() => readPng(path)).toThrow(path);
    writeFileSync(path, 'no picture');
    expect(() => readPng(path)).toThrow(`${path} is not a PNG file`);
  });

  it('names a truncated file, wherever it is cut', () => {
    const whole = Buffer.from(FILES.rgb16[0], 'base64');
    const path = join(dir, 'cut.png');
    for (let length = 8; length < whole.length; length++) {
      writeFileSync(path, whole.subarray(0, length));
      expect(() => inspectPng(path), `${length} bytes`).toThrow(`${path} is a truncated PNG file`);
      expect(() => readPng(path), `${length} bytes`).toThrow(UserError);
    }
  });

  it('names a corrupt file, whichever byte is wrong', () => {
    const whole = Buffer.from(FILES.rgba8[0], 'base64');
    const path = join(dir, 'bad.png');
    for (let i = 0; i < whole.length; i++) {
      const bytes = Buffer.from(whole);
      bytes[i] ^= 0x41;
      writeFileSync(path, bytes);
      expect(() => readPng(path), `byte ${i}`).toThrow(UserError);
      expect(() => readPng(path), `byte ${i}`).toThrow(path);
    }
  });
});

describe('writePng', () => {
  it('writes grey, RGB and RGBA that read back', () => {
    const dir = temporaryFolder();
    const rgb = noise(7, 5, 1);
    const path = join(dir, 'new', 'a.png');
    writePng(path, 7, 5, rgb);
    expect(readPng(path)).toEqual({ width: 7, height: 5, data: rgb });
    const rgba = Uint8Array.from({ length: 7 * 5 * 4 }, (_, i) => (i % 4 === 3 ? i : rgb[(i >> 2) * 3 + (i % 4)]));
    writePng(path, 7, 5, rgba);
    expect(readPng(path).data).toEqual(rgb);
    expect(readFileSync(path)[25]).toBe(6);
    const grey = rgb.subarray(0, 35);
    writePng(path, 7, 5, grey);
    expect(readPng(path).data).toEqual(Uint8Array.from({ length: 105 }, (_, i) => grey[Math.floor(i / 3)]));
    expect(() => writePng(join(dir, 'b.png'), 7, 5, rgb.subarray(1))).toThrow(RangeError);
    expect(existsSync(join(dir, 'b.png'))).toBe(false);
  });
});

describe('numbers in a PNG', () => {
  const dir = temporaryFolder();
  const path = join(dir, 'a.png');

  it('come back as they were written, at 8 and at 16 bits', () => {
    const small = Uint8Array.of(0, 1, 2, 128, 254, 255);
    writePng(path, 3, 2, small);
    expect(readPngValues(path)).toEqual({ width: 3, height: 2, values: Uint16Array.from(small) });
    // A view into larger memory: pngjs alone would write what stands before it.
    const large = Uint16Array.of(9, 9, 0, 1, 255, 256, 40000, 65535).subarray(2);
    writePng(path, 3, 2, large);
    expect(readPngValues(path)).toEqual({ width: 3, height: 2, values: large.slice() });
    expect([...readPng(path).data].filter((_, i) => i % 3 === 0)).toEqual([0, 0, 0, 1, 156, 255]);
    const rgb = Uint16Array.from({ length: 18 }, (_, i) => i * 3001);
    writePng(path, 3, 2, rgb);
    expect([...readPng(path).data]).toEqual([...rgb].map((value) => value >> 8));
  });

  it('are not scaled below 8 bits, and may stand in three equal channels', () => {
    writeFileSync(path, Buffer.from(FILES.grey2[0], 'base64'));
    expect([...readPngValues(path).values]).toEqual([1, 3, 1, 1, 3, 3]);
    writePng(path, 2, 1, Uint8Array.of(7, 7, 7, 0, 0, 0));
    expect([...readPngValues(path).values]).toEqual([7, 0]);
  });

  it('are refused where they stand for colours', () => {
    writeFileSync(path, Buffer.from(FILES.palette[0], 'base64'));
    expect(() => readPngValues(path)).toThrow(`${path} has a palette`);
    writeFileSync(path, Buffer.from(FILES.rgb8[0], 'base64'));
    expect(() => readPngValues(path)).toThrow(`${path} is a colour image`);
  });
});
