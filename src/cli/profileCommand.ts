import { Command, Option } from 'commander';
import { requireOutputFile, writeFileAtomic } from '../data/files.ts';
import { chromeTrace } from '../gpu/profiler.ts';
import type { Device } from '../tensor/device.ts';
import { completeTrainOptions, type GivenTrainOptions, readTrainConfig } from '../train/options.ts';
import { profileRun } from '../train/profileRun.ts';
import { startProgress } from '../train/progress.ts';
import { allocateRun, planRun, type Run } from '../train/run.ts';
import { DEFAULT_STEPS, DEFAULT_WARM_UP, type Profile } from '../train/stepProfile.ts';
import { dataFolder } from './dataFolder.ts';
import { sayHeld, sayPlan } from './memoryLines.ts';
import { parseCount, parseNumber, parsePositiveCount } from './numbers.ts';
import { measurePeak, requireTimestamps, showProfile, summarizeProfile } from './profileTables.ts';
import { adapterOption, precisionOption, tunerOption, withDevice } from './session.ts';

interface Flags extends GivenTrainOptions {
  mode: 'train' | 'predict';
  steps: number;
  warmUp: number;
  trace?: string;
  json?: string;
  config?: string;
  adapter: string;
  tuner?: boolean;
}

export function profileCommand(): Command {
  return new Command('profile')
    .description('Time every kernel of whole steps on the device: by kernel and by part of the model.')
    .option('--data <dir>', 'folder of a data set (default: the synthetic cells)')
    .option('--preset <name>', 'model (default: tiny)')
    .option('--resize <factor>', 'scale images and masks when loading (default: 0.5)', parseNumber)
    .option('--batch-size <n>', 'images per step (default: 2)', parsePositiveCount)
    .option('--checkpoint-activations', "compute the backbone's activations again in the backward pass")
    .addOption(new Option('--mode <name>', 'what to time').choices(['train', 'predict']).default('train'))
    .option('--steps <n>', 'steps to time', parsePositiveCount, DEFAULT_STEPS)
    .option('--warm-up <n>', 'steps before them', parseCount, DEFAULT_WARM_UP)
    .option('--config <file>', "JSON file of training options, such as a run's config.json; flags override it")
    .option('--trace <file>', 'write a trace for chrome://tracing or Perfetto here')
    .option('--json <file>', 'write the tables here')
    .addOption(precisionOption())
    .addOption(adapterOption())
    .addOption(tunerOption())
    .action(async ({ mode, steps, warmUp, trace, json, adapter, tuner, config, ...given }: Flags) => {
      if (trace !== undefined) requireOutputFile(trace, '--trace');
      if (json !== undefined) requireOutputFile(json, '--json');
      const options = completeTrainOptions({ ...(config !== undefined && readTrainConfig(config)), ...given });
      const run = planRun(options, dataFolder(options), '');
      await withDevice(
        adapter,
        async (device) => {
          requireTimestamps(device);
          const profile = await takeProfile(run, device, { mode, steps, warmUp });
          const peak = await measurePeak(device);
          showProfile(profile, peak);
          if (trace) writeFileAtomic(trace, chromeTrace(profile.spans));
          if (json) writeFileAtomic(json, `${JSON.stringify(summarizeProfile(profile, device, peak), null, 2)}\n`);
        },
        { tuner, precision: options.precision },
      );
    });
}

async function takeProfile(
  run: Run,
  device: Device,
  options: Pick<Flags, 'mode' | 'steps' | 'warmUp'>,
): Promise<Profile> {
  const plan = await sayPlan(device, run, options.mode);
  await allocateRun(run, device);
  const bar = startProgress('Profiling', options.steps + options.warmUp);
  try {
    return await profileRun(run, { ...options, progress: (done) => bar.update(done) });
  } finally {
    bar.stop();
    sayHeld(device, plan);
    run.model.dispose();
  }
}
