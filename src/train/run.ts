import { UserError } from '../cli/errors.ts';
import { checkResize } from '../data/checkResize.ts';
import { type Dataset, openDataset, resizedSide } from '../data/dataset.ts';
import { Random } from '../data/random.ts';
import { type Split, stratifiedSplit } from '../data/split.ts';
import { initialThresholds } from '../eval/defaults.ts';
import type { Thresholds } from '../eval/thresholds.ts';
import { MaskRCNN } from '../model/maskRcnn.ts';
import { presetConfig } from '../model/presets.ts';
import type { StateSource } from '../model/stateDict.ts';
import type { Device } from '../tensor/device.ts';
import { type CheckpointInfo, openCheckpoint, stateSource } from './checkpoint.ts';
import type { TrainOptions } from './options.ts';

/** The files of a run's folder. */
export const RUN_FILES = {
  config: 'config.json',
  metrics: 'metrics.jsonl',
  best: 'best.safetensors',
  state: 'state.safetensors',
  checkpoints: 'checkpoints',
  environment: 'environment.json',
  scores: 'scores.json',
  panels: 'panels',
  report: 'report.html',
} as const;

/** Everything a run works with. */
export interface Run {
  options: TrainOptions;
  dataset: Dataset;
  split: Split;
  model: MaskRCNN;
  /** The run's folder. */
  out: string;
  /** Thresholds of the competition score while training. */
  thresholds: Thresholds;
}

/**
 * Opens the data, splits it, declares the model and compares the weights to start from with it. It needs no device and writes
 * nothing: `allocateRun` comes next. @throws UserError for whatever is wrong with the input
 */
export function planRun(options: TrainOptions, dataDir: string, out: string): Run {
  const dataset = openDataset(dataDir, { competitionClasses: options.competitionClasses });
  checkResize(dataset.images, options.resize);
  const split = stratifiedSplit(dataset.images, options.validation, new Random(options.seed));
  for (const [part, what] of [
    [split.train, 'train on'],
    [split.validation, 'validate on'],
  ] as const) {
    if (part.length > 0) continue;
    throw new UserError(
      `${dataDir}: a validation share of ${options.validation} of its ${dataset.images.length} images leaves none to ${what}, expected two images or more of a cell type.`,
    );
  }
  const side = (key: 'width' | 'height'): number =>
    Math.max(...dataset.images.map((image) => resizedSide(image[key], options.resize)));
  const config = presetConfig(options.preset, {
    numClasses: dataset.classes.length + 1,
    inputSize: { width: side('width'), height: side('height') },
    anchors: options.anchors ?? undefined,
  });
  const model = new MaskRCNN(config);
  const run = { options, dataset, split, model, out, thresholds: initialThresholds(dataset.classes) };
  openWeights(run)?.close();
  // Such an image alone in a batch (an epoch's last may hold one) leaves a batch norm a single value per channel.
  const tooSmall = dataset.images.find(
    ({ width, height }) => resizedSide(Math.max(width, height), options.resize) <= config.sizeDivisible,
  );
  if (config.norm === 'batch' && tooSmall) {
    throw new UserError(
      `${tooSmall.path} (${tooSmall.width} × ${tooSmall.height}) is too small at --resize ${options.resize}, expected a longer side above ${config.sizeDivisible} pixels after it.`,
    );
  }
  return run;
}

/** The file of weights to start from, compared with the model; null when it starts from initial values. */
function openWeights({ options, model }: Run): (StateSource & { close(): void }) | null {
  if (options.weights === null) return null;
  const { file } = openCheckpoint(options.weights);
  try {
    return Object.assign(stateSource(file, model.state), { close: () => file.close() });
  } catch (error) {
    file.close();
    throw error;
  }
}

/** Puts the model of a planned run on the device, with the weights to start from or values drawn from the seed. */
export async function allocateRun(run: Run, device: Device): Promise<void> {
  const weights = openWeights(run);
  try {
    await run.model.allocate(device, new Random(run.options.seed), weights ?? undefined);
  } finally {
    weights?.close();
  }
}

/** What a checkpoint of the run says beside its weights. */
export function checkpointInfo({ model, dataset, options, thresholds }: Run, epoch: number): CheckpointInfo {
  return { config: model.config, classes: dataset.classes, resize: options.resize, thresholds, epoch };
}
