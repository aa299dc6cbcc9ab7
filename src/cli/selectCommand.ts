import { existsSync } from 'node:fs';
import { join } from 'node:path';
import Table from 'cli-table3';
import { Command, Option } from 'commander';
import { writeFileAtomic } from '../data/files.ts';
import { initialThresholds } from '../eval/defaults.ts';
import type { Device } from '../tensor/device.ts';
import { type EpochMetric, type EpochResult, epochMetrics, epochScore, isBetterBy } from '../train/best.ts';
import { type CheckpointInfo, openCheckpoint, rewriteCheckpoint, stateSource } from '../train/checkpoint.ts';
import { startProgress } from '../train/progress.ts';
import { rewriteBest } from '../train/resume.ts';
import { RUN_FILES } from '../train/run.ts';
import { tunedThresholds, type Validation, validateUnless } from '../train/validate.ts';
import { UserError } from './errors.ts';
import { openModel, type StoredModel } from './loadModel.ts';
import { writeReport } from './runResults.ts';
import { adapterOption, interruptible, say, tunerOption, withDevice } from './session.ts';
import { epochCheckpoints, openStoredRun, type StoredRun } from './storedRun.ts';

interface Flags {
  run: string;
  metric?: EpochMetric;
  adapter: string;
  tuner?: boolean;
}

export function selectCommand(): Command {
  return new Command('select')
    .description(
      "Score the weights of every epoch of a run on its validation images, and make the best ones the run's.",
    )
    .requiredOption('--run <dir>', 'folder of a training run')
    .addOption(
      new Option('--metric <name>', 'what decides')
        .choices(epochMetrics)
        .default(undefined, 'iouMap; box-only: boxMap30'),
    )
    .addOption(adapterOption())
    .addOption(tunerOption())
    .action(async ({ run, metric, adapter, tuner }: Flags) => {
      const selection = await openSelection(run, metric);
      const selected = await withDevice(adapter, (device) => select(selection, device), { tuner });
      if (!selected) return;
      console.log(epochTable(selected));
      for (const line of describeSelected(selected, run)) say(line);
    });
}

export interface Selection {
  run: StoredRun;
  /** Of the first epoch; the others have the same architecture. */
  stored: StoredModel;
  checkpoints: { path: string; info: CheckpointInfo }[];
  metric: EpochMetric;
}

/** Checks the run and all its checkpoints; needs no device and writes nothing. @throws UserError for whatever is wrong */
export async function openSelection(dir: string, metric?: EpochMetric): Promise<Selection> {
  const paths = epochCheckpoints(dir);
  const stored = await openModel(paths[0]);
  const checkpoints = paths.map((path) => {
    const { info, file } = openCheckpoint(path);
    try {
      stateSource(file, stored.model.state);
    } finally {
      file.close();
    }
    return { path, info };
  });
  const { masks } = stored.info.config;
  if (!masks && (metric === 'iouMap' || metric === 'maskAP50')) {
    throw new UserError(`--metric ${metric}: the run in ${dir} is box-only, expected boxMap30 or boxAP50.`);
  }
  const run = openStoredRun(dir, stored.info.classes);
  return { run, stored, checkpoints, metric: metric ?? (masks ? 'iouMap' : 'boxMap30') };
}

export interface Selected {
  epochs: EpochResult[];
  best: EpochResult;
  metric: EpochMetric;
  /** The run's best weights, as rewritten. */
  path: string;
  /** The epoch that they were of before; null where there were none. */
  previous: number | null;
}

/**
 * Scores every epoch as training does at its end, and writes the best one's weights, with the thresholds that training would have
 * given them; their scores and the report follow. The run's state learns of the choice too, so that a run that goes on compares later epochs with it. Null where the user
 * stopped it; nothing is written then.
 */
export async function select(selection: Selection, device: Device): Promise<Selected | null> {
  const { run, stored, checkpoints, metric } = selection;
  const interrupt = interruptible();
  const epochs: EpochResult[] = [];
  let best: { result: EpochResult; validation: Validation; path: string; info: CheckpointInfo } | null = null;
  try {
    await stored.allocate(device);
    for (const { path, info } of checkpoints) {
      const validation = await scoreCheckpoint(selection, path, info.epoch, interrupt.stopping);
      if (!validation) {
        say('Stopped; nothing was written.');
        process.exitCode = 130;
        return null;
      }
      const { scores, losses } = validation;
      const result = { score: epochScore(info.epoch, scores, losses.total), scores };
      epochs.push(result);
      if (isBetterBy(metric, result, best?.result ?? null)) best = { result, validation, path, info };
    }
  } finally {
    interrupt.done();
    stored.model.dispose();
  }
  if (!best) throw new Error('A run with checkpoints has a best epoch.');
  const { result, validation, path, info } = best;
  const initial = initialThresholds(run.dataset.classes);
  const thresholds = run.options.tune
    ? tunedThresholds(validation.evaluator, stored.model.config.numClasses, initial)
    : initial;
  const target = join(run.dir, RUN_FILES.best);
  const previous = existsSync(target) ? epochOf(target) : null;
  rewriteCheckpoint(path, target, { ...info, thresholds });
  const scores = run.options.tune ? validation.evaluator.compute(thresholds) : validation.scores;
  writeFileAtomic(join(run.dir, RUN_FILES.scores), `${JSON.stringify(scores, null, 2)}\n`);
  writeReport(run.dir);
  const state = join(run.dir, RUN_FILES.state);
  if (existsSync(state)) rewriteBest(state, result.score);
  return { epochs, best: result, metric, path: target, previous };
}

function epochOf(path: string): number {
  const { info, file } = openCheckpoint(path);
  file.close();
  return info.epoch;
}

/** Puts an epoch's weights into the model and validates it; null where the user stopped it. */
async function scoreCheckpoint(
  { run, stored: { model }, checkpoints }: Selection,
  path: string,
  epoch: number,
  stopping: () => boolean,
): Promise<Validation | null> {
  const { file } = openCheckpoint(path);
  try {
    await model.state.load(stateSource(file, model.state));
  } finally {
    file.close();
  }
  const { dataset, split, options } = run;
  const records = split.validation;
  const progress = startProgress(`Epoch ${epoch} of ${checkpoints.length}`, records.length);
  try {
    const thresholds = initialThresholds(dataset.classes);
    return await validateUnless(stopping, { model, dataset, records, options, thresholds, progress });
  } finally {
    progress.stop();
  }
}

/** What the user should know of a choice. */
export function describeSelected({ best, path, previous }: Selected, run: string): string[] {
  const { epoch } = best.score;
  const lines = [`Best is epoch ${epoch}: ${path}`];
  if (previous !== null && previous !== epoch) {
    lines.push(`Pictures and submission.csv in ${run} are still those of epoch ${previous}; predict makes new ones.`);
  }
  return lines;
}

/** The scores of all epochs, the metric that decided with a star. */
export function epochTable({ epochs, best, metric }: Selected): string {
  const text = (value: number | null): string => (value === null ? '–' : value.toFixed(4));
  const heads: Record<EpochMetric, string> = {
    iouMap: 'competition score',
    maskAP50: 'mask AP50',
    boxMap30: 'box mAP30',
    boxAP50: 'box AP50',
  };
  const table = new Table({
    head: [
      'epoch',
      ...epochMetrics.map((name) => `${heads[name]}${name === metric ? ' *' : ''}`),
      'validation loss',
      '',
    ],
    style: { head: [], border: [] },
    colAligns: ['right', 'right', 'right', 'right', 'right', 'right', 'left'],
  });
  for (const result of epochs) {
    const { score, scores } = result;
    table.push([
      String(score.epoch),
      ...epochMetrics.map((name) => text(scores[name])),
      score.validationLoss.toFixed(4),
      result === best ? 'best' : '',
    ]);
  }
  return table.toString();
}
