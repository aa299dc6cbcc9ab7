import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { ensureSyntheticDataset } from '../data/synthetic.ts';
import type { TrainOptions } from '../train/options.ts';
import { type Progress, startProgress } from '../train/progress.ts';
import { UserError } from './errors.ts';

/** The environment variable that names the competition's folder. */
export const DATA_VARIABLE = 'WEBGPU_MASK_RCNN_DATA';
const COMPETITION = 'sartorius-cell-instance-segmentation';

/**
 * Where the competition's folder may lie, in this order: a `data` folder here; `input` here and Kaggle's `../input` as the notebook
 * has them, and Kaggle's by its whole path; the notebook's folder on a mounted Google Drive (Colab).
 */
export const COMPETITION_FOLDERS: readonly string[] = [
  join('data', COMPETITION),
  'input',
  join('..', 'input', COMPETITION),
  `/kaggle/input/${COMPETITION}`,
  '/content/drive/MyDrive/input',
];

/**
 * Finds the competition's data where a user does not say `--data`: in the folder that the environment names, else in the first of
 * `COMPETITION_FOLDERS` that has a `train.csv` (relative ones to `cwd`).
 *
 * @throws UserError that lists the places looked at, or names a variable that leads nowhere
 */
export function findCompetitionData(env: NodeJS.ProcessEnv = process.env, cwd = process.cwd()): string {
  const named = env[DATA_VARIABLE];
  const has = (dir: string): boolean => existsSync(resolve(cwd, dir, 'train.csv'));
  if (named !== undefined && named !== '') {
    if (has(named)) return named;
    throw new UserError(
      `${DATA_VARIABLE} is ${named}, but there is no train.csv in it: expected the competition's folder.`,
    );
  }
  const found = COMPETITION_FOLDERS.find(has);
  if (found !== undefined) return found;
  throw new UserError(
    `This preset needs the competition's data, and there is no train.csv in ${COMPETITION_FOLDERS.join(', ')}: expected --data DIR or the variable ${DATA_VARIABLE}.`,
  );
}

/** The folder of a run's data; for the synthetic cells the one they are painted into, with progress where that is yet to be done. */
export function dataFolder({ data }: Pick<TrainOptions, 'data'>): string {
  if (data !== null) return data;
  let bar: Progress | undefined;
  try {
    return ensureSyntheticDataset({
      progress: (done, total) => {
        bar ??= startProgress('Painting synthetic cells', total);
        bar.update(done);
      },
    });
  } finally {
    bar?.stop();
  }
}
