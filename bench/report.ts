import Table from 'cli-table3';
import type { Environment } from '../src/gpu/environment.ts';
import { type Acceptance, acceptance, verdictOf } from './acceptance.ts';
import type { Size } from './cases.ts';
import type { CaseRecord, Measured, Peaks } from './measure.ts';

/** Another engine of the run. */
export interface PeerReport {
  name: string;
  computesOn: 'webgpu' | 'cpu';
  /** In its own words; empty where it has none. */
  adapter: string;
  versions: Record<string, string>;
  /** Why it was not measured. */
  leftOut?: string;
}

/** All of a run, as `--json` writes it. */
export interface BenchReport extends Environment {
  size: Size;
  /** ISO 8601, UTC. */
  date: string;
  peaks: Peaks;
  /** Empty without `--peers`. */
  peers: PeerReport[];
  cases: CaseRecord[];
  acceptance: Acceptance[];
}

/** Three digits that count. */
function digits(value: number | null): string {
  if (value === null) return '';
  return value >= 1000 ? Math.round(value).toLocaleString('en') : value.toPrecision(3).replace(/e\+?/, 'e');
}

function factorOf(value: number): string {
  return `${value.toFixed(value < 10 ? 2 : 0)}×`;
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
  const factor = speedup === null ? '' : factorOf(speedup);
  return [group, variant, digits(ms), digits(gflops), digits(gigabytesPerSecond), factor, share];
}

/** A table of the report: its first `texts` columns are words, the others numbers. */
interface Grid {
  title: string;
  head: string[];
  texts: number;
  rows: string[][];
  notes?: string[];
}

const HEAD = ['case', 'variant', 'ms', 'GFLOP/s', 'GB/s', 'speed-up', 'of peak'];

function caseGrids(records: readonly CaseRecord[]): Grid[] {
  const tables = new Map<string, Grid>();
  for (const record of records) {
    const grid = tables.get(record.table) ?? { title: record.table, head: HEAD, texts: 2, rows: [] };
    grid.rows.push(rowOf(record));
    tables.set(record.table, grid);
  }
  return [...tables.values()];
}

/** Every case beside the other engines that were asked, in milliseconds and times ours. */
function peerGrids(records: readonly CaseRecord[]): Grid[] {
  const compared = records.filter(({ outcomes = [] }) => outcomes.length > 0);
  if (compared.length === 0) return [];
  const engines = [...new Set(compared.flatMap(({ outcomes = [] }) => outcomes.map(({ engine }) => engine)))];
  const notes = new Set<string>();
  const rows = compared.map(({ group, ms, peers = {}, ratios = {}, ratio, outcomes = [] }) => {
    const cells = engines.map((engine) => {
      const outcome = outcomes.find((one) => one.engine === engine);
      if (!outcome) return '–';
      if (outcome.near) notes.add(`* ${engine} has something near instead: ${outcome.near}.`);
      if (outcome.failure) {
        notes.add(`${engine}, ${group}: ${outcome.failure}.`);
        return outcome.check ? 'wrong' : 'failed';
      }
      if (!(engine in peers)) return '–';
      return `${digits(peers[engine])} (${factorOf(ratios[engine])})${outcome.near ? '*' : ''}`;
    });
    return [group, digits(ms), ...cells, ratio === null || ratio === undefined ? '' : factorOf(ratio)];
  });
  const head = ['work', 'ours', ...engines, 'ratio'];
  return [{ title: 'The same work in other engines', head, texts: 1, rows, notes: [...notes] }];
}

function acceptanceGrids(found: readonly Acceptance[]): Grid[] {
  if (found.length === 0) return [];
  const rows = found.map((one) => [one.what, one.wanted, one.measured, verdictOf(one)]);
  return [{ title: 'What is to be reached', head: ['what', 'wanted', 'measured', ''], texts: 4, rows }];
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

const ON_SWIFTSHADER =
  'On SwiftShader other engines take no part in the layers and whole steps, where they would take an hour.';

function peerLines(peers: readonly PeerReport[], kind?: string): string[] {
  const lines = peers.map(({ name, computesOn, adapter, versions, leftOut }) => {
    if (leftOut !== undefined) return `${name} was left out: ${leftOut}.`;
    const where = computesOn === 'cpu' ? adapter : `on ${adapter || 'an adapter that it does not name'}`;
    return `${name} (${versionList(versions)}) ${where}`;
  });
  return kind === 'swiftshader' && peers.length > 0 ? [...lines, ON_SWIFTSHADER] : lines;
}

function versionList(versions: Record<string, string>): string {
  return Object.entries(versions)
    .map(([name, version]) => `${name} ${version}`)
    .join(', ');
}

/** Tables for the terminal. */
export function renderTables(
  measured: Pick<Measured, 'records' | 'peaks'>,
  peers: readonly PeerReport[] = [],
  kind?: string,
): string {
  const parts: string[] = [];
  const { records } = measured;
  for (const { title, head, texts, rows, notes = [] } of [
    ...caseGrids(records),
    ...peerGrids(records),
    ...acceptanceGrids(acceptance(records)),
  ]) {
    const table = new Table({
      head,
      colAligns: head.map((_, column) => (column < texts ? 'left' : 'right')),
      style: { head: [], border: [] },
    });
    table.push(...rows);
    parts.push(`${title}\n${[table.toString(), ...notes].join('\n')}`);
  }
  return [...parts, ...summary(measured), ...peerLines(peers, kind)].join('\n');
}

/**
 * The same as a section of a Markdown document, headed by what it was measured on. Its heading begins with the adapter's kind,
 * see `resultsFile.ts`.
 */
export function renderMarkdown(report: BenchReport): string {
  const { machine, adapter, versions, size, date, cases, peaks, peers } = report;
  const lines = [
    `## ${adapter.kind}: ${adapter.name}`,
    '',
    `- Machine: ${machine.processor}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.system}; ${date.slice(0, 10)}`,
    `- Adapter: ${adapter.name} (${adapter.kind}; ${adapter.driver})`,
    `- Versions: ${versionList(versions)}`,
    `- Size: ${size}. Times are medians of interleaved rounds, from enqueueing to an empty queue; the speed-up is against the`,
    '  first variant of the same case, the peak that of the same rounds.',
    '- Layers and what is beside other engines: a forward pass alone is timed as in inference, on a new image with weights that were packed and',
    '  transformed before; one with gradients as in training, where weights are new too. Ladders make everything anew at each run.',
    ...summary({ records: cases, peaks }).map((line) => `- ${line}`),
  ];
  if (peers.length > 0) {
    lines.push(
      '- Other engines, each in a process of its own, in turn with this program; their results are checked first. In brackets their',
      "  time by ours, the median over pairs; `ratio` is that of the fastest WebGPU engine. onnxruntime-node's times hold the way of",
      '  input and output to and from the adapter, the others compute on what lies there.',
      ...peerLines(peers, adapter.kind).map((line) => `- ${line}`),
    );
  }
  const grids = [...acceptanceGrids(report.acceptance), ...peerGrids(cases), ...caseGrids(cases)];
  for (const { title, head, texts, rows, notes = [] } of grids) {
    const rule = head.map((_, column) => (column < texts ? '---' : '--:')).join('|');
    lines.push('', `### ${title}`, '', `| ${head.join(' | ')} |`, `|${rule}|`);
    for (const row of rows) lines.push(`| ${row.join(' | ')} |`);
    if (notes.length > 0) lines.push('', ...notes.map((note) => `- ${note.replace(/^\* /, '\\* ')}`));
  }
  return `${lines.join('\n')}\n`;
}
