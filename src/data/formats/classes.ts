import type { DatasetOptions } from '../dataset.ts';

/** The competition's cell types in the order of the notebook's `cell_type_dict` (astro 1, cort 2, shsy5y 3). */
export const COMPETITION_CLASSES: readonly string[] = ['astro', 'cort', 'shsy5y'];

/**
 * The classes of a data set, label 1 first: those given, or the competition's where asked for and where they are enough, or the data
 * set's own.
 *
 * @param types the types that its cells show
 * @param own the data set's own list, by default `types` sorted
 */
export function chooseClasses(
  types: Iterable<string>,
  { classes, competitionClasses }: DatasetOptions,
  own?: readonly string[],
): string[] {
  const shown = [...new Set(types)];
  if (classes !== undefined) return [...classes];
  if (competitionClasses === true && shown.every((type) => COMPETITION_CLASSES.includes(type))) {
    return [...COMPETITION_CLASSES];
  }
  return [...(own ?? shown.sort())];
}

/** Labels by class name: 1 for the first. */
export function labelsOf(classes: readonly string[]): Map<string, number> {
  return new Map(classes.map((name, i) => [name, i + 1]));
}
