import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Dataset } from '../data/dataset.ts';
import type { Split } from '../data/split.ts';
import { requireFolder } from '../data/table.ts';
import { completeTrainOptions, readTrainConfig, type TrainOptions } from '../train/options.ts';
import { openRunData, RUN_FILES } from '../train/run.ts';
import { dataFolder } from './dataFolder.ts';
import { UserError } from './errors.ts';

/** A run that is there already, with its data as it trained on them. */
export interface StoredRun {
  dir: string;
  options: TrainOptions;
  dataset: Dataset;
  split: Split;
}

/**
 * Opens the folder that `train` made, for a command that goes on from it.
 *
 * @param classes of the run's weights, which the data must still have
 * @throws UserError where there is no run, or its data have gone or changed
 */
export function openStoredRun(dir: string, classes: readonly string[]): StoredRun {
  const options = readRunOptions(dir, '--run');
  const data = dataFolder(options);
  const { dataset, split } = openRunData(options, data);
  if (dataset.classes.join() !== classes.join()) {
    throw new UserError(
      `${data}: its cell types are ${dataset.classes.join(', ')} now, but the run in ${dir} was trained on ${classes.join(', ')}.`,
    );
  }
  return { dir, options, dataset, split };
}

/** The options of a run, completed. @param option that gave the folder @throws UserError where there is no run */
export function readRunOptions(dir: string, option: string): TrainOptions {
  requireFolder(dir);
  const config = join(dir, RUN_FILES.config);
  if (!existsSync(config)) {
    throw new UserError(
      `${option} ${dir}: it holds no run (there is no ${RUN_FILES.config}), expected the folder of a run.`,
    );
  }
  const options = completeTrainOptions(readTrainConfig(config));
  // The split that the run began with, whatever has become of the file it came from.
  const split = join(dir, RUN_FILES.split);
  return existsSync(split) ? { ...options, splitFile: split } : options;
}

/** The checkpoints of a run's epochs, first to last. @throws UserError where there are none */
export function epochCheckpoints(dir: string): string[] {
  readRunOptions(dir, '--run');
  const folder = join(dir, RUN_FILES.checkpoints);
  const names = existsSync(folder) ? readdirSync(folder).filter((name) => /^epoch-\d+\.safetensors$/.test(name)) : [];
  if (names.length === 0) {
    throw new UserError(`--run ${dir}: it has no checkpoint yet, expected some in ${folder}.`);
  }
  return names
    .sort((a, b) => Number.parseInt(a.slice(6), 10) - Number.parseInt(b.slice(6), 10))
    .map((name) => join(folder, name));
}
