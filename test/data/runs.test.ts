import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { maskBox } from '../../src/data/dataset.ts';
import { rleEncode, rleRuns } from '../../src/data/rle.ts';
import { runsArea, runsBox, runsCrop, runsExtent, runsToText, transposeRuns } from '../../src/data/runs.ts';

/** A size, and runs within it in any order, overlapping or not. */
const images = fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 9 })).chain(([width, height]) => {
  const pixels = width * height;
  const run = fc
    .tuple(fc.nat(pixels - 1), fc.integer({ min: 1, max: pixels }))
    .map(([start, length]) => [start, Math.min(length, pixels - start)]);
  return fc.record({ width: fc.constant(width), height: fc.constant(height), runs: fc.array(run, { maxLength: 6 }) });
});

const maskOf = (runs: readonly number[][], pixels: number): Uint8Array => {
  const mask = new Uint8Array(pixels);
  for (const [start, length] of runs) mask.fill(1, start, start + length);
  return mask;
};

describe('runs', () => {
  it('turn into those along columns and back, as the mask does', () => {
    fc.assert(
      fc.property(images, ({ width, height, runs }) => {
        const mask = maskOf(runs, width * height);
        const turned = new Uint8Array(mask.length);
        for (const [i, value] of mask.entries()) turned[(i % width) * height + Math.floor(i / width)] = value;
        const columns = transposeRuns(runs.flat(), width, height);
        expect(runsToText(columns)).toBe(rleEncode(turned));
        const rows = transposeRuns(columns, height, width);
        expect(runsToText(rows)).toBe(rleEncode(mask));
        expect(runsArea(rows)).toBe(mask.filter((value) => value === 1).length);
        expect(runsBox(rows, width)).toEqual(maskBox(mask, width, height));
      }),
    );
  });
});

it('area, box and crop of runs are those of the mask', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 1, max: 9 }),
      fc.infiniteStream(fc.constantFrom(0, 0, 1)),
      (width, height, stream) => {
        const mask = Uint8Array.from({ length: width * height }, () => stream.next().value as number);
        const runs = rleRuns(rleEncode(mask), width, height, 'here');
        const extent = runsExtent(runs, width);
        expect(extent.area).toBe(mask.reduce((sum, value) => sum + value, 0));
        const box = maskBox(mask, width, height);
        const { x, y } = extent;
        if (box === undefined) expect(extent).toEqual({ area: 0, x: 0, y: 0, width: 0, height: 0 });
        else expect([x, y, x + extent.width - 1, y + extent.height - 1]).toEqual(box);
        const crop = runsCrop(runs, width);
        expect(crop.data).toHaveLength(extent.width * extent.height);
        const drawn = new Uint8Array(width * height);
        crop.data.forEach((value, i) => {
          drawn[(crop.y + Math.floor(i / crop.width)) * width + crop.x + (i % crop.width)] = value;
        });
        expect(drawn).toEqual(mask);
      },
    ),
  );
});
