import Table from 'cli-table3';
import { type ProfileRow, profileTable } from '../gpu/profiler.ts';
import type { Device } from '../tensor/device.ts';
import type { Profile } from '../train/stepProfile.ts';
import { calibrate, type Yardstick } from '../verify/calibration.ts';
import { UserError } from './errors.ts';
import { say } from './session.ts';

/** No line between the rows of a long table. */
const NO_RULES = { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' };
const PLAIN: { head: string[]; border: string[] } = { head: [], border: [] };

/** @throws UserError naming the adapter, if it cannot time its kernels */
export function requireTimestamps(device: Device): void {
  if (device.gpu.device.features.has('timestamp-query')) return;
  throw new UserError(
    `${device.gpu.opened.info.name} has no timestamp queries, which profiling needs; choose another with --adapter.`,
  );
}

export interface Peak {
  gflops: number;
  gigabytesPerSecond: number;
}

/** What the adapter does at most just now: multiply-adds in registers, a copy of a large buffer; best of five. */
export function measurePeak(device: Device): Promise<Peak> {
  return device.scope(async () => {
    const { flops, bytes } = await calibrate(device);
    const best = async ({ amount, run }: Yardstick): Promise<number> => {
      let fastest = Number.POSITIVE_INFINITY;
      for (let repeat = 0; repeat < 5; repeat++) {
        const start = performance.now();
        run();
        await device.gpu.sync();
        fastest = Math.min(fastest, performance.now() - start);
      }
      return amount / fastest / 1e6;
    };
    return { gflops: await best(flops), gigabytesPerSecond: await best(bytes) };
  });
}

const byModule = (profile: Profile): ProfileRow[] => profileTable(profile.spans, ({ module }) => module || 'other');
const byKernel = (profile: Profile): ProfileRow[] => profileTable(profile.spans, ({ kernel }) => kernel);

/** A profile's tables and totals, as JSON files hold them. */
export function summarizeProfile(profile: Profile, device: Device, peak: Peak): object {
  const { spans, ...rest } = profile;
  return {
    adapter: device.gpu.opened.info.name,
    ...rest,
    kernelShare: profile.busyMs / profile.wallMs,
    peak,
    modules: byModule(profile),
    kernels: byKernel(profile),
  };
}

/** Prints a profile: by part of the model, by kernel, memory; on standard output, the totals on standard error. */
export function showProfile(profile: Profile, peak: Peak): void {
  const { steps } = profile;
  const table = (title: string, rows: readonly ProfileRow[]): string => {
    const head = [title, 'ms a step', 'share', 'calls', 'GFLOP/s', 'of peak', 'GB/s bound'];
    const drawn = new Table({
      head,
      style: PLAIN,
      chars: NO_RULES,
      colAligns: ['left', ...head.slice(1).map(() => 'right' as const)],
    });
    for (const { name, ms, calls, flops, bytes } of rows) {
      const rate = flops / ms / 1e6;
      drawn.push([
        name.length > 60 ? `${name.slice(0, 59)}…` : name,
        (ms / steps).toFixed(2),
        `${((100 * ms) / profile.busyMs).toFixed(1)} %`,
        String(Math.round(calls / steps)),
        flops > 0 ? rate.toFixed(1) : '',
        flops > 0 ? `${((100 * rate) / peak.gflops).toFixed(0)} %` : '',
        (bytes / ms / 1e6).toFixed(1),
      ]);
    }
    return drawn.toString();
  };
  console.log(table('part of the model', byModule(profile)));
  console.log(table('kernel', byKernel(profile).slice(0, 40)));
  const memory = new Table({
    head: ['memory for', 'MB at most'],
    style: PLAIN,
    chars: NO_RULES,
    colAligns: ['left', 'right'],
  });
  for (const [tag, bytes] of Object.entries(profile.peakByTag)) memory.push([tag, (bytes / 1e6).toFixed(1)]);
  memory.push(['all that is held', (profile.held / 1e6).toFixed(1)]);
  console.log(memory.toString());
  say(
    `Peak just now: ${peak.gflops.toFixed(1)} GFLOP/s in registers, ${peak.gigabytesPerSecond.toFixed(1)} GB/s copying.`,
  );
  const share = ((100 * profile.busyMs) / profile.wallMs).toFixed(0);
  say(
    `A step took ${(profile.wallMs / steps).toFixed(1)} ms, ${share} % of it inside kernels: ${Math.round(profile.dispatches)} dispatches in ${Math.round(profile.submits)} submits, ${Math.round(profile.readbacks)} readbacks; ${profile.created} buffers created in ${steps} steps.`,
  );
}
