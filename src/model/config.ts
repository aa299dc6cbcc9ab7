/** The model's options: torchvision's `MaskRCNN` arguments, camelCased, plus the shape of its ResNet and FPN. */
import * as z from 'zod';
import { UserError } from '../cli/errors.ts';
import { suggestion } from '../cli/nearest.ts';

/** Each message completes the sentence "option x must be …". */
function number(expected: string, holds: (value: number) => boolean) {
  return z.custom<number>((value) => typeof value === 'number' && Number.isFinite(value) && holds(value), expected);
}
function integer(least: number) {
  return number(`an integer of at least ${least}`, (value) => Number.isSafeInteger(value) && value >= least);
}
function list<T>(item: z.ZodType<T, T>, what: string, length?: number) {
  const expected = length === undefined ? `an array of one or more ${what}` : `an array of ${length} ${what}`;
  const array = z.array(item, expected);
  return length === undefined ? array.min(1, expected) : array.length(length, expected);
}
const positive = number('a number above 0', (value) => value > 0);
const finite = number('a number', () => true);
const fraction = number('a number from 0 to 1', (value) => value >= 0 && value <= 1);
const size = integer(1).nullable();

const configOptions = z.strictObject({
  /** The ResNet's residual block. */
  block: z.enum(['basic', 'bottleneck'], "'basic' or 'bottleneck'"),
  /** Blocks in each of the four stages; [3, 4, 6, 3] is ResNet-50 with bottlenecks. */
  layers: list(integer(1), 'integers of at least 1', 4),
  /** Channels of the stem; 64 in the stock ResNets. */
  width: integer(1),
  /** `frozen`: FrozenBatchNorm2d, constants; `batch`: BatchNorm2d with running statistics, for random weights. */
  norm: z.enum(['frozen', 'batch'], "'frozen' or 'batch'"),
  /** Added to the variance; 0 for torchvision's published COCO_V1 weights and what was fine-tuned from them. */
  batchNormEps: number('a number of at least 0', (value) => value >= 0).default(1e-5),
  fpnChannels: integer(1).default(256),
  /** Side of the square anchor in pixels of the network's input, one per pyramid level, finest first. */
  anchorSizes: list(positive, 'numbers above 0', 5).default([32, 64, 128, 256, 512]),
  /** Height / width of the anchors of each level. */
  aspectRatios: list(positive, 'numbers above 0').default([0.5, 1, 2]),
  /**
   * `batch`: BatchNorm2d behind each convolution of the pyramid, the box head and the mask head, which then have no bias
   * (`maskrcnn_resnet50_fpn_v2`).
   */
  headNorm: z.enum(['none', 'batch'], "'none' or 'batch'").default('none'),
  /** 3x3 convolutions of the RPN before its predictors. */
  rpnConvDepth: integer(1).default(1),
  /** Channels of each 3x3 convolution of the box head (FastRCNNConvFCHead); empty for torchvision's TwoMLPHead. */
  boxConvLayers: z.array(integer(1), 'an array of integers of at least 1').default([]),
  /** Width of the box head's linear layers: two of them, or one behind its convolutions. */
  representationSize: integer(1).default(1024),
  /** false: the box-only Faster R-CNN. */
  masks: z.boolean('true or false').default(true),
  /** Channels of each 3x3 convolution of the mask head. */
  maskLayers: list(integer(1), 'integers of at least 1').default([256, 256, 256, 256]),
  /** Channels of the mask predictor's transposed convolution. */
  maskDimReduced: integer(1).default(256),
  /** Classes with the background, which is class 0. */
  numClasses: integer(2),
  /** Images are resized to this shorter side, unless the longer would pass `maxSize`; null (both): no resize. */
  minSize: size.default(800),
  maxSize: size.default(1333),
  /** Per channel, of pixels in 0 to 1. */
  imageMean: list(finite, 'numbers', 3).default([0.485, 0.456, 0.406]),
  imageStd: list(positive, 'numbers above 0', 3).default([0.229, 0.224, 0.225]),
  /** Batches are padded to a multiple of this many pixels. */
  sizeDivisible: integer(1).default(32),
  /** Proposals per level before non-maximum suppression. */
  rpnPreNmsTopNTrain: integer(1).default(2000),
  rpnPreNmsTopNTest: integer(1).default(1000),
  /** Proposals per image after it. */
  rpnPostNmsTopNTrain: integer(1).default(2000),
  rpnPostNmsTopNTest: integer(1).default(1000),
  rpnNmsThresh: fraction.default(0.7),
  /** An anchor is positive from this IoU on, negative below `rpnBgIouThresh`, and ignored between. */
  rpnFgIouThresh: fraction.default(0.7),
  rpnBgIouThresh: fraction.default(0.3),
  /** Anchors sampled per image for the loss, and the largest share of positives among them. */
  rpnBatchSizePerImage: integer(1).default(256),
  rpnPositiveFraction: fraction.default(0.5),
  /** Proposals of lower objectness (after the sigmoid) are dropped. */
  rpnScoreThresh: fraction.default(0),
  /** Detections must score more than this. */
  boxScoreThresh: fraction.default(0.05),
  boxNmsThresh: fraction.default(0.5),
  boxDetectionsPerImg: integer(1).default(100),
  /** A proposal is positive from this IoU on, background below `boxBgIouThresh`. */
  boxFgIouThresh: fraction.default(0.5),
  boxBgIouThresh: fraction.default(0.5),
  /** Proposals sampled per image for the loss, and the largest share of positives among them. */
  boxBatchSizePerImage: integer(1).default(512),
  boxPositiveFraction: fraction.default(0.25),
  /** Multi-scale ROIAlign: a RoI of this side in pixels is pooled from level `canonicalLevel` (4 is stride 16). */
  canonicalScale: positive.default(224),
  canonicalLevel: integer(1).default(4),
});

const configSchema = configOptions
  .refine((config) => (config.minSize === null) === (config.maxSize === null), {
    path: ['maxSize'],
    error: 'null exactly where minSize is',
  })
  .refine((config) => config.rpnBgIouThresh <= config.rpnFgIouThresh, {
    path: ['rpnBgIouThresh'],
    error: 'at most rpnFgIouThresh',
  })
  .refine((config) => config.boxBgIouThresh <= config.boxFgIouThresh, {
    path: ['boxBgIouThresh'],
    error: 'at most boxFgIouThresh',
  });

/** All options, none left out. Plain JSON. */
export type MaskRCNNConfig = z.output<typeof configSchema>;
/** As `MaskRCNNConfig`, but options with a default (torchvision's) may be left out. */
export type MaskRCNNOptions = z.input<typeof configSchema>;

/** Options that a user sets over those of a preset. The number of classes is not among them: it follows from the data. */
export type ModelOverrides = Partial<Omit<MaskRCNNOptions, 'numClasses'>>;

/** `layers[2]` of ['layers', 2]. */
function optionName(path: readonly PropertyKey[]): string {
  return path.map((key, i) => (typeof key === 'number' ? `[${key}]` : (i > 0 ? '.' : '') + String(key))).join('');
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((at, key) => (at as Record<PropertyKey, unknown> | undefined)?.[key], value);
}

/** The first fault in one sentence, unknown names before missing ones. @param prefix stands before the names of options */
function explain({ issues }: z.ZodError, value: unknown, where: string, prefix = ''): string {
  const issue = issues.find(({ code }) => code === 'unrecognized_keys') ?? issues[0];
  if (issue.path.length === 0) {
    if (issue.code !== 'unrecognized_keys') return `${where}: expected an object with the model's options.`;
    const names = Object.keys(configOptions.shape).map((name) => prefix + name);
    const unknown = prefix + issue.keys[0];
    return `${where}: unknown option '${unknown}'${prefix === '' ? ' of the model' : ''}${suggestion(unknown, names)}`;
  }
  const got = valueAt(value, issue.path);
  const found = got === undefined ? 'but it is missing' : `got ${typeof got === 'number' ? got : JSON.stringify(got)}`;
  return `${where}: option ${prefix}${optionName(issue.path)} must be ${issue.message}, ${found}.`;
}

/**
 * Checks options and fills in torchvision's defaults; `block`, `layers`, `width`, `norm` and `numClasses` have none.
 * @param where what is being read, to begin the sentence of an error (a file, an option of the command line)
 * @throws UserError naming the first option that is unknown, missing or wrong
 */
export function parseConfig(value: unknown, where: string): MaskRCNNConfig {
  const result = configSchema.safeParse(value);
  if (result.success) return result.data;
  throw new UserError(explain(result.error, value, where));
}

/**
 * Checks each option of the `model` object of a training configuration on its own. What options say of each other is checked by
 * `parseConfig`, once they are joined with a preset's.
 * @param where the file or option, to begin the sentence of an error
 * @returns the options that were given, no defaults
 * @throws UserError naming the first option that is unknown (with the nearest that there is) or wrong
 */
export function parseModelOverrides(value: unknown, where: string): ModelOverrides {
  if (typeof value === 'object' && value !== null && 'numClasses' in value) {
    throw new UserError(`${where}: option model.numClasses follows from the cell types of the data, expected none.`);
  }
  const result = configOptions.omit({ numClasses: true }).partial().safeParse(value);
  if (!result.success) throw new UserError(explain(result.error, value, where, 'model.'));
  // As given: the parsed object has torchvision's defaults in it, which would hide a preset's.
  return structuredClone(value) as ModelOverrides;
}
