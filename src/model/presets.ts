/** Named models with the training settings and the handling of data that suit them. */
import { UserError } from '../cli/errors.ts';
import { nearestName } from '../cli/nearest.ts';
import { type MaskRCNNConfig, type MaskRCNNOptions, type ModelOverrides, parseConfig } from './config.ts';

export const presetNames = ['tiny', 'resnet50', 'resnet50-v2', 'sartorius-v51', 'sartorius-fasterrcnn'] as const;
export type PresetName = (typeof presetNames)[number];

export interface PresetOptions {
  /** Classes with the background. */
  numClasses: number;
  /** Pixels of the images as they enter the model (after the data set's resize). */
  inputSize: { width: number; height: number };
  /** Five anchor sides in pixels, finest level first, instead of the preset's or `overrides.anchorSizes`. */
  anchors?: readonly number[];
  /** Options of the model that win over the preset's. */
  overrides?: ModelOverrides;
  /** The notebook's NORMALIZE flag, see `normalizedTwice`. */
  normalize?: boolean;
}

/** What `train` uses unless its options say otherwise. */
export interface TrainingDefaults {
  learningRate: number;
  momentum: number;
  weightDecay: number;
  /** Images per step. */
  batchSize: number;
  /** Passes over a user's own training images. */
  epochs: number;
  /** Steps over which the learning rate rises linearly to its value; 0 for none. */
  warmupSteps: number;
  /** For the last `share` of all steps the learning rate is multiplied by `factor`; null for none. */
  finalDecay: { share: number; factor: number } | null;
  /** The gradient of all parameters together is scaled down to this norm; null for no clipping. */
  clipNorm: number | null;
  /** Compute the activations of the backbone's layers again in the backward pass, instead of keeping them. */
  checkpointActivations: boolean;
  /** Choose thresholds on the validation images at the end; else those before any tuning stay. */
  tune: boolean;
}

/** How a preset reads images. */
export interface DataDefaults {
  /** Factor by which images and masks are resized when loaded, the notebook's `resize_factor`. */
  resize: number;
  /** The same for images to predict; null: as `resize`. */
  predictResize: number | null;
  /** Share of a user's images that are kept for validation. */
  validation: number;
  /** How they are chosen: every cell type on both sides, or image for image as the notebook's `train_test_split`. */
  split: 'balanced' | 'notebook';
  /** Label astro 1, cort 2, shsy5y 3 as the notebook's `cell_type_dict`. */
  competitionClasses: boolean;
  /** Without `--data` the competition's folder is looked for (`findCompetitionData`) instead of painting synthetic cells. */
  competitionData: boolean;
}

interface Preset {
  model: (given: PresetOptions) => MaskRCNNOptions;
  /** Options of the model in a run that starts from random weights. */
  untrained?: ModelOverrides;
  training: TrainingDefaults;
  data: DataDefaults;
}

/**
 * Anchor sides of `tiny`, which has no resize of its own to bring cells to a known size: the smallest is the power of
 * two nearest (by ratio) to a sixteenth of the shorter side, but at least 4, the finest map's stride; each further level
 * doubles it. 176x130 has 8 … 128, 352x260 has 16 … 256, 704x520 has 32 … 512, torchvision's.
 */
function tinyAnchorSizes({ width, height }: { width: number; height: number }): number[] {
  const exponent = Math.max(2, Math.round(Math.log2(Math.min(width, height) / 16)));
  return [0, 1, 2, 3, 4].map((level) => 2 ** (exponent + level));
}

/** A small model that learns from random weights within minutes on a software adapter. */
function tiny({ numClasses, inputSize, anchors }: PresetOptions): MaskRCNNOptions {
  const anchorSizes = anchors ? [...anchors] : tinyAnchorSizes(inputSize);
  return {
    block: 'basic',
    layers: [1, 1, 1, 1],
    width: 16,
    norm: 'batch',
    fpnChannels: 32,
    anchorSizes,
    representationSize: 64,
    maskLayers: [32, 32],
    maskDimReduced: 32,
    numClasses,
    minSize: null,
    maxSize: null,
    imageMean: [0.5, 0.5, 0.5],
    imageStd: [0.1, 0.1, 0.1],
    rpnPreNmsTopNTrain: 600,
    rpnPreNmsTopNTest: 600,
    rpnPostNmsTopNTrain: 300,
    rpnPostNmsTopNTest: 300,
    rpnBatchSizePerImage: 64,
    boxBatchSizePerImage: 64,
    // torchvision's proportion of 224 to its smallest anchor of 32, so that RoIs spread over the levels as there.
    canonicalScale: 7 * anchorSizes[0],
  };
}

/** torchvision's `maskrcnn_resnet50_fpn` with the notebook's 540 detections. */
function resnet50({ numClasses, anchors }: PresetOptions): MaskRCNNOptions {
  return {
    block: 'bottleneck',
    layers: [3, 4, 6, 3],
    width: 64,
    norm: 'frozen',
    numClasses,
    boxDetectionsPerImg: 540,
    ...(anchors && { anchorSizes: [...anchors] }),
  };
}

/** torchvision's `maskrcnn_resnet50_fpn_v2` with the notebook's 540 detections. */
function resnet50V2(given: PresetOptions): MaskRCNNOptions {
  return {
    ...resnet50(given),
    norm: 'batch',
    headNorm: 'batch',
    rpnConvDepth: 2,
    boxConvLayers: [256, 256, 256, 256],
  };
}

/** The notebook's optimizer: SGD without warm-up, schedule or clipping. */
const NOTEBOOK_TRAINING: TrainingDefaults = {
  learningRate: 0.001,
  momentum: 0.9,
  weightDecay: 0.01,
  batchSize: 2,
  epochs: 8,
  warmupSteps: 0,
  finalDecay: null,
  clipNorm: null,
  checkpointActivations: false,
  tune: true,
};

const OWN_DATA: DataDefaults = {
  resize: 0.5,
  predictResize: null,
  validation: 0.15,
  split: 'balanced',
  competitionClasses: false,
  competitionData: false,
};

/** The notebook trains on images at half their size, and its `CellTestDataset` is made without a resize. */
const NOTEBOOK_DATA: DataDefaults = {
  resize: 0.5,
  predictResize: 1,
  validation: 0.075,
  split: 'notebook',
  competitionClasses: true,
  competitionData: true,
};

/** torchvision builds its backbone with BatchNorm2d instead of constants where no weights are loaded. */
const UNTRAINED: ModelOverrides = { norm: 'batch' };

const presets: Record<PresetName, Preset> = {
  tiny: {
    model: tiny,
    training: {
      learningRate: 0.02,
      momentum: 0.9,
      weightDecay: 1e-4,
      batchSize: 2,
      epochs: 12,
      warmupSteps: 20,
      finalDecay: { share: 0.15, factor: 0.1 },
      clipNorm: 3,
      checkpointActivations: false,
      tune: true,
    },
    data: OWN_DATA,
  },
  resnet50: { model: resnet50, training: NOTEBOOK_TRAINING, data: OWN_DATA },
  'resnet50-v2': { model: resnet50V2, training: NOTEBOOK_TRAINING, data: OWN_DATA },
  // Version 51 of the notebook. Its NUM_EPOCHS has since been lowered; its training loop still speaks of 30, as does its log.
  'sartorius-v51': {
    model: resnet50,
    untrained: UNTRAINED,
    training: { ...NOTEBOOK_TRAINING, epochs: 30, tune: false },
    data: NOTEBOOK_DATA,
  },
  // The notebook as it stands: the mask branch commented out, NUM_EPOCHS = 2 on Kaggle.
  'sartorius-fasterrcnn': {
    model: (given) => ({ ...resnet50(given), masks: false }),
    untrained: UNTRAINED,
    training: { ...NOTEBOOK_TRAINING, epochs: 2, tune: false },
    data: NOTEBOOK_DATA,
  },
};

/**
 * @param where begins the sentence of an error: a file that names the preset
 * @throws UserError with the presets that there are, and the one that was most likely meant
 */
export function checkPreset(name: string, where?: string): PresetName {
  const known = presetNames.find((candidate) => candidate === name);
  if (known !== undefined) return known;
  const nearest = nearestName(name, presetNames);
  const begin = where === undefined ? 'There' : `${where}: there`;
  const end = nearest === undefined ? '.' : `; did you mean '${nearest}'?`;
  throw new UserError(`${begin} is no preset '${name}', expected one of ${presetNames.join(', ')}${end}`);
}

const IMAGENET_MEAN = [0.485, 0.456, 0.406];
const IMAGENET_STD = [0.229, 0.224, 0.225];

/**
 * Mean and standard deviation by which one normalisation does the work of two. With the notebook's NORMALIZE its `Normalize`
 * transform subtracts ImageNet's mean and divides by its deviation, for training, validation and test images alike, and the model,
 * which is given the same numbers, does so once more: ((x - m) / s - m') / s' = (x - (m + s m')) / (s s').
 *
 * @param mean the model's own, m'; @param std s'
 */
export function normalizedTwice(
  mean: readonly number[] = IMAGENET_MEAN,
  std: readonly number[] = IMAGENET_STD,
): { imageMean: number[]; imageStd: number[] } {
  return {
    imageMean: IMAGENET_MEAN.map((value, i) => value + IMAGENET_STD[i] * mean[i]),
    imageStd: IMAGENET_STD.map((value, i) => value * std[i]),
  };
}

/**
 * A preset's whole configuration. @throws UserError for an unknown preset, wrong classes or anchors, or overrides that do not
 * fit together
 */
export function presetConfig(name: string, options: PresetOptions): MaskRCNNConfig {
  const { overrides = {}, normalize = false } = options;
  const anchors = options.anchors ?? overrides.anchorSizes;
  const model = { ...presets[checkPreset(name)].model({ ...options, anchors }), ...overrides };
  if (anchors) model.anchorSizes = [...anchors];
  const where = `Preset '${name}'${Object.keys(overrides).length > 0 ? " with the options of 'model'" : ''}`;
  const config = parseConfig(model, where);
  return normalize ? { ...config, ...normalizedTwice(overrides.imageMean, overrides.imageStd) } : config;
}

/** A fresh copy of what a preset says of training and data. @throws UserError for an unknown preset */
export function presetDefaults(name: string): {
  training: TrainingDefaults;
  data: DataDefaults;
  untrained: ModelOverrides;
} {
  const { training, data, untrained = {} } = presets[checkPreset(name)];
  return structuredClone({ training, data, untrained });
}
