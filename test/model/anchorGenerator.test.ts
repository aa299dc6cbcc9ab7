import { describe, expect, it } from 'vitest';
import { baseAnchors, generateAnchors } from '../../src/model/anchorGenerator.ts';

const RATIOS = [0.5, 1, 2];

describe('baseAnchors', () => {
  // torchvision's `generate_anchors(scales, [0.5, 1.0, 2.0])`, rounded half to even as torch.round.
  it.each([
    [32, [-23, -11, 23, 11, -16, -16, 16, 16, -11, -23, 11, 23]],
    [64, [-45, -23, 45, 23, -32, -32, 32, 32, -23, -45, 23, 45]],
    [128, [-91, -45, 91, 45, -64, -64, 64, 64, -45, -91, 45, 91]],
    [256, [-181, -91, 181, 91, -128, -128, 128, 128, -91, -181, 91, 181]],
    [512, [-362, -181, 362, 181, -256, -256, 256, 256, -181, -362, 181, 362]],
    [8, [-6, -3, 6, 3, -4, -4, 4, 4, -3, -6, 3, 6]],
  ])('of size %i has torchvision’s corners', (size, corners) => {
    expect([...baseAnchors(size, RATIOS)]).toEqual(corners);
  });

  it('rounds halves to even, as torch does', () => {
    // 5 / 2 = 2.5 → 2, 7 / 2 = 3.5 → 4, 3 / 2 = 1.5 → 2, 1 / 2 → 0.
    expect([...baseAnchors(5, [1])]).toEqual([-2, -2, 2, 2]);
    expect([...baseAnchors(7, [1])]).toEqual([-4, -4, 4, 4]);
    expect([...baseAnchors(3, [1])]).toEqual([-2, -2, 2, 2]);
    expect([...baseAnchors(1, [1])].map(Math.abs)).toEqual([0, 0, 0, 0]);
  });

  it('keeps the area of size² up to rounding, with height / width the ratio', () => {
    for (const ratio of [0.25, 0.5, 1, 2, 4]) {
      const [x1, y1, x2, y2] = baseAnchors(1024, [ratio]);
      expect((y2 - y1) / (x2 - x1)).toBeCloseTo(ratio, 1);
      expect(Math.abs(((x2 - x1) * (y2 - y1)) / 1024 ** 2 - 1)).toBeLessThan(0.005);
    }
  });
});

describe('generateAnchors', () => {
  it('goes by levels, rows, columns, ratios', () => {
    const anchors = generateAnchors(
      [32, 64],
      RATIOS,
      [64, 96],
      [
        [2, 3],
        [1, 2],
      ],
    );
    expect(anchors).toHaveLength((2 * 3 + 1 * 2) * 3 * 4);
    const at = (index: number): number[] => [...anchors.subarray(index * 4, index * 4 + 4)];
    expect(at(0)).toEqual([-23, -11, 23, 11]);
    expect(at(1)).toEqual([-16, -16, 16, 16]);
    // One column on: the stride is 96 // 3 = 32 in x.
    expect(at(3)).toEqual([9, -11, 55, 11]);
    // One row on: 64 // 2 = 32 in y.
    expect(at(9)).toEqual([-23, 21, 23, 43]);
    // The second level begins behind all of the first; its stride in x is 96 // 2 = 48.
    expect(at(18)).toEqual([-45, -23, 45, 23]);
    expect(at(18 + 3 + 1)).toEqual([16, -32, 80, 32]);
  });

  it('has whole strides: image side // map side', () => {
    const anchors = generateAnchors([8], [1], [50, 70], [[4, 4]]);
    // 50 // 4 = 12, 70 // 4 = 17.
    expect([...anchors.subarray(4, 8)]).toEqual([17 - 4, -4, 17 + 4, 4]);
    expect([...anchors.subarray(16, 20)]).toEqual([-4, 12 - 4, 4, 12 + 4]);
  });

  it('refuses another number of sizes than of maps', () => {
    expect(() => generateAnchors([8, 16], [1], [64, 64], [[4, 4]])).toThrow('2 anchor sizes do not fit 1 maps.');
  });
});
