/** Numbers as people read them. */

const DASH = '–';

/** A score 0…1 in three decimals; a dash where there is none. */
export const formatScore = (value: number | null | undefined): string => (value == null ? DASH : value.toFixed(3));

/** A count with separators of thousands. */
export const formatCount = (value: number): string => value.toLocaleString('en-US');

/** Three digits that count, without zeros at the end: 0.0203, 0.02, 1.5e-7. */
export function formatNumber(value: number): string {
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return String(Number(value.toPrecision(3)));
  return Number(value.toPrecision(size >= 100 ? Math.ceil(Math.log10(size + 1)) : 3)).toLocaleString('en-US', {
    maximumFractionDigits: 10,
  });
}

/** A time in the unit that suits it: 85 ms, 0.41 s, 3 min 5 s, 2 h 10 min. */
export function formatDuration(seconds: number): string {
  if (seconds < 0.1) return `${(1000 * seconds).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(2)} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  if (seconds < 3599.5) return `${Math.floor(Math.round(seconds) / 60)} min ${Math.round(seconds) % 60} s`;
  const minutes = Math.round(seconds / 60);
  return `${formatCount(Math.floor(minutes / 60))} h ${minutes % 60} min`;
}

/** The size of a file: 812 B, 15.7 kB, 3.9 MB. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const units = ['kB', 'MB', 'GB', 'TB'];
  let value = bytes / 1000;
  let unit = 0;
  for (; value >= 999.5 && unit < units.length - 1; unit++) value /= 1000;
  return `${value < 99.5 ? Number(value.toPrecision(3)) : Math.round(value)} ${units[unit]}`;
}

/** A moment as in "25 Nov 2025, 11:01 UTC". @param iso as `Date.toISOString` gives it */
export function formatMoment(iso: string): string {
  const date = new Date(iso);
  const day = date.toLocaleDateString('en-GB', { day: 'numeric', month: 'short', year: 'numeric', timeZone: 'UTC' });
  return `${day}, ${date.toISOString().slice(11, 16)} UTC`;
}

/** The middle of some numbers; NaN for none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
