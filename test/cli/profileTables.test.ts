import { afterEach, expect, it, vi } from 'vitest';
import { requireTimestamps, showProfile, summarizeProfile } from '../../src/cli/profileTables.ts';
import type { Device } from '../../src/tensor/device.ts';
import type { Profile } from '../../src/train/stepProfile.ts';

afterEach(() => vi.restoreAllMocks());

const deviceWith = (...features: string[]): Device =>
  ({ gpu: { device: { features: new Set(features) }, opened: { info: { name: 'Adapter X' } } } }) as unknown as Device;

const profile: Profile = {
  steps: 2,
  spans: [
    { kernel: 'matmul', module: 'rpn', start: 0, end: 4e6, flops: 8e6, bytes: 2e6 },
    { kernel: 'add', module: '', start: 4e6, end: 6e6, flops: 0, bytes: 1e6 },
  ],
  wallMs: 8,
  busyMs: 6,
  readbacks: 1,
  submits: 3,
  dispatches: 1,
  peakByTag: { parameters: 2e6, activations: 5e6 },
  held: 9e6,
  created: 0,
};
const peak = { gflops: 8, gigabytesPerSecond: 4 };

it('refuses an adapter without timestamp queries in one sentence', () => {
  expect(() => requireTimestamps(deviceWith())).toThrow(/^Adapter X has no timestamp queries.*--adapter\.$/);
  expect(() => requireTimestamps(deviceWith('timestamp-query'))).not.toThrow();
});

it('shows time and rates by part and kernel, memory by tag, and the share inside kernels', () => {
  const lines: string[] = [];
  vi.spyOn(console, 'log').mockImplementation((text: string) => void lines.push(text));
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => lines.push(String(text)) > 0);
  showProfile(profile, peak);
  const cells = (name: string) =>
    lines
      .join('\n')
      .split('\n')
      .find((line) => line.includes(` ${name} `))
      ?.split('│')
      .map((cell) => cell.trim())
      .filter((cell) => cell !== '');
  // 4 ms for 8 MFLOP over two steps: 2 GFLOP/s of 8.
  expect(cells('matmul')).toEqual(['matmul', '2.00', '66.7 %', '1', '2.0', '25 %', '0.5']);
  expect(cells('other')).toEqual(['other', '1.00', '33.3 %', '1', '0.5']);
  expect(cells('activations')).toEqual(['activations', '5.0']);
  expect(lines.at(-1)).toContain('A step took 4.0 ms, 75 % of it inside kernels: 1 dispatches in 3 submits');
});

it('is written with the adapter, the share and the tables, but without single dispatches', () => {
  expect(summarizeProfile(profile, deviceWith(), peak)).toMatchObject({
    adapter: 'Adapter X',
    steps: 2,
    kernelShare: 0.75,
    peak,
    modules: [{ name: 'rpn', ms: 4 }, { name: 'other' }],
    kernels: [{ name: 'matmul', calls: 1 }, { name: 'add' }],
  });
  expect(summarizeProfile(profile, deviceWith(), peak)).not.toHaveProperty('spans');
});
