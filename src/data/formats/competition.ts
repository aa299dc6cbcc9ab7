import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../../cli/errors.ts';
import type { Dataset, DatasetOptions, ImageRecord } from '../dataset.ts';
import { imageStem, inspectImage, isImageFile } from '../images.ts';
import { rleRuns } from '../rle.ts';
import { readAnnotationTable, type TableRow } from '../table.ts';
import { chooseClasses, labelsOf } from './classes.ts';
import { sortById } from './imageIds.ts';

/**
 * Opens a folder in the competition's format: `train.csv` and `train/<id>.png` (or .tif, .tiff). A row with an empty annotation
 * stands for an image without cells; its cell type is ignored.
 *
 * @throws UserError that names the file, line, column or image
 */
export function openCompetition(dir: string, options: DatasetOptions): Dataset {
  const rows = readAnnotationTable(dir, options.maxRows);
  const table = join(dir, 'train.csv');
  const cells = rows.filter((row) => row.annotation !== '');
  if (cells.length === 0) throw new UserError(`${table} has no cells: every annotation is empty`);
  if (options.classes === undefined) {
    const untyped = cells.find((row) => row.cellType === '');
    if (untyped !== undefined) throw new UserError(`${table}, line ${untyped.line}: the cell_type is empty`);
  }
  const classes = chooseClasses(
    cells.map((row) => row.cellType),
    options,
  );
  const labels = labelsOf(classes);
  const folder = join(dir, 'train');
  if (!existsSync(folder)) throw new UserError(`no such folder: ${folder}, expected the images of train.csv there`);
  const files = imageFiles(folder);

  const images = new Map<string, ImageRecord>();
  for (const [i, row] of rows.entries()) {
    const where = `${table}, line ${row.line}`;
    let image = images.get(row.id);
    if (image === undefined) {
      image = openImage(row, folder, files, where);
      images.set(row.id, image);
    } else if (row.width !== image.width || row.height !== image.height) {
      throw new UserError(
        `${where}: image "${row.id}" is ${row.width} × ${row.height} here, but ${image.width} × ${image.height} before`,
      );
    }
    options.onProgress?.('Checking rows and images', i + 1, rows.length);
    if (row.annotation === '') continue;
    const label = labels.get(row.cellType);
    if (label === undefined) {
      throw new UserError(`${where}: unknown cell type "${row.cellType}", expected one of ${classes.join(', ')}`);
    }
    rleRuns(row.annotation, image.width, image.height, where);
    image.annotations.push({ rle: row.annotation, label, line: row.line });
  }
  return { dir, classes, images: sortById([...images.values()]) };
}

/** The image files of a folder by id; several where an id has more than one. */
function imageFiles(folder: string): Map<string, string[]> {
  const files = new Map<string, string[]>();
  for (const name of readdirSync(folder).filter(isImageFile)) {
    const id = imageStem(name);
    files.set(id, [...(files.get(id) ?? []), name]);
  }
  return files;
}

function openImage(
  row: TableRow,
  folder: string,
  files: ReadonlyMap<string, readonly string[]>,
  where: string,
): ImageRecord {
  const [name, other] = files.get(row.id) ?? [];
  if (name === undefined) {
    throw new UserError(`${where}: unknown image "${row.id}", there is no ${join(folder, `${row.id}.png`)}`);
  }
  if (other !== undefined) {
    throw new UserError(`${where}: image "${row.id}" is there twice, as ${name} and as ${other} in ${folder}`);
  }
  const path = join(folder, name);
  const size = inspectImage(path);
  if (size.width !== row.width || size.height !== row.height) {
    throw new UserError(
      `${where}: width and height are ${row.width} × ${row.height}, but ${path} is ${size.width} × ${size.height}`,
    );
  }
  return { id: row.id, path, width: row.width, height: row.height, annotations: [] };
}
