import { UserError } from '../cli/errors.ts';
import type { ImageRecord } from './dataset.ts';

/** The labels that an image shows to a training step: those of its cells, crowds not counted. */
export function shownLabels({ annotations }: ImageRecord): Set<number> {
  return new Set(annotations.filter(({ iscrowd }) => !iscrowd).map(({ label }) => label));
}

/**
 * Finds a class that validation images show and no training image does: the model cannot have learnt it, so every score would
 * count its cells as missed. A class that no image shows at all is no fault.
 *
 * @param train images to train on
 * @param validation images to validate on
 * @param classes names of the labels 1 …
 * @throws UserError that names the class and the first image that shows it
 */
export function checkSplitClasses(
  train: readonly ImageRecord[],
  validation: readonly ImageRecord[],
  classes: readonly string[],
): void {
  const trained = new Set(train.flatMap((record) => [...shownLabels(record)]));
  for (const record of validation) {
    for (const label of shownLabels(record)) {
      if (trained.has(label)) continue;
      throw new UserError(
        `validation image "${record.id}" shows "${classes[label - 1]}", which no training image does: expected every class of the validation images among the ${train.length} training images`,
      );
    }
  }
}
