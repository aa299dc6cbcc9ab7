/** Charts as SVG text, drawn on the host by ECharts without a browser; one look for reports, EDA and evaluation. */
import { createHash } from 'node:crypto';
import { BarChart, LineChart } from 'echarts/charts';
import { GridComponent, LegendComponent, MarkLineComponent, TitleComponent } from 'echarts/components';
import type { EChartsCoreOption } from 'echarts/core';
import * as echarts from 'echarts/core';
import { SVGRenderer } from 'echarts/renderers';

echarts.use([LineChart, BarChart, GridComponent, LegendComponent, MarkLineComponent, TitleComponent, SVGRenderer]);

/** Colours in the order of series: distinct also for the colour-blind (Okabe and Ito's palette, darkened a little). */
export const CHART_COLOURS: readonly string[] = [
  '#0b6fb8',
  '#d1600a',
  '#11875d',
  '#b04a8f',
  '#b58900',
  '#2a9fd6',
  '#8c4a2f',
  '#5b5b66',
];

// Without quotes: ECharts writes it into an attribute as it is.
const FONT = 'system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif';
const INK = '#23262f';
const MUTED = '#6b7080';
const RULE = '#e4e6ec';

export interface ChartSeries {
  name: string;
  /** In rising order of x; a null leaves a gap. */
  points: readonly (readonly [x: number, y: number | null])[];
  dashed?: boolean;
}

export interface LineChartOptions {
  /** May be empty, as may the labels: then no room is left for it. */
  title: string;
  xLabel: string;
  yLabel: string;
  series: readonly ChartSeries[];
  /** Pixels; default 640 × 320. */
  width?: number;
  height?: number;
  yMin?: number;
  yMax?: number;
  /** False where the page names the series itself, in the order of `CHART_COLOURS`. Default true. */
  legend?: boolean;
  /** Ticks of the x axis at whole numbers only. */
  wholeX?: boolean;
  /** A vertical line, such as at the best epoch. */
  mark?: { x: number; label: string };
  /** Draws steps instead of slopes. */
  step?: boolean;
  logY?: boolean;
}

export interface HistogramOptions {
  title: string;
  xLabel: string;
  yLabel: string;
  /** Values to count, one colour each, stacked. */
  series: readonly { name: string; values: readonly number[] }[];
  /** About how many bins of equal, round width; default 20. Whole numbers get bins that hold equally many of them. */
  bins?: number;
  /** Vertical lines, such as between quantiles, with their values written where there is room. */
  marks?: readonly number[];
  /** Of the series; default `CHART_COLOURS`. */
  colours?: readonly string[];
  width?: number;
  height?: number;
}

export interface BarChartOptions {
  title: string;
  xLabel: string;
  yLabel: string;
  /** Under the bars, in order. */
  categories: readonly string[];
  /** Of each category. */
  values: readonly number[];
  /** Of each category; default `CHART_COLOURS`. */
  colours?: readonly string[];
  width?: number;
  height?: number;
}

/** Lines over a common x axis. @returns an SVG document */
export function lineChart(options: LineChartOptions): string {
  const { series, mark, step, logY, yMin, yMax } = options;
  const xs = series.flatMap(({ points }) => points.map(([x]) => x));
  const least = xs.length > 0 ? xs.reduce((a, b) => Math.min(a, b)) : 0;
  const most = xs.length > 0 ? xs.reduce((a, b) => Math.max(a, b)) : 1;
  // The label of a mark near an end of the axis stays inside the picture.
  const share = mark ? (mark.x - least) / (most - least || 1) : 0;
  const align = share > 0.85 ? 'right' : share < 0.15 ? 'left' : 'center';
  return render(options, series.length, {
    xAxis: {
      ...axis(options.xLabel),
      type: 'value',
      min: least,
      max: most,
      splitLine: { show: false },
      ...(options.wholeX ? { minInterval: 1 } : {}),
    },
    yAxis: {
      ...axis(options.yLabel, true),
      type: logY ? 'log' : 'value',
      scale: yMin === undefined,
      ...(yMin === undefined ? {} : { min: yMin }),
      ...(yMax === undefined ? {} : { max: yMax }),
    },
    series: series.map(({ name, points, dashed }, i) => ({
      name,
      type: 'line',
      data: points.map(([x, y]) => [x, logY && y !== null && y <= 0 ? null : y]),
      showSymbol: points.length <= 1,
      symbolSize: 6,
      step: step ? 'end' : false,
      lineStyle: { width: 2, type: dashed ? 'dashed' : 'solid' },
      ...(i === 0 && mark
        ? {
            markLine: {
              silent: true,
              symbol: 'none',
              lineStyle: { color: MUTED, type: 'dashed', width: 1 },
              label: { formatter: mark.label, align, color: MUTED, fontFamily: FONT, fontSize: 11 },
              data: [{ xAxis: mark.x }],
            },
          }
        : {}),
    })),
  });
}

/** Counts of values in bins of equal width. @returns an SVG document */
export function histogramChart(options: HistogramOptions): string {
  const { series, bins = 20, marks = [], colours = CHART_COLOURS } = options;
  const all = series.flatMap(({ values }) => values);
  const { from, width, count } = histogramBins(all, bins);
  const end = from + count * width;
  const heights = (values: readonly number[]): number[] => {
    const counts: number[] = Array(count).fill(0);
    for (const value of values) counts[Math.min(count - 1, Math.floor((value - from) / width))]++;
    return counts;
  };
  const x = axis(options.xLabel);
  let labelled = Number.NEGATIVE_INFINITY;
  const lines = marks.map((x) => {
    const room = x - labelled > 0.07 * (end - from);
    if (room) labelled = x;
    return { xAxis: x, label: { show: room, formatter: String(Number(x.toPrecision(4))) } };
  });
  return render(options, series.length, {
    color: [...colours],
    // Room for the values of the marks.
    ...(lines.length > 0 ? { grid: { left: 64, right: 24, top: series.length > 1 ? 88 : 64, bottom: 48 } } : {}),
    xAxis: {
      ...x,
      // The ends of the axis are seldom round.
      axisLabel: { ...x.axisLabel, showMinLabel: from === 0, showMaxLabel: false },
      type: 'value',
      min: from,
      max: end,
      ...(all.every(Number.isInteger) ? { minInterval: 1 } : {}),
      splitLine: { show: false },
    },
    yAxis: { ...axis(options.yLabel, true), type: 'value', minInterval: 1 },
    series: series.map(({ name, values }, i) => ({
      name,
      type: 'bar',
      stack: 'all',
      barCategoryGap: '6%',
      barMaxWidth: 72,
      data: heights(values).map((height, bin) => [from + (bin + 0.5) * width, height]),
      ...(i === 0 && lines.length > 0
        ? {
            markLine: {
              silent: true,
              symbol: 'none',
              lineStyle: { color: MUTED, type: 'dashed', width: 1 },
              label: { color: MUTED, fontFamily: FONT, fontSize: 11 },
              data: lines,
            },
          }
        : {}),
    })),
  });
}

/** About `wanted` bins whose width is 1, 2 or 5 times a power of ten, over all values. */
export function histogramBins(
  values: readonly number[],
  wanted: number,
): { from: number; width: number; count: number } {
  if (values.length === 0) return { from: 0, width: 1, count: 1 };
  const least = values.reduce((a, b) => Math.min(a, b));
  const most = values.reduce((a, b) => Math.max(a, b));
  const whole = values.every(Number.isInteger);
  const exact = (most - least) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(exact));
  const round = [1, 2, 5, 10].map((factor) => factor * power).find((width) => width >= exact * (1 - 1e-9)) ?? exact;
  // A bar for each whole number stands over it.
  if (whole && round <= 1) return { from: least - 0.5, width: 1, count: most - least + 1 };
  const from = Math.floor(least / round) * round;
  return { from, width: round, count: Math.floor((most - from) / round) + 1 };
}

/** One bar a category, with its value above it. @returns an SVG document */
export function barChart(options: BarChartOptions): string {
  const { categories, values, colours = CHART_COLOURS } = options;
  return render(options, 1, {
    xAxis: { ...axis(options.xLabel), type: 'category', data: [...categories], axisTick: { show: false } },
    yAxis: { ...axis(options.yLabel, true), type: 'value', minInterval: 1 },
    series: [
      {
        type: 'bar',
        barMaxWidth: 72,
        data: values.map((value, i) => ({
          value,
          itemStyle: { color: colours[i % colours.length] },
        })),
        label: {
          show: true,
          position: 'top',
          color: MUTED,
          fontFamily: FONT,
          fontSize: 11,
          formatter: ({ value }: { value: number }) => value.toLocaleString('en-US'),
        },
      },
    ],
  });
}

function axis(name: string, vertical = false) {
  return {
    name,
    nameLocation: 'middle',
    nameGap: vertical ? 44 : 28,
    nameTextStyle: { color: MUTED, fontFamily: FONT, fontSize: 12 },
    axisLabel: { color: MUTED, fontFamily: FONT, fontSize: 11 },
    axisLine: { show: !vertical, lineStyle: { color: MUTED } },
    splitLine: { show: vertical, lineStyle: { color: RULE } },
  };
}

function render(
  { title, xLabel, yLabel, legend: named = true, width = 640, height = 320 }: Omit<LineChartOptions, 'series'>,
  series: number,
  parts: EChartsCoreOption,
): string {
  const chart = echarts.init(null, undefined, { renderer: 'svg', ssr: true, width, height });
  try {
    const legend = named && series > 1;
    const top = title ? 34 : 8;
    chart.setOption({
      animation: false,
      backgroundColor: '#ffffff',
      color: [...CHART_COLOURS],
      textStyle: { fontFamily: FONT },
      title: {
        text: title,
        left: 16,
        top: 10,
        textStyle: { color: INK, fontFamily: FONT, fontSize: 14, fontWeight: 600 },
      },
      legend: legend
        ? {
            top,
            left: 14,
            itemWidth: 16,
            itemHeight: 8,
            // Fonts wider than ECharts reckons with do not reach the next entry.
            itemGap: 22,
            icon: 'roundRect',
            textStyle: { color: INK, fontFamily: FONT, fontSize: 11 },
          }
        : undefined,
      grid: { left: yLabel ? 64 : 46, right: 24, top: top + (legend ? 38 : 16), bottom: xLabel ? 48 : 28 },
      ...parts,
    });
    return tidy(chart.renderToSVGString());
  } finally {
    chart.dispose();
  }
}

/**
 * The drawing alone: without ECharts' rules and marks for a pointer, and with ids that depend on the drawing only, so that equal
 * charts are equal texts and different ones can stand in one page.
 */
function tidy(svg: string): string {
  const plain = svg
    .replace(/<style >.*?<\/style>\s*/s, '')
    .replace(/ (?:class="[^"]*"|ecmeta_\w+="[^"]*"|pointer-events="[^"]*")/g, '')
    .replace(/<defs >\s*<\/defs>\s*/, '');
  const key = createHash('sha256')
    .update(plain.replaceAll(/zr\d+-/g, ''))
    .digest('hex')
    .slice(0, 8);
  return plain.replaceAll(/zr\d+-/g, `c${key}-`);
}
