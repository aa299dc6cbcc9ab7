import { classColour } from '../eval/overlay.ts';
import { barChart, histogramChart } from './chart.ts';
import type { ClassSummary, DataSummary } from './eda.ts';

/** A picture of the exploration: the name of its file without the ending, and its SVG. */
export interface EdaChart {
  file: string;
  svg: string;
}

/** A class's name as part of a file's, with its number, so that no two are equal. */
export function fileNameOf(name: string, index: number): string {
  return `${index + 1}-${name.replace(/[^\p{L}\p{N}_-]+/gu, '_').slice(0, 40)}`;
}

/** Colours of the classes, those of the pictures of their cells. */
const colours = ({ length }: readonly unknown[]): string[] =>
  Array.from({ length }, (_, i) => `rgb(${classColour(i + 1).join(', ')})`);

const HALF = { width: 520, height: 300 };

/** Images and cells of each type as bars. */
export function classCharts({ classes }: DataSummary): EdaChart[] {
  const categories = classes.map(({ name }) => name);
  const bars = (title: string, yLabel: string, values: number[]) =>
    barChart({ ...HALF, title, xLabel: '', yLabel, categories, values, colours: colours(classes) });
  return [
    {
      file: 'images-per-type',
      svg: bars(
        'Images per type',
        'images',
        classes.map(({ images }) => images),
      ),
    },
    {
      file: 'cells-per-type',
      svg: bars(
        'Cells per type',
        'cells',
        classes.map(({ cells }) => cells),
      ),
    },
  ];
}

function distribution(
  { classes }: DataSummary,
  file: string,
  title: string,
  labels: { xLabel: string; yLabel: string },
  values: (item: ClassSummary) => number[],
  size = HALF,
): EdaChart {
  const series = classes.map((item) => ({ name: item.name, values: values(item) }));
  return { file, svg: histogramChart({ ...size, ...labels, title, series, colours: colours(classes), bins: 30 }) };
}

/** How many images have how many cells, all types in one picture. */
export function cellsPerImageChart(summary: DataSummary): EdaChart {
  const labels = { xLabel: 'cells of a type in an image', yLabel: 'images' };
  const size = { width: 1072, height: 320 };
  return distribution(summary, 'cells-per-image', 'Cells per image', labels, (item) => item.cellsPerImage, size);
}

/** The same for one class, with the edges of its five groups. */
export function quantileChart({ name, cellsPerImage, edges }: ClassSummary, index: number): EdaChart {
  const svg = histogramChart({
    ...HALF,
    title: name,
    xLabel: 'cells in an image',
    yLabel: 'images',
    series: [{ name, values: cellsPerImage }],
    marks: [...new Set(edges)],
    colours: [`rgb(${classColour(index + 1).join(', ')})`],
    bins: 25,
  });
  return { file: `quintiles-${fileNameOf(name, index)}`, svg };
}

/** How large cells are. */
export function cellSizeCharts(summary: DataSummary): EdaChart[] {
  const yLabel = 'cells';
  return [
    distribution(summary, 'cell-area', 'Area of a cell', { xLabel: 'pixels', yLabel }, ({ areas }) => areas),
    distribution(
      summary,
      'box-side',
      "Longer side of a cell's box",
      { xLabel: 'pixels', yLabel },
      (item) => item.boxSides,
    ),
  ];
}
