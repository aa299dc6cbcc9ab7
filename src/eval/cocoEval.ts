import { UserError } from '../cli/errors.ts';
import { CocoAccumulator, type CocoEvaluation } from './cocoAccumulator.ts';
import {
  type CheckedAnnotation,
  type CheckedResult,
  type CocoResult,
  type CocoSegmentation,
  type CocoTruth,
  checkResults,
  checkTruth,
  segmentationCounts,
} from './cocoFiles.ts';
import type { CocoImage } from './cocoMatching.ts';
import { boxOverlap, type Region, regionOfCounts, regionOverlap } from './cocoRegions.ts';

/** What is compared: masks or boxes (COCO's `iouType`). */
export type CocoIouType = 'segm' | 'bbox';

/**
 * COCO's twelve numbers for annotations and results in COCO's own form, equal to pycocotools
 * (`COCO.loadRes`, then `COCOeval.evaluate`, `accumulate`, `summarize`).
 *
 * Quirks of pycocotools, kept:
 * - the *first* result tells the form of all. If it has a box, a result's area is that of its box, for `segm` too, and a missing
 *   segmentation is the box; else the area is that of the mask, and a missing box is the mask's;
 * - areas of truths are those that the annotations tell, whatever they cover;
 * - an annotation whose id is 0 can be found, but whoever finds it counts as a false positive;
 * - results of categories that the truth does not list are left out, an annotation's `ignore` is not read;
 * - those of `matchCoco` and `CocoAccumulator`.
 *
 * Where pycocotools fails half-way (no results at all) or goes on with nonsense (run lengths of another size, duplicate ids), this
 * scores 0, or throws.
 *
 * @param truth an annotation file's content
 * @param results a result file's content
 * @param names what to call the two in errors
 * @returns `perClass` in the order of rising category ids
 * @throws UserError that names the entry and what was expected
 */
export function evaluateCoco(
  truth: CocoTruth,
  results: readonly CocoResult[],
  iouType: CocoIouType,
  names: { truth: string; results: string } = { truth: 'truth', results: 'results' },
): CocoEvaluation {
  const { images, annotations, categories } = checkTruth(truth, names.truth);
  const checked = checkResults(results, names.results);
  const entries = new Map(images.map(({ id, width, height }) => [id, new ImageEntries(width, height)]));
  for (const annotation of annotations) entries.get(annotation.image_id)?.truths.push(annotation);
  checked.forEach((result, index) => {
    const image = entries.get(result.image_id);
    if (image === undefined) {
      throw new UserError(
        `${names.results}: entry ${index} belongs to image ${result.image_id}, which ${names.truth} lacks`,
      );
    }
    image.results.push({ ...result, where: `${names.results}: entry ${index}` });
  });
  const accumulator = new CocoAccumulator(categories.map(({ id }) => id).sort((a, b) => a - b));
  const byBox = checked[0]?.bbox !== undefined;
  // Regions are made of one image at a time, so that those of all images never stay in memory together.
  for (const [, image] of [...entries].sort(([a], [b]) => a - b)) {
    accumulator.add(image.comparison(iouType, byBox, names.truth));
  }
  return accumulator.evaluation();
}

/** What is known of one image. */
class ImageEntries {
  readonly truths: CheckedAnnotation[] = [];
  readonly results: (CheckedResult & { where: string })[] = [];
  private readonly width: number;
  private readonly height: number;

  constructor(width: number, height: number) {
    this.width = width;
    this.height = height;
  }

  /** @param byBox whether results are measured by their boxes */
  comparison(iouType: CocoIouType, byBox: boolean, truthName: string): CocoImage {
    const { truths, results } = this;
    const crowds = truths.map(({ iscrowd }) => iscrowd);
    const nameOf = ({ id }: CheckedAnnotation): string => `${truthName}: annotation ${id}`;
    const withRegions = iouType === 'segm' || !byBox;
    const found = withRegions
      ? results.map((result) => this.region(resultSegmentation(result, byBox), result.where))
      : [];
    const base = {
      truths: {
        labels: truths.map((truth) => truth.category_id),
        areas: truths.map(({ area }) => area),
        crowds,
        unmatchable: truths.map(({ id }) => Number(id === 0)),
      },
      detections: {
        labels: results.map((result) => result.category_id),
        scores: results.map(({ score }) => score),
        areas: results.map((result, i) => {
          if (!byBox) return found[i].area;
          const [, , width, height] = required(result.bbox, 'bbox', result.where);
          return width * height;
        }),
      },
    };
    if (iouType === 'segm') {
      const regions = truths.map((truth) =>
        this.region(required(truth.segmentation, 'segmentation', nameOf(truth)), nameOf(truth)),
      );
      return { ...base, overlap: compareSelected(regionOverlap, found, regions, crowds) };
    }
    const boxes = truths.map((truth) => required(truth.bbox, 'bbox', nameOf(truth)));
    const foundBoxes = results.map((result, i) =>
      byBox ? required(result.bbox, 'bbox', result.where) : (result.bbox ?? found[i].box),
    );
    return { ...base, overlap: compareSelected(boxOverlap, foundBoxes, boxes, crowds) };
  }

  private region(segmentation: CocoSegmentation, where: string): Region {
    const { width, height } = this;
    return regionOfCounts(segmentationCounts(segmentation, width, height, where), height);
  }
}

/** A result's segmentation; where results are told by boxes, a missing one is the box as a polygon (pycocotools' `loadRes`). */
function resultSegmentation(result: CheckedResult & { where: string }, byBox: boolean): CocoSegmentation {
  if (!byBox || result.segmentation !== undefined) {
    return required(result.segmentation, 'segmentation', result.where);
  }
  const [x, y, width, height] = required(result.bbox, 'bbox', result.where);
  return [[x, y, x, y + height, x + width, y + height, x + width, y]];
}

function required<T>(value: T | undefined, field: string, where: string): T {
  if (value === undefined) throw new UserError(`${where} has no ${field}, which the evaluation needs`);
  return value;
}

/** `CocoImage.overlap` from all of an image's regions or boxes. */
function compareSelected<T>(
  compare: (detected: readonly T[], truths: readonly T[], crowds: readonly number[]) => Float64Array,
  detected: readonly T[],
  truths: readonly T[],
  crowds: readonly number[],
): CocoImage['overlap'] {
  const pick = <V>(values: readonly V[], indices: readonly number[]): V[] => indices.map((i) => values[i]);
  return (detections, chosen) => compare(pick(detected, detections), pick(truths, chosen), pick(crowds, chosen));
}
