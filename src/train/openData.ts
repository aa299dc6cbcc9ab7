import { type Dataset, type DatasetOptions, openDataset } from '../data/dataset.ts';
import { type Progress, startProgress } from './progress.ts';

/** Milliseconds before a stage is shown: most data sets are open by then. */
const SHOWN_AFTER = 1000;

/** `openDataset` with progress: a bar for each stage that takes longer than a second. @throws UserError as it does */
export function openDatasetShown(path: string, options: Omit<DatasetOptions, 'onProgress'> = {}): Dataset {
  let current = '';
  let began = 0;
  let bar: Progress | undefined;
  const stop = (): void => {
    bar?.stop();
    bar = undefined;
  };
  const onProgress: DatasetOptions['onProgress'] = (stage, done, total) => {
    if (stage !== current) {
      stop();
      current = stage;
      began = Date.now();
    }
    if (bar === undefined && Date.now() - began > SHOWN_AFTER) bar = startProgress(stage, total, done);
    bar?.update(done);
  };
  try {
    return openDataset(path, { ...options, onProgress });
  } finally {
    stop();
  }
}
