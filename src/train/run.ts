import { UserError } from '../cli/errors.ts';
import { checkResize } from '../data/checkResize.ts';
import { type Dataset, resizedSide } from '../data/dataset.ts';
import { Random } from '../data/random.ts';
import type { Split } from '../data/split.ts';
import { TEST_MODE_ROWS } from '../data/table.ts';
import { initialThresholds } from '../eval/defaults.ts';
import type { Thresholds } from '../eval/thresholds.ts';
import { chooseBatchNormEps } from '../model/checkpoints/architecture.ts';
import { type Match, matchedSource, matchWeights } from '../model/checkpoints/match.ts';
import type { WeightsFile } from '../model/checkpoints/weightsFile.ts';
import { MaskRCNN } from '../model/maskRcnn.ts';
import { type PresetName, type PresetOptions, presetConfig, presetNames } from '../model/presets.ts';
import type { StateDict } from '../model/stateDict.ts';
import type { Device } from '../tensor/device.ts';
import { type CheckpointInfo, parseCheckpointInfo } from './checkpointInfo.ts';
import { chooseSplit } from './chooseSplit.ts';
import { openDatasetShown } from './openData.ts';
import type { TrainOptions } from './options.ts';
import { isOwn } from './weightsInfo.ts';

/** The files of a run's folder. */
export const RUN_FILES = {
  config: 'config.json',
  split: 'split.json',
  metrics: 'metrics.jsonl',
  best: 'best.safetensors',
  state: 'state.safetensors',
  checkpoints: 'checkpoints',
  environment: 'environment.json',
  scores: 'scores.json',
  panels: 'panels',
  report: 'report.html',
  /** Of `train --profile`: the tables, and the trace for Perfetto. */
  profile: 'profile.json',
  trace: 'trace.json',
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
  /** The weights to start from, compared with the model; null when it starts from initial values. */
  start: { file: WeightsFile; match: Match } | null;
  /** What the user should know of them. */
  notes: string[];
}

/** Opens and splits the data of a run: the same options on the same folder give the same split. @throws UserError */
export function openRunData(options: TrainOptions, dataDir: string): { dataset: Dataset; split: Split } {
  const dataset = openDatasetShown(dataDir, {
    competitionClasses: options.competitionClasses,
    maxRows: options.testMode ? TEST_MODE_ROWS : undefined,
  });
  checkResize(dataset.images, options.resize);
  const split = chooseSplit(dataset, options);
  return { dataset, split };
}

/**
 * Opens the data, splits it, declares the model and compares the weights to start from with it. It needs no device and writes
 * nothing: `allocateRun` comes next.
 *
 * @param weights the opened file of `given.weights`
 * @throws UserError for whatever is wrong with the input
 */
export function planRun(given: TrainOptions, dataDir: string, out: string, weights: WeightsFile | null = null): Run {
  if ((given.weights !== null) !== (weights !== null)) {
    throw new Error('planRun: the file of options.weights must be given opened.');
  }
  const { dataset, split } = openRunData(given, dataDir);
  const side = (key: 'width' | 'height'): number =>
    Math.max(...dataset.images.map((image) => resizedSide(image[key], given.resize)));
  const presetOptions = {
    numClasses: dataset.classes.length + 1,
    inputSize: { width: side('width'), height: side('height') },
    anchors: given.anchors ?? undefined,
    overrides: given.model,
    normalize: given.normalize,
  };
  const preset = presetConfig(given.preset, presetOptions);
  const norm = batchNormEps(given, preset.batchNormEps, weights);
  // Kept in the run's options, since a resumed run starts from its own state.
  const options = { ...given, batchNormEps: norm.eps };
  const config = { ...preset, batchNormEps: norm.eps };
  const model = new MaskRCNN(config);
  model.freezeBackbone(options.trainableLayers);
  model.precision = options.precision;
  model.checkpointActivations = options.checkpointActivations;
  const start = weights && { file: weights, match: matchStart(weights, model, options.preset, presetOptions) };
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
  const thresholds = initialThresholds(dataset.classes);
  const notes = [...norm.notes, ...(start?.match.notes ?? [])];
  return { options, dataset, split, model, out, thresholds, start, notes };
}

/** The eps of the batch norms: the user's, else what the weights need, else the preset's. */
function batchNormEps(
  options: TrainOptions,
  ofPreset: number,
  weights: WeightsFile | null,
): { eps: number; notes: string[] } {
  const given = options.batchNormEps ?? options.model.batchNormEps;
  if (weights === null) return { eps: given ?? ofPreset, notes: [] };
  if (isOwn(weights) && given === undefined) {
    return { eps: parseCheckpointInfo(weights.metadata, weights.path).config.batchNormEps, notes: [] };
  }
  const { eps, why } = chooseBatchNormEps(weights, given);
  return { eps, notes: [why] };
}

/** Compares weights with the model; an error also tells the preset that they fit. */
function matchStart(weights: WeightsFile, model: MaskRCNN, preset: PresetName, options: PresetOptions): Match {
  const fit = (state: StateDict): Match => matchWeights(weights, state, { purpose: 'start' });
  try {
    return fit(model.state);
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    for (const other of presetNames) {
      if (other === preset) continue;
      try {
        fit(new MaskRCNN(presetConfig(other, options)).state);
      } catch {
        continue;
      }
      throw new UserError(`${error.message} It fits --preset ${other}.`);
    }
    throw error;
  }
}

/** Puts the model of a planned run on the device, with the weights to start from or values drawn from the seed. */
export async function allocateRun({ model, options, start }: Run, device: Device): Promise<void> {
  await model.allocate(device, new Random(options.seed), start ? matchedSource(start.file, start.match) : undefined);
}

/** What a checkpoint of the run says beside its weights. */
export function checkpointInfo({ model, dataset, options, thresholds }: Run, epoch: number): CheckpointInfo {
  const { resize, predictResize } = options;
  const info = { config: model.config, classes: dataset.classes, resize, thresholds, epoch };
  return predictResize === null ? info : { ...info, predictResize };
}
