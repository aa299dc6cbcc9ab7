import { UserError } from '../cli/errors.ts';
import type { Dataset } from './dataset.ts';
import { countCells } from './imageCounts.ts';
import { type Split, trainTestSplit } from './split.ts';

/** The `random_state` that the notebook gives to `train_test_split`. */
export const NOTEBOOK_SPLIT_SEED = 1234;

/**
 * The notebook's split: scikit-learn's `train_test_split(df_images, stratify=df_images['cell_type'], …)` over the images in the
 * order of the notebook's table (`countCells`). With share .075 and seed 1234 on the competition's `train.csv` the validation
 * images are the notebook's, as it ran in 2021.
 *
 * Images without cells are in no row of that table; they are trained on.
 *
 * @param share 0 < share < 1 of the images with cells, rounded up
 * @param seed 0 … 2^32 - 1
 * @returns both sides in the data set's order, as the notebook's data sets sort them again
 * @throws UserError for an image with cells of two types (the notebook could put it on both sides), a type with one image, or
 *   too few images for every type on each side
 */
export function notebookSplit(dataset: Pick<Dataset, 'images' | 'classes'>, share: number, seed: number): Split {
  const rows = countCells(dataset);
  const typeOf = new Map<string, string>();
  for (const { id, cellType } of rows) {
    const other = typeOf.get(id);
    if (other !== undefined) {
      const types = [other, cellType].sort().join(' and ');
      throw new UserError(
        `image "${id}" has cells of two types (${types}), but the notebook's split knows images of one type only; expected --split balanced for such data`,
      );
    }
    typeOf.set(id, cellType);
  }
  const { test } = trainTestSplit(
    rows.map(({ cellType }) => cellType),
    share,
    seed,
  );
  const validation = new Set(test.map((row) => rows[row].id));
  return {
    train: dataset.images.filter(({ id }) => !validation.has(id)),
    validation: dataset.images.filter(({ id }) => validation.has(id)),
  };
}
