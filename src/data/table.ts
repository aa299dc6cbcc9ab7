import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { CsvError, parse } from 'csv-parse/sync';
import { UserError } from '../cli/errors.ts';

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
  let records: { record: Record<string, string>; info: { lines: number } }[];
  try {
    records = parse(readFileSync(path), {
      bom: true,
      columns: (header: string[]) => checkHeader(header, path),
      info: true,
      skip_empty_lines: true,
      trim: true,
      to: maxRows,
    }) as unknown as typeof records;
  } catch (error) {
    if (error instanceof CsvError) throw new UserError(`${path} is not a valid CSV table: ${error.message}`);
    throw error;
  }
  if (records.length === 0) throw new UserError(`${path} has no rows: expected one row per cell`);
  return records.map(({ record, info }) => {
    const where = `${path}, line ${info.lines}`;
    if (record.id === '') throw new UserError(`${where}: the id is empty`);
    return {
      id: record.id,
      annotation: record.annotation,
      width: parseSide(record.width, 'width', where),
      height: parseSide(record.height, 'height', where),
      cellType: record.cell_type,
      line: info.lines,
    };
  });
}

function checkHeader(header: string[], path: string): string[] {
  const missing = REQUIRED.filter((name) => !header.includes(name));
  if (missing.length > 0) {
    const columns = missing.map((name) => `"${name}"`).join(', ');
    throw new UserError(
      `${path} lacks the column${missing.length > 1 ? 's' : ''} ${columns} (it has ${header.join(', ') || 'no column'})`,
    );
  }
  return header;
}

function parseSide(text: string, column: string, where: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) {
    throw new UserError(`${where}: ${column} is "${text}", expected a whole number of pixels`);
  }
  return Number(text);
}
