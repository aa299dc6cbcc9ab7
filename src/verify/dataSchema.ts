/** What `data.json` and `data.safetensors` hold; the goldens' README tells what the values mean. */
import { z } from 'zod';

const count = z.int().min(0);
const side = z.int().positive();
const shape = z.tuple([side, side]);
const texts = z.array(z.string());
const numbers = z.array(z.number());
const indices = z.array(count);
/** Null stands for NaN: the deviation of a single value. */
const figure = z
  .number()
  .nullable()
  .transform((value) => value ?? Number.NaN);

const described = z.looseObject({
  count: figure,
  mean: figure,
  std: figure,
  min: figure,
  '25%': figure,
  '50%': figure,
  '75%': figure,
  max: figure,
});

const label = z.union([z.string(), z.number()]);
const number = z.number();

const boxAPSchema = z.looseObject({
  /** image, label, xmin, xmax, ymin, ymax */
  annotations: z.array(z.tuple([label, label, number, number, number, number])),
  /** image, label, score, xmin, xmax, ymin, ymax */
  predictions: z.array(z.tuple([label, label, number, number, number, number, number])),
  /** By IoU threshold. */
  meanAveragePrecisionForBoxes: z.record(
    z.string(),
    z.looseObject({ mAP: number, perClass: z.record(z.string(), z.tuple([number, number])) }),
  ),
  computeMAP: z.looseObject({ nClasses: side, mAP: number, perThreshold: numbers }),
});

const iouMapSchema = z.looseObject({
  shape,
  images: z.array(z.looseObject({ truth: texts, predicted: texts, score: number, perThreshold: numbers })),
  score: number,
});

/** COCO's own forms are checked by the evaluation, which names their entries. */
const anything = z.custom<unknown>((value) => value !== undefined, 'expected a value');

const cocoSchema = z.looseObject({
  truth: z.looseObject({ images: anything, annotations: anything, categories: anything }),
  detections: z.array(anything),
  stats: z.looseObject({ segm: numbers.length(12), bbox: numbers.length(12) }),
});

export const dataSchema = z.looseObject({
  /** Of the generator that made the inputs; not needed. */
  seed: number.optional(),
  rle: z.looseObject({ shape, masks: z.array(z.looseObject({ rle: z.string(), area: count })) }),
  rleSmall: z.array(z.looseObject({ mask: z.array(z.array(count).min(1)).min(1), rle: z.string() })),
  /** `shape` is that of `resizeMask.in` too. */
  removeOverlaps: z.looseObject({ shape, in: texts, out: texts }),
  resizeMask: z.looseObject({ in: texts }),
  /** Of the resized masks: xmin, ymin, xmax, ymax. */
  boxes: z.array(z.tuple([count, count, count, count])),
  split: z.array(z.looseObject({ testSize: number.positive(), randomState: count, train: indices, test: indices })),
  /** The type of each image that `split` divides and `describe` counts. */
  splitTypes: texts,
  describe: z.looseObject({
    counts: numbers,
    byType: z.record(z.string(), described),
    qcut5Edges: z.record(z.string(), numbers),
  }),
  boxAP: z.array(boxAPSchema),
  iouMap: z.array(iouMapSchema),
  coco: z.array(cocoSchema),
});

export type DataValues = z.output<typeof dataSchema>;

/** Tensors of `data.safetensors`. */
export const DATA_TENSORS: readonly string[] = [
  'combine.in',
  'combine.out',
  'resize.image.in',
  'resize.image.out',
  'resize.image.out_odd',
  'resize.image.out_up',
  'resize.mask.out',
];
