import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  convolutionClass,
  convolutionClasses,
  convolutionSample,
  productClass,
  productClasses,
  productSample,
} from '../../src/tuner/shapeClasses.ts';
import { problemOf } from '../../src/tuner/tuner.ts';

describe('classes of work', () => {
  it('of products go by direction, columns and the size of the result', () => {
    const row = (rows: number, columns: number) => productClass({ direction: 'row', rows, columns, depth: 64 });
    expect(row(1024, 256)).toBe('row wide large');
    expect(row(1023, 256)).toBe('row wide small');
    expect(row(8192, 32)).toBe('row narrow large');
    expect(row(8191, 32)).toBe('row narrow small');
    expect(row(1000, 33)).toBe('row wide small');
    const column = (rows: number, columns: number) => productClass({ direction: 'column', rows, columns, depth: 9 });
    expect(column(2304, 256)).toBe('column wide large');
    expect(column(576, 64)).toBe('column wide small');
    expect(column(1e6, 32)).toBe('column narrow');
  });

  it('of convolutions go by side, channels and tiles', () => {
    const base = { direction: 'forward', images: 1, height: 32, width: 32, channels: 64, outChannels: 64 } as const;
    expect(convolutionClass(base)).toBe('3×3 data medium many');
    expect(convolutionClass({ ...base, direction: 'inputGradient' })).toBe('3×3 data medium many');
    expect(convolutionClass({ ...base, direction: 'weightGradient' })).toBe('3×3 weights medium many');
    // 8 × 7 tiles of 4 × 4, the last of which are cut.
    expect(convolutionClass({ ...base, width: 25 })).toBe('3×3 data medium few');
    expect(convolutionClass({ ...base, width: 25, images: 2 })).toBe('3×3 data medium many');
    expect(convolutionClass({ ...base, channels: 47 })).toBe('3×3 data narrow many');
    expect(convolutionClass({ ...base, channels: 96, outChannels: 96 })).toBe('3×3 data wide many');
    expect(convolutionClass({ ...base, channels: 96, outChannels: 95 })).toBe('3×3 data medium many');
  });

  it('are measured on samples that belong to them', () => {
    for (const realGpu of [false, true]) {
      for (const name of productClasses) expect(productClass(problemOf(productSample(name, realGpu)))).toBe(name);
      for (const name of convolutionClasses) {
        expect(convolutionClass(convolutionSample(name, realGpu))).toBe(name);
      }
    }
  });

  it('take in every problem', () => {
    const size = fc.integer({ min: 1, max: 1 << 20 });
    fc.assert(
      fc.property(
        size,
        size,
        size,
        fc.constantFrom('row' as const, 'column' as const),
        (rows, columns, depth, direction) => productClasses.includes(productClass({ direction, rows, columns, depth })),
      ),
    );
  });
});
