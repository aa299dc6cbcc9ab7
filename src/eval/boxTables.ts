/** Tables of boxes as the notebook's `mean_average_precision_for_boxes` takes them: rows, CSV files, or boxes by image. */
import { UserError } from '../cli/errors.ts';
import { readCsv } from '../data/csv.ts';

/** A row of the notebook's table of truths. A label NaN stands for an image without truths. */
export type BoxAnnotationRow = readonly [
  imageId: string | number,
  label: string | number,
  xMin: number,
  xMax: number,
  yMin: number,
  yMax: number,
];

/** A row of the notebook's table of predictions. */
export type BoxPredictionRow = readonly [
  imageId: string | number,
  label: string | number,
  confidence: number,
  xMin: number,
  xMax: number,
  yMin: number,
  yMax: number,
];

/** Boxes of one image in list order; `imageId` as in the notebook's tables. */
export interface LabelledBoxes {
  imageId: string;
  /** [n, 4] xmin, ymin, xmax, ymax; read as float32. */
  boxes: ArrayLike<number>;
  /** [n] class names or numbers; compared as strings. */
  labels: ArrayLike<number | string>;
}

export interface ScoredBoxes extends LabelledBoxes {
  /** [n] confidence; read as float32. */
  scores: ArrayLike<number>;
}

/** A column of ids or labels as pandas has it. */
export interface Column {
  /** What pandas has: numbers, or texts where one of the column is none; NaN where nothing is. */
  values: (string | number)[];
  /** `astype(str)` of it: 7 is "7", but "7.0" in a column with fractions or gaps; "nan" where nothing is. */
  texts: string[];
}

export interface BoxTable {
  imageIds: Column;
  labels: Column;
  /** [n, 4] xmin, ymin, xmax, ymax. */
  boxes: Float32Array;
  /** [n] confidence; all 0 for a table of truths. */
  scores: Float32Array;
}

/** What `astype(str)` makes of an empty cell: the label of rows that name an image without truths. */
export const NO_LABEL = 'nan';

const ANNOTATION_COLUMNS = ['ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax'];
const PREDICTION_COLUMNS = ['ImageID', 'LabelName', 'Conf', 'XMin', 'XMax', 'YMin', 'YMax'];

/**
 * @param source rows, boxes by image, or a CSV file with the columns ImageID, LabelName, XMin, XMax, YMin, YMax in any order
 * @throws UserError for a file that cannot be read, lacks a column, or has something else than a number where one is needed
 */
export function annotationTable(source: string | readonly BoxAnnotationRow[] | readonly LabelledBoxes[]): BoxTable {
  if (typeof source === 'string') return tableOfFile(source, ANNOTATION_COLUMNS);
  if (isRows(source)) {
    return tableOfRows(source.map(([id, label, x0, x1, y0, y1]) => [id, label, 0, x0, x1, y0, y1]));
  }
  return tableOfImages(source);
}

/**
 * @param source rows, boxes by image, or a CSV file with the columns ImageID, LabelName, Conf, XMin, XMax, YMin, YMax in any order
 * @throws UserError as `annotationTable`
 */
export function predictionTable(source: string | readonly BoxPredictionRow[] | readonly ScoredBoxes[]): BoxTable {
  if (typeof source === 'string') return tableOfFile(source, PREDICTION_COLUMNS);
  return isRows(source) ? tableOfRows(source) : tableOfImages(source);
}

function isRows<Row extends readonly unknown[]>(source: readonly Row[] | readonly object[]): source is readonly Row[] {
  return Array.isArray(source[0]);
}

function tableOfRows(rows: readonly BoxPredictionRow[]): BoxTable {
  const boxes = new Float32Array(4 * rows.length);
  rows.forEach(([, , , xMin, xMax, yMin, yMax], i) => {
    boxes.set([xMin, yMin, xMax, yMax], 4 * i);
  });
  return {
    imageIds: columnOf(rows.map(([id]) => id)),
    labels: columnOf(rows.map(([, label]) => label)),
    boxes,
    scores: Float32Array.from(rows, ([, , confidence]) => confidence),
  };
}

function tableOfImages(images: readonly (LabelledBoxes | ScoredBoxes)[]): BoxTable {
  const rows: BoxPredictionRow[] = [];
  for (const image of images) {
    const { imageId, boxes, labels } = image;
    for (let i = 0; i < labels.length; i++) {
      const score = 'scores' in image ? image.scores[i] : 0;
      rows.push([imageId, labels[i], score, boxes[4 * i], boxes[4 * i + 2], boxes[4 * i + 1], boxes[4 * i + 3]]);
    }
  }
  return tableOfRows(rows);
}

function tableOfFile(path: string, columns: readonly string[]): BoxTable {
  const rows = readCsv(path, columns);
  const cells = (name: string): string[] => rows.map(({ values }) => values[name]);
  const labels = inferredColumn(cells('LabelName'));
  // Rows that only name an image have no box.
  const numbers = (name: string): number[] =>
    cells(name).map((cell, i) => {
      const value = NUMBER.test(cell) ? Number(cell) : Number.NaN;
      if (Number.isNaN(value) && labels.texts[i] !== NO_LABEL) {
        throw new UserError(`${path}, line ${rows[i].line}: ${name} is "${cell}", expected a number`);
      }
      return value;
    });
  const boxes = new Float32Array(4 * rows.length);
  ['XMin', 'YMin', 'XMax', 'YMax'].forEach((name, k) => {
    numbers(name).forEach((value, i) => {
      boxes[4 * i + k] = value;
    });
  });
  return {
    imageIds: inferredColumn(cells('ImageID')),
    labels,
    boxes,
    scores: columns.includes('Conf') ? Float32Array.from(numbers('Conf')) : new Float32Array(rows.length),
  };
}

/** Cells that `pandas.read_csv` takes as missing. */
const MISSING = new Set(
  '|#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null'.split('|'),
);

const NUMBER = /^\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*$/i;

/** The type that `pandas.read_csv` gives to a column: numbers if all of its cells are, else texts. */
function inferredColumn(cells: readonly string[]): Column {
  const numeric = cells.every((cell) => MISSING.has(cell) || NUMBER.test(cell));
  return columnOf(
    cells.map((cell) => (MISSING.has(cell) ? Number.NaN : numeric ? Number(cell) : cell)),
    // "1.0" is a float to pandas, although its value is whole.
    numeric && cells.some((cell) => !/^\s*[+-]?\d+\s*$/.test(cell)),
  );
}

function columnOf(values: (string | number)[], float = false): Column {
  const numeric = values.every((value) => typeof value === 'number');
  const fractional = float || (numeric && !values.every(Number.isInteger));
  const text = (value: string | number): string => {
    if (typeof value === 'string') return value;
    if (Number.isNaN(value)) return NO_LABEL;
    return fractional && Number.isInteger(value) ? `${value}.0` : String(value);
  };
  return { values, texts: values.map(text) };
}
