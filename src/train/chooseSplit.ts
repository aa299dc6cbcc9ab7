import { UserError } from '../cli/errors.ts';
import type { Dataset } from '../data/dataset.ts';
import { NOTEBOOK_SPLIT_SEED, notebookSplit } from '../data/notebookSplit.ts';
import { Random } from '../data/random.ts';
import { type Split, stratifiedSplit } from '../data/split.ts';
import { checkSplitClasses } from '../data/splitClasses.ts';
import { readSplitFile, type SplitOrigin } from '../data/splitFile.ts';
import type { TrainOptions } from './options.ts';

type SplitOptions = Pick<TrainOptions, 'split' | 'splitSeed' | 'splitFile' | 'validation' | 'seed'>;

/** How the options split, as a run's `split.json` tells it. */
export function splitOrigin({ split, splitSeed, splitFile, validation, seed }: SplitOptions): SplitOrigin {
  if (splitFile !== null) return { method: 'file' };
  return { method: split, validation, seed: splitSeed ?? (split === 'notebook' ? NOTEBOOK_SPLIT_SEED : seed) };
}

/**
 * The training and validation images of a run: from a file where one is given, else by the options' method.
 *
 * @throws UserError naming the data set or file when a side is empty, or a class is in validation that training never sees
 */
export function chooseSplit(dataset: Dataset, options: SplitOptions): Split {
  const { splitFile, validation } = options;
  const split = draw(dataset, options);
  const where = splitFile ?? dataset.dir;
  for (const [part, what] of [
    [split.train, 'train on'],
    [split.validation, 'validate on'],
  ] as const) {
    if (part.length > 0) continue;
    const cause =
      splitFile === null
        ? `a validation share of ${validation} of its ${dataset.images.length} images leaves none to ${what}, expected two images or more of a cell type`
        : `it leaves no image to ${what}`;
    throw new UserError(`${where}: ${cause}.`);
  }
  naming(where, () => checkSplitClasses(split.train, split.validation, dataset.classes));
  return split;
}

function draw(dataset: Dataset, options: SplitOptions): Split {
  if (options.splitFile !== null) return readSplitFile(options.splitFile, dataset.images);
  const { seed = 0 } = splitOrigin(options);
  if (options.split === 'notebook') {
    return naming(dataset.dir, () => notebookSplit(dataset, options.validation, seed));
  }
  return stratifiedSplit(dataset.images, options.validation, new Random(seed));
}

/** Puts `where` before the sentence of a UserError. */
function naming<T>(where: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (error instanceof UserError) throw new UserError(`${where}: ${error.message}`);
    throw error;
  }
}
