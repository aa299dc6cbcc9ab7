import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CsvError, parse } from 'csv-parse/sync';
import { UserError } from '../../cli/errors.ts';
import type { Annotation, Dataset, DatasetOptions, ImageRecord } from '../dataset.ts';
import { inspectImage, readImageValues } from '../images.ts';
import { runsToText } from '../runs.ts';
import { chooseClasses, labelsOf } from './classes.ts';
import { imageIds, sortById } from './imageIds.ts';

/** The class of cells whose data set names none. */
export const ONLY_CLASS = 'cell';
/** Optional table of a folder of label images: the cell type of each label. Ours; no other program writes one. */
export const CELL_TYPES_FILE = 'cell_types.csv';

/** An image and the files that show its cells. */
export interface LabelledImage {
  /** Path of the image file relative to the data set, by `/`; its id comes from it. */
  name: string;
  /** Path of the image file. */
  path: string;
  /** One label image (0 is background, n the n-th cell), or any number of masks of one cell each (not 0 is the cell). */
  masks: { labels: string } | { cells: string[] };
  /** Cell type of all its cells, where the folder tells. */
  type?: string;
}

/**
 * Opens label images as `findLabelImages` found them. Cells come in the order of their labels, or of their files' names. Cell types are
 * told by `cell_types.csv` in the folder (columns id, label, cell_type), or by the images' folders, or else there is one class, "cell";
 * cells without a type of their own fit any checkpoint of one class.
 *
 * @throws UserError that names the file
 */
export function openLabelImages(dir: string, found: readonly LabelledImage[], options: DatasetOptions): Dataset {
  const { maxRows = Number.POSITIVE_INFINITY, onProgress } = options;
  const ids = imageIds(
    found.map(({ name }) => name),
    dir,
  );
  const types = readCellTypes(dir, ids);
  const images: ImageRecord[] = [];
  // Labels follow when all types are known; until then each image's types stand beside it.
  const typesOf = new Map<ImageRecord, (string | undefined)[]>();
  let cells = 0;
  const order = ids.map((_, i) => i).sort((a, b) => (ids[a] < ids[b] ? -1 : 1));
  for (const [done, i] of order.entries()) {
    if (cells >= maxRows) break;
    const image = openImage(ids[i], found[i]);
    image.annotations.splice(maxRows - cells);
    cells += image.annotations.length;
    images.push(image);
    typesOf.set(
      image,
      image.annotations.map(({ line }) =>
        types === undefined ? found[i].type : typeFromTable(types, dir, ids[i], line),
      ),
    );
    onProgress?.('Reading label images', done + 1, order.length);
  }
  if (cells === 0) throw new UserError(`${dir} has no cells: every label image is empty`);
  const shown = [...typesOf.values()].flat();
  const untyped = shown.includes(undefined);
  const only = untyped && options.classes?.length === 1 ? options.classes[0] : ONLY_CLASS;
  const classes = chooseClasses(new Set(shown.map((type) => type ?? only)), options);
  const labels = labelsOf(classes);
  for (const [image, own] of typesOf) {
    for (const [i, annotation] of image.annotations.entries()) {
      const type = own[i] ?? only;
      const label = labels.get(type);
      if (label === undefined) {
        const where = `${image.source?.file}, ${image.source?.item} ${annotation.line}`;
        const hint = own[i] === undefined ? ` (name types in ${join(dir, CELL_TYPES_FILE)}, or by a folder each)` : '';
        throw new UserError(`${where}: unknown cell type "${type}", expected one of ${classes.join(', ')}${hint}`);
      }
      annotation.label = label;
    }
  }
  return { dir, classes, images: sortById(images) };
}

function openImage(id: string, { path, masks }: LabelledImage): ImageRecord {
  const { width, height } = inspectImage(path);
  const check = (file: string, size: { width: number; height: number }): void => {
    if (size.width === width && size.height === height) return;
    throw new UserError(`${file} is ${size.width} × ${size.height}, but its image ${path} is ${width} × ${height}`);
  };
  const image = { id, path, width, height };
  const cell = (runs: readonly number[], line: number): Annotation => ({ rle: runsToText(runs), label: 0, line });
  if ('labels' in masks) {
    const labels = readImageValues(masks.labels);
    check(masks.labels, labels);
    const annotations = [...labelRuns(labels.values, masks.labels)].map(([label, runs]) => cell(runs, label));
    return { ...image, annotations, source: { file: masks.labels, item: 'label' } };
  }
  const annotations = masks.cells.map((file, i) => {
    const mask = readImageValues(file);
    check(file, mask);
    return cell(coveredRuns(mask.values), i + 1);
  });
  return { ...image, annotations, source: { file: `the masks of ${path}`, item: 'mask' } };
}

/** Runs along rows of each label, lowest label first. @throws UserError for a value that is no label */
function labelRuns(values: ArrayLike<number>, file: string): Map<number, number[]> {
  const byLabel = new Map<number, number[]>();
  for (let at = 0; at < values.length; ) {
    const label = values[at];
    const start = at;
    while (at < values.length && values[at] === label) at++;
    if (label === 0) continue;
    if (!(Number.isInteger(label) && label > 0)) {
      throw new UserError(`${file} holds ${label}, expected labels: 0 for background, whole numbers from 1 for cells`);
    }
    const runs = byLabel.get(label);
    if (runs === undefined) byLabel.set(label, [start, at - start]);
    else runs.push(start, at - start);
  }
  return new Map([...byLabel].sort(([a], [b]) => a - b));
}

/** Runs along rows of all that is not 0. */
function coveredRuns(values: ArrayLike<number>): number[] {
  const runs: number[] = [];
  for (let at = 0; at < values.length; at++) {
    if (values[at] === 0) continue;
    const start = at;
    while (at < values.length && values[at] !== 0) at++;
    runs.push(start, at - start);
  }
  return runs;
}

/** Cell types by `id/label`. */
type CellTypes = ReadonlyMap<string, string>;

function readCellTypes(dir: string, ids: readonly string[]): CellTypes | undefined {
  const path = join(dir, CELL_TYPES_FILE);
  if (!existsSync(path)) return undefined;
  let rows: { record: Record<string, string>; info: { lines: number } }[];
  try {
    rows = parse(readFileSync(path), { bom: true, columns: true, info: true, skip_empty_lines: true, trim: true });
  } catch (error) {
    if (error instanceof CsvError) throw new UserError(`${path} is not a valid CSV table: ${error.message}`);
    throw error;
  }
  const known = new Set(ids);
  const types = new Map<string, string>();
  for (const { record, info } of rows) {
    const where = `${path}, line ${info.lines}`;
    const { id, label, cell_type: type } = record;
    if (!id || !/^\d+$/.test(label ?? '') || !type) {
      throw new UserError(`${where}: expected the columns id, label (a whole number) and cell_type, all filled in`);
    }
    if (!known.has(id)) throw new UserError(`${where}: unknown image "${id}"`);
    const key = `${id}/${Number(label)}`;
    if (types.has(key)) throw new UserError(`${where}: label ${label} of image "${id}" is there twice`);
    types.set(key, type);
  }
  return types;
}

function typeFromTable(types: CellTypes, dir: string, id: string, label: number): string {
  const type = types.get(`${id}/${label}`);
  if (type === undefined) {
    throw new UserError(`${join(dir, CELL_TYPES_FILE)} has no row for label ${label} of image "${id}"`);
  }
  return type;
}
