import { existsSync, readFileSync } from 'node:fs';
import { CsvError, parse } from 'csv-parse/sync';
import { UserError } from '../cli/errors.ts';

/** One row of a CSV file under the names of its header. */
export interface CsvRow {
  values: Record<string, string>;
  /** Line of the file, the header being line 1. */
  line: number;
}

/**
 * Reads a CSV file with a header. Columns may stand in any order; empty lines are skipped.
 *
 * @param required columns that must be there
 * @param options `trim`: cells without the spaces around them, else as they are; `to`: this many rows at most
 * @throws UserError for a missing file or column, or a malformed line
 */
export function readCsv(
  path: string,
  required: readonly string[],
  options: { trim?: boolean; to?: number } = {},
): CsvRow[] {
  if (!existsSync(path)) throw new UserError(`no such file: ${path}`);
  const checkHeader = (header: string[]): string[] => {
    const missing = required.filter((name) => !header.includes(name));
    if (missing.length === 0) return header;
    const columns = missing.map((name) => `"${name}"`).join(', ');
    throw new UserError(
      `${path} lacks the column${missing.length > 1 ? 's' : ''} ${columns} (it has ${header.join(', ') || 'no column'})`,
    );
  };
  try {
    const records = parse(readFileSync(path), {
      ...options,
      bom: true,
      columns: checkHeader,
      info: true,
      skip_empty_lines: true,
    });
    return (records as unknown as { record: Record<string, string>; info: { lines: number } }[]).map(
      ({ record, info }) => ({ values: record, line: info.lines }),
    );
  } catch (error) {
    if (error instanceof CsvError) throw new UserError(`${path} is not a valid CSV table: ${error.message}`);
    throw error;
  }
}
