/** What a file of weights says of its model, or what its shapes tell where it says nothing. Shared with the browser. */
import { UserError } from '../cli/errors.ts';
import { initialThresholds } from '../eval/defaults.ts';
import { COCO_CLASS_COUNT, chooseBatchNormEps, inferArchitecture } from '../model/checkpoints/architecture.ts';
import { COCO_CLASSES } from '../model/checkpoints/cocoClasses.ts';
import type { WeightsFile } from '../model/checkpoints/weightsFile.ts';
import { type MaskRCNNConfig, parseConfig } from '../model/config.ts';
import { presetConfig } from '../model/presets.ts';
import { CHECKPOINT_FORMAT, type CheckpointInfo, parseCheckpointInfo } from './checkpointInfo.ts';

/** What a user tells of weights that other programs wrote. */
export interface ForeignOptions {
  /** Where options that no shape tells (anchors, sizes, detections) come from; torchvision's defaults without it. */
  preset?: string;
  /** Names of the labels 1, 2, …. */
  classes?: readonly string[];
  batchNormEps?: number;
}

export interface WeightsInfo {
  info: CheckpointInfo;
  /** Whether the classes have names of their own: the file's, the user's or COCO's. */
  named: boolean;
  /** Sentences for the user: what was taken for the file, and why. */
  notes: string[];
}

/** Whether a file was written by this program, which tells everything with it. */
export function isOwn({ metadata }: Pick<WeightsFile, 'metadata'>): boolean {
  return metadata.format === CHECKPOINT_FORMAT;
}

/** Images that a preset's anchors are chosen for: the notebook's, as they are. */
const PRESET_INPUT = { width: 704, height: 520 };

function foreignConfig(file: WeightsFile, { preset }: ForeignOptions, batchNormEps: number): MaskRCNNConfig {
  const inferred = inferArchitecture(file);
  if (preset === undefined) return parseConfig({ ...inferred, batchNormEps }, file.path);
  const { numClasses } = inferred;
  return { ...presetConfig(preset, { numClasses, inputSize: PRESET_INPUT }), batchNormEps };
}

/** The name of a class that has none. */
const placeholder = (index: number): string => `class ${index + 1}`;

function givenClasses(file: WeightsFile, given: readonly string[], count: number): string[] {
  if (given.length === count) return [...given];
  throw new UserError(`--classes names ${given.length} classes, but ${file.path} has ${count} besides the background.`);
}

function foreignClasses(file: WeightsFile, given: readonly string[] | undefined, count: number) {
  if (given) return { classes: givenClasses(file, given, count), source: 'as --classes says' };
  if (count === COCO_CLASS_COUNT - 1)
    return { classes: [...COCO_CLASSES], source: "COCO's, as torchvision numbers them" };
  const classes = Array.from({ length: count }, (_, i) => placeholder(i));
  return { classes, source: null };
}

function describe({ block, layers, width, masks, numClasses }: MaskRCNNConfig, classes: string): string {
  const model = masks ? 'Mask R-CNN' : 'Faster R-CNN';
  return `${model} on a ResNet of ${block} blocks [${layers.join(', ')}], width ${width}; ${numClasses - 1} classes (${classes})`;
}

/** What the file says itself; classes may be named anew and the eps corrected. */
function ownInfo(info: CheckpointInfo, file: WeightsFile, given: ForeignOptions): WeightsInfo {
  if (given.preset !== undefined) {
    throw new UserError(`${file.path} tells its architecture itself, --preset is for weights that do not.`);
  }
  const classes = given.classes ? givenClasses(file, given.classes, info.classes.length) : info.classes;
  const named = classes.some((name, i) => name !== placeholder(i));
  if (given.batchNormEps === undefined) return { info: { ...info, classes }, named, notes: [] };
  const { eps: batchNormEps, why } = chooseBatchNormEps(file, given.batchNormEps);
  return { info: { ...info, classes, config: { ...info.config, batchNormEps } }, named, notes: [why] };
}

/**
 * Architecture and classes of a file: from the metadata that this program writes; for others from the tensors' names and shapes,
 * with torchvision's defaults for all that these do not tell.
 * @throws UserError when the file is no detector, or what the user says contradicts it
 */
export function weightsInfo(file: WeightsFile, given: ForeignOptions = {}): WeightsInfo {
  if (isOwn(file)) return ownInfo(parseCheckpointInfo(file.metadata, file.path), file, given);
  const { eps, why } = chooseBatchNormEps(file, given.batchNormEps);
  const config = foreignConfig(file, given, eps);
  const { classes, source } = foreignClasses(file, given.classes, config.numClasses - 1);
  return {
    info: { config, classes, resize: 1, thresholds: initialThresholds(classes), epoch: 0 },
    named: source !== null,
    notes: [
      `${file.path} (${file.form}) tells no architecture; by its shapes it is a ${describe(config, source ?? 'give their names with --classes')}. Anchors and sizes are ${given.preset === undefined ? "torchvision's" : `those of --preset ${given.preset}`}.`,
      why,
    ],
  };
}
