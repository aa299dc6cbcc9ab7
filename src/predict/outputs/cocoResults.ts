import { cropToCocoRle } from '../../data/cropRle.ts';
import type { ImagePrediction } from '../prediction.ts';

/** The numbers that COCO's files give to images and classes. */
export interface CocoIds {
  /** @param position of the image among all of the folder, from 0 */
  imageId(prediction: { id: string; position: number }): number;
  /** @param label 1 … */
  categoryId(label: number): number;
}

/** Images are numbered from 1 in the order of their names, classes by their labels. */
export const plainCocoIds: CocoIds = {
  imageId: ({ position }) => position + 1,
  categoryId: (label) => label,
};

/**
 * COCO's results format (https://cocodataset.org/#format-results) in parts, a cell at a time; pycocotools' `loadRes` reads it.
 * Holds the cells of the answer, those of `submission.csv`: above their score thresholds, masks disjoint. `bbox` is the box head's
 * (x, y, width, height), `segmentation` compressed run lengths (none for a box-only model).
 */
export function* cocoResults(predictions: Iterable<ImagePrediction>, ids: CocoIds = plainCocoIds): Generator<string> {
  yield '[';
  let separator = '\n';
  for (const prediction of predictions) {
    const imageId = ids.imageId(prediction);
    for (const { label, score, box, mask } of prediction.cells) {
      const [left, top, right, bottom] = box;
      const result = {
        image_id: imageId,
        category_id: ids.categoryId(label),
        bbox: [left, top, right - left, bottom - top],
        score,
        ...(mask && { segmentation: cropToCocoRle(mask, prediction.width, prediction.height) }),
      };
      yield separator + JSON.stringify(result);
      separator = ',\n';
    }
  }
  yield '\n]\n';
}
