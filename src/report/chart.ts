/** Charts as SVG text, drawn on the host by ECharts without a browser; one look for reports, EDA and evaluation. */
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
  title: string;
  xLabel: string;
  yLabel: string;
  series: readonly ChartSeries[];
  /** Pixels; default 640 × 320. */
  width?: number;
  height?: number;
  yMin?: number;
  yMax?: number;
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
  /** Bins of equal width over all values; default 20. */
  bins?: number;
  width?: number;
  height?: number;
}

/** Lines over a common x axis. @returns an SVG document */
export function lineChart(options: LineChartOptions): string {
  const { series, mark, step, logY, yMin, yMax } = options;
  const xs = series.flatMap(({ points }) => points.map(([x]) => x));
  return render(options, series.length, {
    xAxis: {
      ...axis(options.xLabel),
      type: 'value',
      min: xs.length > 0 ? xs.reduce((least, x) => Math.min(least, x)) : 0,
      max: xs.length > 0 ? xs.reduce((most, x) => Math.max(most, x)) : 1,
      splitLine: { show: false },
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
              label: { formatter: mark.label, color: MUTED, fontFamily: FONT, fontSize: 11 },
              data: [{ xAxis: mark.x }],
            },
          }
        : {}),
    })),
  });
}

/** Counts of values in bins of equal width. @returns an SVG document */
export function histogramChart(options: HistogramOptions): string {
  const { series, bins = 20 } = options;
  const all = series.flatMap(({ values }) => values);
  const least = all.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const most = all.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const from = all.length === 0 ? 0 : least;
  const width = all.length === 0 || most === least ? 1 : (most - least) / bins;
  const count = (values: readonly number[]): number[] => {
    const counts: number[] = Array(bins).fill(0);
    for (const value of values) counts[Math.min(bins - 1, Math.floor((value - from) / width))]++;
    return counts;
  };
  // Enough digits that neighbouring bins differ.
  const digits = Math.max(0, Math.ceil(-Math.log10(width)));
  return render(options, series.length, {
    xAxis: {
      ...axis(options.xLabel),
      type: 'category',
      data: Array.from({ length: bins }, (_, i) => (from + (i + 0.5) * width).toFixed(digits)),
      axisTick: { show: false },
    },
    yAxis: { ...axis(options.yLabel, true), type: 'value', minInterval: 1 },
    series: series.map(({ name, values }) => ({
      name,
      type: 'bar',
      stack: 'all',
      barCategoryGap: '8%',
      data: count(values),
    })),
  });
}

function axis(name: string, vertical = false): object {
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
  { title, width = 640, height = 320 }: { title: string; width?: number; height?: number },
  series: number,
  parts: EChartsCoreOption,
): string {
  const chart = echarts.init(null, undefined, { renderer: 'svg', ssr: true, width, height });
  try {
    const legend = series > 1;
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
            top: 34,
            left: 14,
            itemWidth: 16,
            itemHeight: 8,
            // Fonts wider than ECharts reckons with do not reach the next entry.
            itemGap: 22,
            icon: 'roundRect',
            textStyle: { color: INK, fontFamily: FONT, fontSize: 11 },
          }
        : undefined,
      grid: { left: 64, right: 24, top: legend ? 72 : 48, bottom: 48 },
      ...parts,
    });
    return chart.renderToSVGString();
  } finally {
    chart.dispose();
  }
}
