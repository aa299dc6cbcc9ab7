import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { UserError } from '../cli/errors.ts';
import { inspectPng, readPng } from './png.ts';
import { maskResizer } from './resize.ts';
import { rleRuns } from './rle.ts';
import { type ScaledImage, scaleImage } from './scaledImage.ts';
import { readAnnotationTable, requireFolder, type TableRow } from './table.ts';
import { makeTarget } from './target.ts';
import type { Sample } from './types.ts';

export { resizedSide, type ScaledImage } from './scaledImage.ts';

/** The competition's cell types in the order of the notebook's `cell_type_dict` (astro 1, cort 2, shsy5y 3). */
export const COMPETITION_CLASSES: readonly string[] = ['astro', 'cort', 'shsy5y'];

/** One cell as the table has it. */
export interface Annotation {
  /** Run-length text at the file's size, checked when the data set was opened. */
  rle: string;
  /** 1 … classes.length. */
  label: number;
  /** Line of `train.csv`, for messages. */
  line: number;
}

/** One image and its cells; plain data, fit to be sent to a worker. */
export interface ImageRecord {
  id: string;
  /** The PNG file. */
  path: string;
  /** Size of the file in pixels. */
  width: number;
  height: number;
  /** In the table's order; empty for an image without cells. */
  annotations: Annotation[];
}

export interface Dataset {
  dir: string;
  /** Class names; the label of `classes[i]` is i + 1 (0 is background). */
  classes: string[];
  /** Sorted by id, as pandas' `groupby` sorts them in the notebook. */
  images: ImageRecord[];
}

export interface DatasetOptions {
  /** Use the competition's map of classes where all types of the file belong to it (a file without one of them keeps the labels). */
  competitionClasses?: boolean;
  /** The classes of a checkpoint: labels follow this list, and a cell type outside it is an error. */
  classes?: readonly string[];
  /** Read the first rows of the table only (the notebook's test mode: 5000). */
  maxRows?: number;
}

/**
 * Opens a folder in the competition's format: `train.csv` and `train/<id>.png`. Everything that can be wrong with the input is
 * found here, before a run writes anything: each run-length text is checked against its image, each PNG for its size, its
 * check sums and its end.
 *
 * A row with an empty annotation stands for an image without cells; its cell type is ignored.
 *
 * @throws UserError that names the file, line, column or image
 */
export function openDataset(dir: string, options: DatasetOptions = {}): Dataset {
  const rows = readAnnotationTable(dir, options.maxRows);
  const table = join(dir, 'train.csv');
  const cells = rows.filter((row) => row.annotation !== '');
  if (cells.length === 0) throw new UserError(`${table} has no cells: every annotation is empty`);
  const classes = chooseClasses(cells, table, options);
  const labels = new Map(classes.map((name, i) => [name, i + 1]));
  const folder = join(dir, 'train');
  if (!existsSync(folder)) throw new UserError(`no such folder: ${folder}, expected the images of train.csv there`);
  const files = new Set(readdirSync(folder));

  const images = new Map<string, ImageRecord>();
  for (const row of rows) {
    const where = `${table}, line ${row.line}`;
    let image = images.get(row.id);
    if (image === undefined) {
      if (!files.has(`${row.id}.png`)) {
        throw new UserError(`${where}: unknown image "${row.id}", there is no ${join(folder, `${row.id}.png`)}`);
      }
      image = openImage(row, folder, where);
      images.set(row.id, image);
    } else if (row.width !== image.width || row.height !== image.height) {
      throw new UserError(
        `${where}: image "${row.id}" is ${row.width} × ${row.height} here, but ${image.width} × ${image.height} before`,
      );
    }
    if (row.annotation === '') continue;
    const label = labels.get(row.cellType);
    if (label === undefined) {
      throw new UserError(`${where}: unknown cell type "${row.cellType}", expected one of ${classes.join(', ')}`);
    }
    rleRuns(row.annotation, image.width, image.height, where);
    image.annotations.push({ rle: row.annotation, label, line: row.line });
  }
  const sorted = [...images.values()].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
  return { dir, classes, images: sorted };
}

function openImage(row: TableRow, folder: string, where: string): ImageRecord {
  const path = join(folder, `${row.id}.png`);
  const size = inspectPng(path);
  if (size.width !== row.width || size.height !== row.height) {
    throw new UserError(
      `${where}: width and height are ${row.width} × ${row.height}, but ${path} is ${size.width} × ${size.height}`,
    );
  }
  return { id: row.id, path, width: row.width, height: row.height, annotations: [] };
}

function chooseClasses(cells: readonly TableRow[], table: string, options: DatasetOptions): string[] {
  if (options.classes !== undefined) return [...options.classes];
  const untyped = cells.find((row) => row.cellType === '');
  if (untyped !== undefined) throw new UserError(`${table}, line ${untyped.line}: the cell_type is empty`);
  const types = [...new Set(cells.map((row) => row.cellType))].sort();
  if (options.competitionClasses === true && types.every((type) => COMPETITION_CLASSES.includes(type))) {
    return [...COMPETITION_CLASSES];
  }
  return types;
}

/**
 * Reads a PNG and resizes it as the notebook (`cv2.imread`, `cv2.resize`), then scales it to 0…1 (`to_tensor`).
 *
 * @param resize factor on both sides; undefined for the file's size
 * @param id the image's name, by default the file's without its ending
 * @throws UserError for a file that cannot be read, or a factor that leaves no pixel
 */
export function loadImage(path: string, resize?: number, id = basename(path).replace(/\.png$/i, '')): ScaledImage {
  return scaleImage(readPng(path), { resize, id, where: path });
}

/** The PNG files of a folder in the order of their names. @throws UserError where there is no folder or no PNG in it */
export function listPngs(dir: string): string[] {
  requireFolder(dir);
  const names = readdirSync(dir).filter((name) => /\.png$/i.test(name) && !name.startsWith('.'));
  if (names.length === 0) throw new UserError(`no PNG files in ${dir}`);
  return names.sort().map((name) => join(dir, name));
}

/** A sample, and how many of its cells could not be kept. */
export interface LoadedSample extends Sample {
  /** Cells of the table that have no extent left at this size. */
  dropped: number;
}

/**
 * Loads an image with its cells (the notebook's `CellDataset.__getitem__`): masks are resized bilinearly as floats and
 * compared with 0, boxes are the inclusive corners of the resized masks (`get_box`).
 *
 * A cell that vanishes, or whose box has no width or height (one column or row: torchvision refuses such a box), is dropped
 * and counted.
 *
 * @param resize factor on both sides; undefined for the file's size
 * @param imageId position of the image in its data set
 * @throws UserError for a PNG that cannot be read or has another size than the table says, or a run-length text that does
 *   not fit
 */
export function loadSample(
  record: ImageRecord,
  { resize, imageId = 0 }: { resize?: number; imageId?: number } = {},
): LoadedSample {
  const image = loadImage(record.path, resize, record.id);
  const { fileWidth, fileHeight, width, height } = image;
  if (fileWidth !== record.width || fileHeight !== record.height) {
    throw new UserError(
      `${record.path} is ${fileWidth} × ${fileHeight}, but the table says ${record.width} × ${record.height}`,
    );
  }
  const count = record.annotations.length;
  const pixels = width * height;
  const masks = new Uint8Array(count * pixels);
  const boxes = new Float32Array(count * 4);
  const labels = new Int32Array(count);
  const resizer = maskResizer(fileWidth, fileHeight, width, height);
  const scratch = new Uint8Array(fileWidth * fileHeight);
  let kept = 0;
  for (const annotation of record.annotations) {
    const where = `line ${annotation.line} of the table (image ${record.id})`;
    const runs = rleRuns(annotation.rle, fileWidth, fileHeight, where);
    const mask = masks.subarray(kept * pixels, (kept + 1) * pixels);
    drawResized(runs, fileWidth, scratch, resizer.resize, mask);
    const box = maskBox(mask, width, height);
    if (box === undefined || box[0] === box[2] || box[1] === box[3]) {
      mask.fill(0);
      continue;
    }
    boxes.set(box, kept * 4);
    labels[kept++] = annotation.label;
  }
  const target =
    kept === count
      ? makeTarget(boxes, labels, masks, { imageId })
      : makeTarget(boxes.slice(0, kept * 4), labels.slice(0, kept), masks.slice(0, kept * pixels), { imageId });
  const { id, data } = image;
  return { image: { id, width, height, data }, target, dropped: count - kept };
}

/** Decodes `runs` into the empty `scratch`, resizes the rows they touch into `out`, and empties `scratch` again. */
function drawResized(
  runs: Int32Array,
  width: number,
  scratch: Uint8Array,
  resize: ReturnType<typeof maskResizer>['resize'],
  out: Uint8Array,
): void {
  let first = scratch.length;
  let end = 0;
  for (let i = 0; i < runs.length; i += 2) {
    scratch.fill(1, runs[i], runs[i] + runs[i + 1]);
    first = Math.min(first, runs[i]);
    end = Math.max(end, runs[i] + runs[i + 1]);
  }
  resize(scratch, Math.floor(first / width), Math.ceil(end / width), out);
  scratch.fill(0, first, end);
}

/**
 * The bounding box of a mask, corners inclusive (the notebook's `get_box`): xmin, ymin, xmax, ymax.
 *
 * @param mask [height, width], covered where not 0
 * @returns undefined for an empty mask
 */
export function maskBox(mask: Uint8Array, width: number, height: number): [number, number, number, number] | undefined {
  let xmin = width;
  let xmax = -1;
  let ymin = -1;
  let ymax = -1;
  for (let y = 0; y < height; y++) {
    const row = mask.subarray(y * width, (y + 1) * width);
    let x = 0;
    while (x < width && row[x] === 0) x++;
    if (x === width) continue;
    if (ymin < 0) ymin = y;
    ymax = y;
    if (x < xmin) xmin = x;
    let last = width - 1;
    while (row[last] === 0) last--;
    if (last > xmax) xmax = last;
  }
  return ymax < 0 ? undefined : [xmin, ymin, xmax, ymax];
}
