/** COCO's annotation and result files, as far as the metrics read them (https://cocodataset.org/#format-data, #format-results). */
import { z } from 'zod';
import { UserError } from '../cli/errors.ts';
import { cocoPolygonCounts } from '../data/cocoPolygon.ts';
import { type CocoRunLengths, cocoRunLengths } from '../data/cocoRle.ts';

const box = z.tuple([z.number(), z.number(), z.number().min(0), z.number().min(0)]);
const size = z.tuple([z.int().min(1), z.int().min(1)]);
const segmentation = z.union([
  z.object({ size, counts: z.union([z.string(), z.array(z.number())]) }),
  z.array(z.array(z.number())),
]);

const truthSchema = z.object({
  images: z.array(z.object({ id: z.int(), width: z.int().min(1), height: z.int().min(1) })),
  categories: z.array(z.object({ id: z.int(), name: z.string().optional() })),
  annotations: z.array(
    z.object({
      id: z.int(),
      image_id: z.int(),
      category_id: z.int(),
      /** Square pixels; decides the area range, and need not be what `segmentation` covers. */
      area: z.number(),
      iscrowd: z.union([z.literal(0), z.literal(1)]).default(0),
      /** x, y, width, height in pixels; needed for `bbox`. */
      bbox: box.optional(),
      /** Needed for `segm`. */
      segmentation: segmentation.optional(),
    }),
  ),
});

const resultsSchema = z.array(
  z.object({
    image_id: z.int(),
    category_id: z.int(),
    score: z.number(),
    /** Some writers leave `[]` where there is none. */
    bbox: z.union([box, z.tuple([]).transform(() => undefined)]).optional(),
    segmentation: segmentation.optional(),
  }),
);

/** x, y, width, height in pixels. */
export type CocoBox = readonly [x: number, y: number, width: number, height: number];
/** Polygons of x, y, x, y …, or run lengths. */
export type CocoSegmentation = readonly (readonly number[])[] | CocoRunLengths;

/** `{images, annotations, categories}` of an annotation file; fields that are not named in the schema above may be there. */
export type CocoTruth = z.input<typeof truthSchema>;
/** One entry of a result file. */
export type CocoResult = z.input<typeof resultsSchema>[number];

export type CheckedTruth = z.output<typeof truthSchema>;
export type CheckedAnnotation = CheckedTruth['annotations'][number];
export type CheckedResult = z.output<typeof resultsSchema>[number];

/**
 * @param where what to name in an error, e.g. the file
 * @throws UserError that names the first entry that is not as COCO has it, a duplicate id, or an annotation of an unknown image
 *   or category
 */
export function checkTruth(truth: unknown, where: string): CheckedTruth {
  const checked = parsed(truthSchema, truth, where);
  const images = unique(checked.images, `${where}: image`);
  const categories = unique(checked.categories, `${where}: category`);
  unique(checked.annotations, `${where}: annotation`);
  for (const { id, image_id, category_id } of checked.annotations) {
    if (!images.has(image_id))
      throw new UserError(`${where}: annotation ${id} belongs to image ${image_id}, which is not listed`);
    if (!categories.has(category_id)) {
      throw new UserError(`${where}: annotation ${id} has category ${category_id}, which is not listed`);
    }
  }
  return checked;
}

/** @throws UserError that names the first entry that is not as COCO has it */
export function checkResults(results: unknown, where: string): CheckedResult[] {
  return parsed(resultsSchema, results, where);
}

/**
 * Run lengths of a segmentation in any of COCO's forms.
 *
 * @param width of the image in pixels
 * @param where what to name in an error
 * @throws UserError for a malformed segmentation, or run lengths of another size than the image
 */
export function segmentationCounts(
  of: CocoSegmentation,
  width: number,
  height: number,
  where: string,
): readonly number[] {
  if (isPolygons(of)) return cocoPolygonCounts(of, width, height, where);
  if (of.size[0] !== height || of.size[1] !== width) {
    throw new UserError(
      `${where}: the run lengths are of an image of ${of.size[1]} × ${of.size[0]} pixels, expected ${width} × ${height}`,
    );
  }
  return cocoRunLengths(of, where);
}

function isPolygons(of: CocoSegmentation): of is readonly (readonly number[])[] {
  return Array.isArray(of);
}

function parsed<T>(schema: z.ZodType<T>, value: unknown, where: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0];
  const at = path.length === 0 ? '' : `, ${path.join('.')}`;
  throw new UserError(`${where}${at} is not as COCO has it: ${message}`);
}

function unique(entries: readonly { id: number }[], what: string): Set<number> {
  const ids = new Set<number>();
  for (const { id } of entries) {
    if (ids.has(id)) throw new UserError(`${what} id ${id} is there twice`);
    ids.add(id);
  }
  return ids;
}
