import Table from 'cli-table3';
import { Command, Option } from 'commander';
import { requireOutputFile, writeFileAtomic } from '../data/files.ts';
import { chromeTrace, type ProfileRow, profileTable } from '../gpu/profiler.ts';
import type { Device } from '../tensor/device.ts';
import { completeTrainOptions, type GivenTrainOptions } from '../train/options.ts';
import { type Profile, profileRun } from '../train/profileRun.ts';
import { startProgress } from '../train/progress.ts';
import { allocateRun, planRun, type Run } from '../train/run.ts';
import { calibrate, type Yardstick } from '../verify/calibration.ts';
import { dataFolder } from './dataFolder.ts';
import { UserError } from './errors.ts';
import { parseNumber, parsePositiveCount } from './numbers.ts';
import { adapterOption, say, withDevice } from './session.ts';

/** No line between the rows of a long table. */
const NO_RULES = { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' };
const PLAIN: { head: string[]; border: string[] } = { head: [], border: [] };

interface Flags extends GivenTrainOptions {
  mode: 'train' | 'predict';
  steps: number;
  warmUp: number;
  trace?: string;
  json?: string;
  adapter: string;
}

export function profileCommand(): Command {
  return new Command('profile')
    .description('Time every kernel of whole steps on the device: by kernel and by part of the model.')
    .option('--data <dir>', 'folder of a data set (default: the synthetic cells)')
    .option('--preset <name>', 'model (default: tiny)')
    .option('--resize <factor>', 'scale images and masks when loading (default: 0.5)', parseNumber)
    .option('--batch-size <n>', 'images per step (default: 2)', parsePositiveCount)
    .addOption(new Option('--mode <name>', 'what to time').choices(['train', 'predict']).default('train'))
    .option('--steps <n>', 'steps to time', parsePositiveCount, 5)
    .option('--warm-up <n>', 'steps before them', parsePositiveCount, 3)
    .option('--trace <file>', 'write a trace for chrome://tracing or Perfetto here')
    .option('--json <file>', 'write the tables here')
    .addOption(adapterOption())
    .action(async ({ mode, steps, warmUp, trace, json, adapter, ...given }: Flags) => {
      if (trace !== undefined) requireOutputFile(trace, '--trace');
      if (json !== undefined) requireOutputFile(json, '--json');
      const options = completeTrainOptions(given);
      const run = planRun(options, dataFolder(options), '');
      await withDevice(adapter, async (device) => {
        if (!device.gpu.device.features.has('timestamp-query')) {
          throw new UserError(
            `${device.gpu.opened.info.name} has no timestamp queries, which profiling needs; choose another with --adapter.`,
          );
        }
        const profile = await takeProfile(run, device, { mode, steps, warmUp });
        const peak = await measurePeak(device);
        show(profile, steps, peak);
        if (trace) writeFileAtomic(trace, chromeTrace(profile.spans));
        if (json) writeFileAtomic(json, `${JSON.stringify(summary(profile, steps, device, peak), null, 2)}\n`);
      });
    });
}

async function takeProfile(
  run: Run,
  device: Device,
  options: Pick<Flags, 'mode' | 'steps' | 'warmUp'>,
): Promise<Profile> {
  await allocateRun(run, device);
  const bar = startProgress('Profiling', options.steps + options.warmUp);
  try {
    return await profileRun(run, { ...options, progress: (done) => bar.update(done) });
  } finally {
    bar.stop();
    run.model.dispose();
  }
}

interface Peak {
  gflops: number;
  gigabytesPerSecond: number;
}

/** What the adapter does at most just now: multiply-adds in registers, a copy of a large buffer; best of five. */
function measurePeak(device: Device): Promise<Peak> {
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

function summary(profile: Profile, steps: number, device: Device, peak: Peak): object {
  const { spans, ...rest } = profile;
  return {
    adapter: device.gpu.opened.info.name,
    steps,
    ...rest,
    kernelShare: profile.busyMs / profile.wallMs,
    peak,
    modules: byModule(profile),
    kernels: byKernel(profile),
  };
}

function show(profile: Profile, steps: number, peak: Peak): void {
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
    head: ['memory for', 'MB at the end'],
    style: PLAIN,
    chars: NO_RULES,
    colAligns: ['left', 'right'],
  });
  for (const [tag, bytes] of Object.entries(profile.byTag)) memory.push([tag, (bytes / 1e6).toFixed(1)]);
  memory.push(['all that is held', (profile.held / 1e6).toFixed(1)]);
  console.log(memory.toString());
  say(
    `Peak just now: ${peak.gflops.toFixed(1)} GFLOP/s in registers, ${peak.gigabytesPerSecond.toFixed(1)} GB/s copying.`,
  );
  const share = ((100 * profile.busyMs) / profile.wallMs).toFixed(0);
  say(
    `A step took ${(profile.wallMs / steps).toFixed(1)} ms, ${share} % of it inside kernels: ${profile.dispatches} dispatches, ${profile.readbacks} readbacks, ${profile.created} buffers created.`,
  );
}
