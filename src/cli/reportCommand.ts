import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Command } from 'commander';
import { requireOutputFolder } from '../data/files.ts';
import { RUN_FILES } from '../train/run.ts';
import { readRun } from '../train/runFolder.ts';
import { UserError } from './errors.ts';
import { openModel } from './loadModel.ts';
import { parsePositiveCount } from './numbers.ts';
import { spread, writePanels } from './panelsCommand.ts';
import { writeReport } from './runResults.ts';
import { adapterOption, interruptible, say, tunerOption, withDevice } from './session.ts';
import { openStoredRun } from './storedRun.ts';

interface Flags {
  run: string;
  out?: string;
  panels?: number;
  adapter: string;
  tuner?: boolean;
}

export function reportCommand(): Command {
  return new Command('report')
    .description(
      'Write all of a run, finished or stopped, into one HTML file: curves, scores, pictures, configuration.',
    )
    .requiredOption('--run <dir>', 'folder of the run')
    .option('--out <file>', 'the report (default: report.html in the folder of the run)')
    .option('--panels <n>', 'predict n validation images anew for the pictures; needs the data', parsePositiveCount)
    .addOption(adapterOption())
    .addOption(tunerOption())
    .action(async ({ run, out = join(run, RUN_FILES.report), panels, ...device }: Flags) => {
      readRun(run, dirname(out));
      requireOutputFolder(dirname(out), '--out');
      if (panels !== undefined && !(await renewPanels(run, panels, device))) return;
      say(`Report    ${writeReport(run, out)}`);
    });
}

/** Predicts validation images with the best weights and writes their pictures; false when the user stopped it. */
async function renewPanels(
  run: string,
  count: number,
  { adapter, tuner }: Pick<Flags, 'adapter' | 'tuner'>,
): Promise<boolean> {
  const weights = join(run, RUN_FILES.best);
  if (!existsSync(weights)) {
    throw new UserError(`--panels: ${run} has no ${RUN_FILES.best}, expected a run that has ended an epoch.`);
  }
  const stored = await openModel(weights);
  const { split } = openStoredRun(run, stored.info.classes);
  return withDevice(
    adapter,
    async (device) => {
      await stored.allocate(device);
      const interrupt = interruptible();
      try {
        const entries = await writePanels({
          ...stored.info,
          model: stored.model,
          records: spread(split.validation, count),
          out: join(run, RUN_FILES.panels),
          stopping: interrupt.stopping,
        });
        if (entries !== null) return true;
        say('Stopped; the report was not written.');
        process.exitCode = 130;
        return false;
      } finally {
        interrupt.done();
        stored.model.dispose();
      }
    },
    { tuner },
  );
}
