import Table from 'cli-table3';
import type { Row } from './rows.ts';
import type { VerifiedCase } from './runVerify.ts';

function figure(value: number): string {
  if (value === 0) return '0';
  return Number.isFinite(value) ? value.toPrecision(2) : '–';
}

/** One line for all passing rows of a stage: how many, and the one nearest to its tolerance. */
function summary(stage: string, rows: readonly Row[], noun: string): string[] {
  const used = ({ error, tolerance }: Row): number => (error === 0 ? 0 : error / tolerance);
  const nearest = rows.reduce((worst, row) => (used(row) > used(worst) ? row : worst));
  const count = rows.length === 1 ? `1 ${noun}` : `${rows.length} ${noun}s`;
  return [stage, `${count}, worst ${nearest.name}`, figure(nearest.error), figure(nearest.tolerance), 'ok'];
}

/**
 * The table of one case: a line for every row that does not hold, with where it is off; passing rows one by one if `all`, else
 * one line per stage.
 */
export function renderCase({ name, kind, rows }: VerifiedCase, all = false): string {
  const noun = kind === 'data' ? 'value' : 'tensor';
  const table = new Table({
    head: [name, noun, 'error', 'tolerance', ''],
    style: { head: [], border: [], compact: true },
    colAligns: ['left', 'left', 'right', 'right', 'left'],
  });
  for (const stage of new Set(rows.map((row) => row.stage))) {
    const own = rows.filter((row) => row.stage === stage);
    const passing = own.filter(({ ok }) => ok);
    if (!all && passing.length > 0) table.push(summary(stage, passing, noun));
    for (const row of all ? own : own.filter(({ ok }) => !ok)) {
      const verdict = row.ok ? 'ok' : `OFF${row.note ? `: ${row.note}` : ''}`;
      table.push([stage, row.name, figure(row.error), figure(row.tolerance), verdict]);
    }
  }
  return table.toString();
}

/** What rows compare: tensors, or where data cases are among them, values. */
export function nounOf(cases: readonly VerifiedCase[], count: number): string {
  const noun = cases.some(({ kind }) => kind === 'data') ? 'value' : 'tensor';
  return count === 1 ? noun : `${noun}s`;
}

/** Which values are off, in one sentence; undefined when all hold. */
export function failureSentence(cases: readonly VerifiedCase[]): string | undefined {
  const off = cases.flatMap(({ name, rows }) => rows.filter(({ ok }) => !ok).map((row) => `${name} ${row.name}`));
  if (off.length === 0) return undefined;
  const total = cases.reduce((sum, { rows }) => sum + rows.length, 0);
  const shown = off.slice(0, 5).join(', ');
  const noun = nounOf(cases, total);
  const more = off.length > 5 ? ` and ${off.length - 5} more` : '';
  return `${off.length} of ${total} ${noun} ${off.length === 1 ? 'is' : 'are'} off: ${shown}${more}.`;
}
