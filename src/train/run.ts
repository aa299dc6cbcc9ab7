import { UserError } from '../cli/errors.ts';
import { checkResize } from '../data/checkResize.ts';
import { type Dataset, openDataset, resizedSide } from '../data/dataset.ts';
import { Random } from '../data/random.ts';
import type { Split } from '../data/split.ts';
import { TEST_MODE_ROWS } from '../data/table.ts';
import { initialThresholds } from '../eval/defaults.ts';
import type { Thresholds } from '../eval/thresholds.ts';
import { MaskRCNN } from '../model/maskRcnn.ts';
import { presetConfig } from '../model/presets.ts';
import type { StateSource } from '../model/stateDict.ts';
import type { Device } from '../tensor/device.ts';
import { type CheckpointInfo, openCheckpoint, stateSource } from './checkpoint.ts';
import { chooseSplit } from './chooseSplit.ts';
import type { TrainOptions } from './options.ts';

/** The files of a run's folder. */
export const RUN_FILES = {
  config: 'config.json',
  split: 'split.json',
  metrics: 'metrics.jsonl',
  best: 'best.safetensors',
  state: 'state.safetensors',
  checkpoints: 'checkpoints',
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

/** Opens and splits the data of a run: the same options on the same folder give the same split. @throws UserError */
export function openRunData(options: TrainOptions, dataDir: string): { dataset: Dataset; split: Split } {
  const dataset = openDataset(dataDir, {
    competitionClasses: options.competitionClasses,
    maxRows: options.testMode ? TEST_MODE_ROWS : undefined,
  });
  checkResize(dataset.images, options.resize);
  const split = chooseSplit(dataset, options);
  return { dataset, split };
}

/**
 * Opens the data, splits it, declares the model and compares the weights to start from with it. It needs no device and writes
 * nothing: `allocateRun` comes next. @throws UserError for whatever is wrong with the input
 */
export function planRun(options: TrainOptions, dataDir: string, out: string): Run {
  const { dataset, split } = openRunData(options, dataDir);
  const side = (key: 'width' | 'height'): number =>
    Math.max(...dataset.images.map((image) => resizedSide(image[key], options.resize)));
  const config = presetConfig(options.preset, {
    numClasses: dataset.classes.length + 1,
    inputSize: { width: side('width'), height: side('height') },
    anchors: options.anchors ?? undefined,
    overrides: options.model,
    normalize: options.normalize,
  });
  const model = new MaskRCNN(config);
  model.freezeBackbone(options.trainableLayers);
  const run = { options, dataset, split, model, out, thresholds: initialThresholds(dataset.classes) };
  openWeights(run)?.close();
  // Such an image alone in a batch (an epoch's last may hold one) leaves a batch norm a single value per channel.
  const least = (side: number, cut: 0 | 1): number =>
    Math.min(
      Math.floor(resizedSide(side, options.resize) * (options.scaleJitter?.[0] ?? 1)),
      options.crop?.[cut] ?? Number.POSITIVE_INFINITY,
    );
  const tooSmall = dataset.images.find(
    ({ width, height }) => Math.max(least(width, 0), least(height, 1)) <= config.sizeDivisible,
  );
  if (config.norm === 'batch' && tooSmall) {
    const changes = `--resize ${options.resize}${options.scaleJitter ? ', --scale-jitter' : ''}${options.crop ? ', --crop' : ''}`;
    throw new UserError(
      `${tooSmall.path} (${tooSmall.width} × ${tooSmall.height}) is too small at ${changes}, expected a longer side above ${config.sizeDivisible} pixels after it.`,
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
  const { resize, predictResize } = options;
  const info = { config: model.config, classes: dataset.classes, resize, thresholds, epoch };
  return predictResize === null ? info : { ...info, predictResize };
}
