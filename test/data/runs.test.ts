import fc from 'fast-check';
import { expect, it } from 'vitest';
import { maskBox } from '../../src/data/dataset.ts';
import { rleEncode, rleRuns } from '../../src/data/rle.ts';
import { runsCrop, runsExtent } from '../../src/data/runs.ts';

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
