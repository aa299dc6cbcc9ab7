import { describe, expect, it } from 'vitest';
import { histogramChart, type LineChartOptions, lineChart } from '../../src/report/chart.ts';
import { readMarkup } from '../support/markup.ts';

const options: LineChartOptions = {
  title: 'A title & more',
  xLabel: 'epoch',
  yLabel: 'loss',
  series: [
    { name: 'first', points: [1, 2, 3, 4].map((x) => [x, 1 / x]) },
    { name: 'second', points: [1, 2, 3, 4].map((x) => [x, x === 2 ? null : x]) },
  ],
};
const texts = (svg: string): string[] =>
  readMarkup(svg)
    .filter(({ name }) => name === 'text')
    .map(({ text }) => text);

describe('lineChart', () => {
  it('is a well-formed drawing with title, axes, legend and a curve in each colour', () => {
    const elements = readMarkup(lineChart(options));
    expect(elements[0]).toMatchObject({ name: 'svg', attributes: { viewBox: '0 0 640 320' } });
    expect(texts(lineChart(options))).toEqual(
      expect.arrayContaining(['A title & more', 'epoch', 'loss', 'first', 'second']),
    );
    const strokes = new Set(elements.map(({ attributes }) => attributes.stroke));
    expect(strokes).toContain('#0b6fb8');
    expect(strokes).toContain('#d1600a');
    expect(elements.some(({ name }) => name === 'style')).toBe(false);
  });

  it('is the same text whenever it is drawn, and shares no id with another chart', () => {
    const ids = (svg: string): string[] => readMarkup(svg).flatMap(({ attributes }) => attributes.id ?? []);
    const one = lineChart(options);
    const other = lineChart({ ...options, title: 'another' });
    expect(lineChart(options)).toBe(one);
    expect(ids(one)).not.toHaveLength(0);
    expect(ids(one).filter((id) => ids(other).includes(id))).toEqual([]);
    for (const id of ids(one)) expect(one).toContain(`url(#${id})`);
  });

  it('leaves no room for what it is not given, and no legend when told so', () => {
    const plain = lineChart({ ...options, title: '', xLabel: '', yLabel: '', legend: false });
    expect(texts(plain).every((text) => /^[\d.]+$/.test(text))).toBe(true);
  });

  it('has ticks at whole epochs only when told so', () => {
    const short = { ...options, legend: false, title: '', xLabel: '', yLabel: '' };
    const series = [
      {
        name: 'a',
        points: [
          [1, 5],
          [2, 7],
        ] as [number, number][],
      },
    ];
    const ticks = (wholeX: boolean): string[] =>
      readMarkup(lineChart({ ...short, series, wholeX }))
        .filter(({ name, attributes }) => name === 'text' && attributes['text-anchor'] === 'middle')
        .map(({ text }) => text);
    expect(ticks(true)).toEqual(['1', '2']);
    expect(ticks(false)).toContain('1.2');
  });

  it.each([
    [1, 'start'],
    [2.5, 'middle'],
    [4, 'end'],
  ])('keeps the label of a mark at %d inside the picture', (x, anchor) => {
    const elements = readMarkup(lineChart({ ...options, mark: { x, label: 'best' } }));
    const label = elements.find(({ text, name }) => name === 'text' && text === 'best');
    expect(label?.attributes['text-anchor']).toBe(anchor);
  });

  it('can be drawn of nothing', () => {
    expect(readMarkup(lineChart({ ...options, series: [] }))[0].name).toBe('svg');
  });
});

describe('histogramChart', () => {
  it('is well-formed and counts every value', () => {
    const svg = histogramChart({
      title: 'Cells',
      xLabel: 'cells',
      yLabel: 'images',
      bins: 4,
      series: [{ name: 'a', values: [0, 1, 2, 3, 4] }],
    });
    // Bins of width 1: each whole number has its own.
    const bars = readMarkup(svg).filter(({ name, attributes }) => name === 'path' && attributes.fill === '#0b6fb8');
    expect(bars).toHaveLength(5);
    expect(texts(svg)).toContain('Cells');
  });
});
