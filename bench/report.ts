import Table from 'cli-table3';
import type { Environment } from '../src/gpu/environment.ts';
import type { Size } from './cases.ts';
import type { CaseRecord, Measured, Peaks } from './measure.ts';

/** All of a run, as `--json` writes it. */
export interface BenchReport extends Environment {
  size: Size;
  peaks: Peaks;
  cases: CaseRecord[];
}

/** Three digits that count. */
function digits(value: number | null): string {
  if (value === null) return '';
  return value >= 1000 ? Math.round(value).toLocaleString('en') : value.toPrecision(3).replace(/e\+?/, 'e');
}

function rowOf({
  group,
  variant,
  check,
  ms,
  gflops,
  gigabytesPerSecond,
  speedup,
  percentOfPeak,
}: CaseRecord): string[] {
  if (!check.right) return [group, variant, `WRONG by ${check.error.toExponential(1)}`, '', '', '', ''];
  const share = percentOfPeak === null ? '' : `${percentOfPeak.toFixed(percentOfPeak < 10 ? 1 : 0)} %`;
  const factor = speedup === null ? '' : `${speedup.toFixed(speedup < 10 ? 2 : 0)}×`;
  return [group, variant, digits(ms), digits(gflops), digits(gigabytesPerSecond), factor, share];
}

const HEAD = ['case', 'variant', 'ms', 'GFLOP/s', 'GB/s', 'speed-up', 'of peak'];

function byTable(records: readonly CaseRecord[]): Map<string, CaseRecord[]> {
  const tables = new Map<string, CaseRecord[]>();
  for (const record of records) {
    const rows = tables.get(record.table) ?? [];
    rows.push(record);
    tables.set(record.table, rows);
  }
  return tables;
}

/** Share of the multiply-add peak over layers, weighted by their operations in one pass of the model; null without layers. */
export function layersShareOfPeak(records: readonly CaseRecord[]): number | null {
  let weights = 0;
  let sum = 0;
  for (const { uses, flops, percentOfPeak } of records) {
    if (uses === undefined || flops === undefined || percentOfPeak === null) continue;
    weights += uses * flops;
    sum += uses * flops * percentOfPeak;
  }
  return weights > 0 ? sum / weights : null;
}

function summary({ records, peaks }: Pick<Measured, 'records' | 'peaks'>): string[] {
  const lines: string[] = [];
  const found = [
    peaks.gflops === null ? '' : `${digits(peaks.gflops)} GFLOP/s of multiply-adds (8 chains of vec4)`,
    peaks.gigabytesPerSecond === null ? '' : `${digits(peaks.gigabytesPerSecond)} GB/s in a copy`,
  ].filter(Boolean);
  if (found.length > 0) lines.push(`Peak of this adapter, measured in turn with the cases: ${found.join(', ')}.`);
  const share = layersShareOfPeak(records);
  if (share !== null) {
    lines.push(
      `Convolution layers reach ${share.toFixed(1)} % of the peak, averaged by their operations in the model.`,
    );
  }
  return lines;
}

/** Tables for the terminal. */
export function renderTables(measured: Pick<Measured, 'records' | 'peaks'>): string {
  const parts: string[] = [];
  for (const [title, records] of byTable(measured.records)) {
    const table = new Table({
      head: HEAD,
      colAligns: ['left', 'left', 'right', 'right', 'right', 'right', 'right'],
      style: { head: [], border: [] },
    });
    table.push(...records.map(rowOf));
    parts.push(`${title}\n${table.toString()}`);
  }
  return [...parts, ...summary(measured)].join('\n');
}

/** The same as a Markdown document, headed by what it was measured on. */
export function renderMarkdown(report: BenchReport): string {
  const { machine, adapter, versions, size, cases, peaks } = report;
  const lines = [
    `# Benchmarks on ${adapter.name}`,
    '',
    `- Machine: ${machine.processor}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.system}`,
    `- Adapter: ${adapter.name} (${adapter.kind}; ${adapter.driver})`,
    `- Versions: ${Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(', ')}`,
    `- Size: ${size}. Times are medians of interleaved rounds, from enqueueing to an empty queue; the speed-up is against the`,
    '  first variant of the same case, the peak that of the same rounds.',
    ...summary({ records: cases, peaks }).map((line) => `- ${line}`),
  ];
  for (const [title, records] of byTable(cases)) {
    lines.push('', `## ${title}`, '', `| ${HEAD.join(' | ')} |`, '|---|---|--:|--:|--:|--:|--:|');
    for (const record of records) lines.push(`| ${rowOf(record).join(' | ')} |`);
  }
  return `${lines.join('\n')}\n`;
}
