import { type Dataset, openDataset, resizedSide } from '../data/dataset.ts';
import { Random } from '../data/random.ts';
import { type Split, stratifiedSplit } from '../data/split.ts';
import { initialThresholds } from '../eval/defaults.ts';
import type { Thresholds } from '../eval/thresholds.ts';
import { MaskRCNN } from '../model/maskRcnn.ts';
import { presetConfig } from '../model/presets.ts';
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

/** Opens the data, splits it and builds the model; writes nothing. @throws UserError for whatever is wrong with them */
export async function prepareRun(options: TrainOptions, dataDir: string, out: string, device: Device): Promise<Run> {
  const dataset = openDataset(dataDir, { competitionClasses: options.competitionClasses });
  const split = stratifiedSplit(dataset.images, options.validation, new Random(options.seed));
  const side = (key: 'width' | 'height'): number =>
    Math.max(...dataset.images.map((image) => resizedSide(image[key], options.resize)));
  const config = presetConfig(options.preset, {
    numClasses: dataset.classes.length + 1,
    inputSize: { width: side('width'), height: side('height') },
    anchors: options.anchors ?? undefined,
  });
  const model = new MaskRCNN(config);
  const weights = options.weights === null ? null : openCheckpoint(options.weights);
  try {
    await model.allocate(
      device,
      new Random(options.seed),
      weights ? stateSource(weights.file, model.state) : undefined,
    );
  } finally {
    weights?.file.close();
  }
  return { options, dataset, split, model, out, thresholds: initialThresholds(dataset.classes) };
}

/** What a checkpoint of the run says beside its weights. */
export function checkpointInfo({ model, dataset, options, thresholds }: Run, epoch: number): CheckpointInfo {
  return { config: model.config, classes: dataset.classes, resize: options.resize, thresholds, epoch };
}
