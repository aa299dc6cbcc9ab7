import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { barChart, histogramBins, histogramChart } from '../../src/report/chart.ts';

describe('histogramBins', () => {
  it('are round, cover every value and are about as many as wanted', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            fc.integer({ min: -1000, max: 1000 }),
            fc.integer({ min: -500, max: 500 }).map((value) => value / 7),
          ),
          {
            minLength: 1,
            maxLength: 40,
          },
        ),
        fc.integer({ min: 1, max: 40 }),
        (values, wanted) => {
          const { from, width, count } = histogramBins(values, wanted);
          const [least, most] = [Math.min(...values), Math.max(...values)];
          expect(from).toBeLessThanOrEqual(least);
          expect(least - from).toBeLessThan(width);
          expect(from + count * width).toBeGreaterThan(most - 1e-9 * width);
          expect([1, 2, 5]).toContain(Number(width.toExponential(9).split('e')[0]));
          if (most - least > 1e-9) expect(count).toBeLessThanOrEqual(wanted + 2);
        },
      ),
    );
  });

  it('stand over whole numbers where each has its own', () => {
    expect(histogramBins([1, 2, 2, 5], 20)).toEqual({ from: 0.5, width: 1, count: 5 });
    expect(histogramBins([7, 7], 20)).toEqual({ from: 6.5, width: 1, count: 1 });
    expect(histogramBins([2, 699], 20)).toEqual({ from: 0, width: 50, count: 14 });
    expect(histogramBins([], 20)).toEqual({ from: 0, width: 1, count: 1 });
  });
});

/** Heights of the bars of a colour, in pixels. */
const bars = (svg: string, colour: string): number[] =>
  [...svg.matchAll(new RegExp(`<path d="M\\S+ \\S+l\\S+ 0l0 (\\S+)l[^>]*fill="${colour}"`, 'g'))].map(
    (match) => 0 - Number(match[1]),
  );

describe('charts of counts', () => {
  const labels = { title: 'Cells & <images>', xLabel: 'cells', yLabel: 'images' };

  it('draw bars as high as their bins are full', () => {
    const series = [{ name: 'a', values: [1, 1, 2, 4] }];
    const svg = histogramChart({ ...labels, series, colours: ['#123456'], marks: [1, 2.5] });
    expect(svg).toMatch(/^<svg/);
    const [one, two, three, four, ...rest] = bars(svg, '#123456');
    expect(rest).toEqual([]);
    expect([one, three, four]).toEqual([2 * two, 0, two]);
    expect(two).toBeGreaterThan(50);
    expect(svg).toContain('>2.5<');
    expect(svg).toContain('Cells &amp; &lt;images&gt;');
  });

  it('draw a bar for each category with its value', () => {
    const svg = barChart({
      ...labels,
      categories: ['astro', 'cort'],
      values: [1234, 5],
      colours: ['#123456', '#654321'],
    });
    expect([...bars(svg, '#123456'), ...bars(svg, '#654321')].map((height) => height > 0)).toEqual([true, true]);
    for (const text of ['1,234', 'astro', 'cort']) expect(svg).toContain(`>${text}<`);
  });
});
