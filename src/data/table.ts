import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../cli/errors.ts';
import { readCsv } from './csv.ts';

/** One line of `train.csv`: one cell, or an image without any where `annotation` is empty. */
export interface TableRow {
  id: string;
  /** Run-length text of the cell's mask, see `rle.ts`. */
  annotation: string;
  width: number;
  height: number;
  cellType: string;
  /** Line of the file, the header being line 1. */
  line: number;
}

/** Rows that the notebook's TEST mode reads. */
export const TEST_MODE_ROWS = 5000;

const REQUIRED = ['id', 'annotation', 'width', 'height', 'cell_type'] as const;

/** Fails with one sentence where `dir` is no folder. */
export function requireFolder(dir: string): void {
  if (!existsSync(dir)) throw new UserError(`no such folder: ${dir}`);
  if (!statSync(dir).isDirectory()) throw new UserError(`${dir} is not a folder`);
}

/**
 * Reads `dir/train.csv` in the competition's format. Columns may stand in any order, others than the required id,
 * annotation, width, height and cell_type are ignored.
 *
 * @param maxRows reads the first rows only (the notebook's test mode: {@link TEST_MODE_ROWS})
 * @returns the rows in the file's order, at least one
 * @throws UserError for a missing folder, file or column, a malformed line, or no row
 */
export function readAnnotationTable(dir: string, maxRows?: number): TableRow[] {
  requireFolder(dir);
  const path = join(dir, 'train.csv');
  if (!existsSync(path)) throw new UserError(`no train.csv in ${dir}: expected the competition's table there`);
  const records = readCsv(path, REQUIRED, { trim: true, to: maxRows });
  if (records.length === 0) throw new UserError(`${path} has no rows: expected one row per cell`);
  return records.map(({ values, line }) => {
    const where = `${path}, line ${line}`;
    if (values.id === '') throw new UserError(`${where}: the id is empty`);
    return {
      id: values.id,
      annotation: values.annotation,
      width: parseSide(values.width, 'width', where),
      height: parseSide(values.height, 'height', where),
      cellType: values.cell_type,
      line,
    };
  });
}

function parseSide(text: string, column: string, where: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) {
    throw new UserError(`${where}: ${column} is "${text}", expected a whole number of pixels`);
  }
  return Number(text);
}
