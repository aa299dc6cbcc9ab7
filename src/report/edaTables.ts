import { DESCRIPTION_ROWS, type Description, describe } from '../data/statistics.ts';
import type { DataSummary } from './eda.ts';
import { formatCount } from './format.ts';

/** A table of texts; text and page show the same ones. */
export interface EdaTable {
  title: string;
  /** What the table tells, in a sentence. */
  note: string;
  head: string[];
  /** The first entry of each row is its name. */
  rows: string[][];
}

/** Images of a class that its table of quantiles lists by name (the notebook's `head()`). */
const LISTED = 5;

/** A number of a description: whole where it is, else with two decimals; a dash where there is none. */
function figure(value: number): string {
  if (Number.isNaN(value)) return '–';
  const digits = Number.isInteger(value) ? 0 : 2;
  return value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

const share = (part: number, whole: number): string => (whole === 0 ? '–' : `${((100 * part) / whole).toFixed(1)} %`);

function described(title: string, note: string, rows: readonly [string, Description][]): EdaTable {
  return {
    title,
    note,
    head: ['', ...DESCRIPTION_ROWS],
    rows: rows.map(([name, description]) => [name, ...DESCRIPTION_ROWS.map((row) => figure(description[row]))]),
  };
}

/** Images and cells of each class. */
export function classTable({ classes, images, cells }: DataSummary): EdaTable {
  return {
    title: 'Images and cells per type',
    note: 'An image with cells of several types counts for each.',
    head: ['type', 'images', 'of all', 'cells', 'of all', 'cells per image'],
    rows: classes.map((item) => [
      item.name,
      formatCount(item.images),
      share(item.images, images),
      formatCount(item.cells),
      share(item.cells, cells),
      item.images === 0 ? '–' : (item.cells / item.images).toFixed(1),
    ]),
  };
}

/** The notebook's `describe` of cells per image: of each class, then of all rows. */
export function cellsPerImageTable({ classes, description, imageDescription }: DataSummary): EdaTable {
  const rows = classes.map((item): [string, Description] => [item.name, item.description]);
  if (classes.length > 1) rows.push(['all rows', description]);
  // Where an image holds several types, or none, images are not the rows of the notebook's table.
  if (description.count !== imageDescription.count) rows.push(['whole images', imageDescription]);
  return described('Cells of each type in an image', "pandas' describe of their numbers.", rows);
}

/** The groups of a class's images by their cells. */
export function quantileTable({ name, quantiles, images, cells }: DataSummary['classes'][number]): EdaTable {
  return {
    title: `Quintiles of ${name}`,
    note: "pandas' qcut of the images into five groups of equal size by their cells.",
    head: ['cells per image', 'images', 'of all', 'cells', 'of all'],
    rows: quantiles.map((group) => [
      group.label,
      formatCount(group.images),
      share(group.images, images),
      formatCount(group.cells),
      share(group.cells, cells),
    ]),
  };
}

/** The images of a class with the most cells, in the notebook's order. */
export function headTable({ rows }: DataSummary, name: string): EdaTable {
  const own = rows.filter(({ cellType }) => cellType === name).slice(0, LISTED);
  return {
    title: `Most cells of ${name}`,
    note: 'The first images of the table counts.csv.',
    head: ['image', 'cells', 'quintile'],
    rows: own.map(({ id, cells, quantile }) => [id, formatCount(cells), quantile]),
  };
}

/** Areas and box sides of the cells of each class. */
export function cellSizeTables({ classes }: DataSummary): EdaTable[] {
  const rows = (values: 'areas' | 'boxSides') =>
    classes.map((item): [string, Description] => [item.name, describe(item[values])]);
  return [
    described('Area of a cell', 'Pixels of the mask.', rows('areas')),
    described(
      "Longer side of a cell's box",
      'Pixels of the file; times --resize it is what anchors must fit.',
      rows('boxSides'),
    ),
  ];
}

/** What a limit of detections per image costs. */
export function limitTable({ limits, images, cells }: DataSummary): EdaTable {
  return {
    title: 'Images with more cells than a model gives back',
    note: 'boxDetectionsPerImg is 100 in torchvision and 540 in the notebook; what is beyond it cannot be found.',
    head: ['detections per image', 'images above', 'of all', 'cells beyond', 'of all'],
    rows: limits.map((limit) => [
      formatCount(limit.detections),
      formatCount(limit.images),
      share(limit.images, images),
      formatCount(limit.cells),
      share(limit.cells, cells),
    ]),
  };
}

/** Sizes of the image files. */
export function imageSizeTable({ sizes, images }: DataSummary): EdaTable {
  const shown = sizes.slice(0, 10);
  const rest = sizes.slice(10).reduce((sum, size) => sum + size.images, 0);
  const rows = shown.map((size) => [
    `${size.width} × ${size.height}`,
    formatCount(size.images),
    share(size.images, images),
  ]);
  if (rest > 0) rows.push([`${sizes.length - 10} others`, formatCount(rest), share(rest, images)]);
  return { title: 'Image sizes', note: 'Width × height in pixels.', head: ['size', 'images', 'of all'], rows };
}
