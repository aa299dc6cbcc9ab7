import type { Annotation, Dataset, ImageRecord } from './dataset.ts';
import { sortValuesOrder } from './numpySort.ts';

/** One row of the notebook's `df_images`. */
export interface ImageCount {
  id: string;
  cellType: string;
  /** Cells of this type in the image, at least one. */
  cells: number;
}

/** The cells of an image, crowds left out: they are no single cells. */
export function cellsOf({ annotations }: Pick<ImageRecord, 'annotations'>): Annotation[] {
  return annotations.filter(({ iscrowd }) => !iscrowd);
}

/**
 * Cells per image and class, the notebook's `df_images`: grouped by id and cell type, then sorted by falling count with pandas'
 * unstable default sort, whose order of equal counts is reproduced (see `numpyArgsort`). An image with cells of two types has
 * two rows, one without cells none.
 */
export function countCells({ images, classes }: Pick<Dataset, 'images' | 'classes'>): ImageCount[] {
  const grouped = [...images]
    .sort((a, b) => compare(a.id, b.id))
    .flatMap((image): ImageCount[] => {
      const counts = new Map<string, number>();
      for (const { label } of cellsOf(image)) {
        const cellType = classes[label - 1];
        counts.set(cellType, (counts.get(cellType) ?? 0) + 1);
      }
      return [...counts]
        .sort(([a], [b]) => compare(a, b))
        .map(([cellType, cells]) => ({ id: image.id, cellType, cells }));
    });
  const order = sortValuesOrder(
    grouped.map(({ cells }) => cells),
    false,
  );
  return Array.from(order, (row) => grouped[row]);
}

/** Python's order of texts, as far as both lie in Unicode's first plane. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
