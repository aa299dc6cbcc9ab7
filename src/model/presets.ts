/** Named models with the training settings that suit them. */
import { UserError } from '../cli/errors.ts';
import { type MaskRCNNConfig, type MaskRCNNOptions, parseConfig } from './config.ts';

export const presetNames = ['tiny', 'resnet50'] as const;
export type PresetName = (typeof presetNames)[number];

export interface PresetOptions {
  /** Classes with the background. */
  numClasses: number;
  /** Pixels of the images as they enter the model (after the data set's resize). */
  inputSize: { width: number; height: number };
  /** Five anchor sides in pixels, finest level first, instead of the preset's. */
  anchors?: readonly number[];
}

/** What `train` uses unless its options say otherwise. */
export interface TrainingDefaults {
  learningRate: number;
  momentum: number;
  weightDecay: number;
  /** Images per step. */
  batchSize: number;
  /** Steps over which the learning rate rises linearly to its value; 0 for none. */
  warmupSteps: number;
  /** For the last `share` of all steps the learning rate is multiplied by `factor`; null for none. */
  finalDecay: { share: number; factor: number } | null;
  /** The gradient of all parameters together is scaled down to this norm; null for no clipping. */
  clipNorm: number | null;
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

const presets: Record<PresetName, { options: (given: PresetOptions) => MaskRCNNOptions; training: TrainingDefaults }> =
  {
    tiny: {
      options: tiny,
      training: {
        learningRate: 0.02,
        momentum: 0.9,
        weightDecay: 1e-4,
        batchSize: 2,
        warmupSteps: 20,
        finalDecay: { share: 0.15, factor: 0.1 },
        clipNorm: 3,
      },
    },
    // The notebook's settings.
    resnet50: {
      options: resnet50,
      training: {
        learningRate: 0.001,
        momentum: 0.9,
        weightDecay: 0.01,
        batchSize: 2,
        warmupSteps: 0,
        finalDecay: null,
        clipNorm: null,
      },
    },
  };

function preset(name: string) {
  const known = presetNames.find((candidate) => candidate === name);
  if (known === undefined) {
    throw new UserError(`There is no preset '${name}', expected one of ${presetNames.join(', ')}.`);
  }
  return presets[known];
}

/** A preset's whole configuration. @throws UserError for an unknown preset, or wrong classes or anchors */
export function presetConfig(name: string, options: PresetOptions): MaskRCNNConfig {
  return parseConfig(preset(name).options(options), `Preset '${name}'`);
}

/** A fresh copy of a preset's training settings. @throws UserError for an unknown preset */
export function trainingDefaults(name: string): TrainingDefaults {
  return structuredClone(preset(name).training);
}
