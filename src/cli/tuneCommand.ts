import { existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import Table from 'cli-table3';
import { Command, InvalidArgumentError } from 'commander';
import { checkResize } from '../data/checkResize.ts';
import type { Dataset, ImageRecord } from '../data/dataset.ts';
import { requireOutputFolder } from '../data/files.ts';
import { readSplitFile } from '../data/splitFile.ts';
import type { Detections } from '../data/types.ts';
import { type EvaluationResult, Evaluator } from '../eval/evaluator.ts';
import { type FoundThresholds, type Thresholds, thresholdSearch } from '../eval/thresholds.ts';
import type { Device } from '../tensor/device.ts';
import { openCheckpoint, rewriteCheckpoint } from '../train/checkpoint.ts';
import { openDatasetShown } from '../train/openData.ts';
import { startProgress } from '../train/progress.ts';
import { RUN_FILES } from '../train/run.ts';
import { detectSamples } from './detectSamples.ts';
import { UserError } from './errors.ts';
import { openModel, type StoredModel } from './loadModel.ts';
import { parseList, parsePositiveCount } from './numbers.ts';
import { adapterOption, interruptible, say, tunerOption, withDevice } from './session.ts';
import { openStoredRun } from './storedRun.ts';

interface Flags {
  weights?: string;
  data?: string;
  splitFile?: string;
  run?: string;
  out?: string;
  scores: number[];
  masks: number[];
  batchSize: number;
  adapter: string;
  tuner?: boolean;
}

/** Score thresholds to try: .05, .1, … .95. */
const SCORES = Array.from({ length: 19 }, (_, i) => (i + 1) / 20);
/** Mask thresholds to try: .3, .4, … .8. */
const MASKS = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8];

/** A list of thresholds, each once, rising. */
function parseThresholds(text: string): number[] {
  const values = parseList(text);
  if (values.some((value) => !(value >= 0 && value < 1))) {
    throw new InvalidArgumentError('expected numbers from 0 to below 1, for example 0.3,0.5,0.7.');
  }
  return [...new Set(values)].sort((a, b) => a - b);
}

export function tuneCommand(): Command {
  return new Command('tune')
    .description(
      'Search the score and mask threshold of each class for the best competition score on annotated images, and store them in the weights.',
    )
    .option('--run <dir>', "a training run: its best weights (or --weights) on the run's validation images")
    .option('--weights <file>', 'checkpoint of a training run')
    .option(
      '--data <dir>',
      "folder with the competition's train.csv, a COCO file, or label images: all of its images are used",
    )
    .option(
      '--split-file <file>',
      "of --data only the validation images of this file: a run's split.json, or a CSV of id and part",
    )
    .option('--out <file>', 'write a copy with the thresholds here (default: into the weights themselves)')
    .option('--scores <list>', 'score thresholds to try', parseThresholds, SCORES)
    .option('--masks <list>', 'mask thresholds to try', parseThresholds, MASKS)
    .option('--batch-size <n>', 'images per step', parsePositiveCount, 2)
    .addOption(adapterOption())
    .addOption(tunerOption())
    .action(async (flags: Flags) => {
      const tuning = await openTuning(flags);
      const tuned = await withDevice(flags.adapter, (device) => tune(tuning, device), flags);
      if (!tuned) return;
      console.log(thresholdTable(tuned, tuning.stored.info.classes));
      say(`Thresholds are in ${tuning.out}; predict and evaluate use them.`);
    });
}

export interface Tuning {
  stored: StoredModel;
  weights: string;
  dataset: Dataset;
  records: readonly ImageRecord[];
  /** File that is written. */
  out: string;
  scores: readonly number[];
  masks: readonly number[];
  batchSize: number;
}

/** Checks weights and images against each other; needs no device and writes nothing. @throws UserError for whatever is wrong */
export async function openTuning(flags: Omit<Flags, 'adapter'>): Promise<Tuning> {
  const { run, weights, data, splitFile, out, scores, masks, batchSize } = flags;
  if (run !== undefined && data !== undefined) {
    throw new UserError('--run takes the images from the run; expected it without --data.');
  }
  if (run !== undefined && splitFile !== undefined) {
    throw new UserError('--run takes the images from the run; expected it without --split-file.');
  }
  const path = weights ?? (run === undefined ? undefined : join(run, RUN_FILES.best));
  if (path === undefined || (run === undefined && data === undefined)) {
    throw new UserError('Expected --run DIR, or --weights FILE and --data DIR.');
  }
  // Thresholds are stored in this program's own metadata: other files are refused before the long part begins.
  openCheckpoint(path).file.close();
  const stored = await openModel(path);
  const { classes, resize, config } = stored.info;
  if (!config.masks) {
    throw new UserError(
      `${path}: a box-only model has no competition score to choose thresholds by, expected one with masks.`,
    );
  }
  const opened = run === undefined ? undefined : openStoredRun(run, classes);
  const dataset = opened?.dataset ?? openDatasetShown(data as string, { classes });
  const split = splitFile === undefined ? opened?.split : readSplitFile(splitFile, dataset.images);
  const records = split?.validation ?? dataset.images;
  if (records.length === 0) throw new UserError(`${splitFile} has no validation image, expected one or more.`);
  checkResize(records, resize);
  const target = out ?? path;
  requireOutputFolder(dirname(target), '--out');
  if (existsSync(target) && statSync(target).isDirectory()) {
    throw new UserError(`--out ${target} is a folder, expected the name of a file.`);
  }
  return { stored, weights: path, dataset, records, out: target, scores, masks, batchSize };
}

export interface Tuned {
  thresholds: { before: Thresholds; after: Thresholds };
  scores: { before: EvaluationResult; after: EvaluationResult };
}

/**
 * Searches from the thresholds that the weights have now, which stay where nothing is better, and writes what was found. Null where
 * the user stopped it; nothing is written then.
 */
export async function tune(
  { stored, weights, dataset, records, out, scores, masks, batchSize }: Tuning,
  device: Device,
): Promise<Tuned | null> {
  const { model, info } = stored;
  const { numClasses } = model.config;
  const before = info.thresholds;
  const evaluator = new Evaluator({ numClasses, thresholds: before, keepSamples: true });
  // Below the lowest threshold that will be tried nothing is ever chosen: its masks need not be kept.
  const least = Math.min(...scores, ...before.minScore.slice(1));
  await stored.allocate(device);
  try {
    const label = 'Detecting cells';
    const finished = await detectSamples(
      { stored, dataset, records, batchSize, label },
      (detections, { image, target }) => evaluator.add(above(detections, least), target, image.width, image.height),
    );
    if (!finished) return stopped();
  } finally {
    model.dispose();
  }
  const found = await search(thresholdSearch(evaluator.samples, numClasses, { scores, masks, start: before }));
  if (!found) return stopped();
  const { minScore, maskThreshold } = found;
  const after = { minScore, maskThreshold };
  rewriteCheckpoint(weights, out, { ...info, thresholds: after });
  return {
    thresholds: { before, after },
    scores: { before: evaluator.compute(before), after: evaluator.compute(after) },
  };
}

function stopped(): null {
  say('Stopped; nothing was written.');
  process.exitCode = 130;
  return null;
}

/** The detections that score more than `least`. */
function above({ boxes, labels, scores, masks }: Detections, least: number): Detections {
  const kept = [...scores.keys()].filter((i) => scores[i] > least);
  return {
    boxes: Float32Array.from(kept.flatMap((i) => [...boxes.subarray(4 * i, 4 * i + 4)])),
    labels: Int32Array.from(kept, (i) => labels[i]),
    scores: Float32Array.from(kept, (i) => scores[i]),
    masks: masks && kept.map((i) => masks[i]),
  };
}

/** Steps that the progress of a search counts, and milliseconds between two looks at whether the user wants to stop. */
const STEPS = 100;
const LOOK_EVERY = 100;

/** Runs a search to its end with progress; null where the user stopped it. */
async function search(steps: Generator<number, FoundThresholds>): Promise<FoundThresholds | null> {
  const bar = startProgress('Searching thresholds', STEPS);
  const interrupt = interruptible();
  let looked = performance.now();
  try {
    for (;;) {
      const step = steps.next();
      if (step.done) return step.value;
      if (performance.now() - looked < LOOK_EVERY) continue;
      bar.update(Math.floor(step.value * STEPS));
      // Signals are only delivered between tasks.
      await setImmediate();
      if (interrupt.stopping()) return null;
      looked = performance.now();
    }
  } finally {
    bar.stop();
    interrupt.done();
  }
}

/** Thresholds and competition score of each class, before and after. */
export function thresholdTable({ thresholds, scores }: Tuned, classes: readonly string[]): string {
  const score = (value: number | null): string => (value === null ? '–' : value.toFixed(4));
  const change = (before: number | null, after: number | null): string => `${score(before)} → ${score(after)}`;
  const pair = ({ minScore, maskThreshold }: Thresholds, label: number): string =>
    `${minScore[label]} / ${maskThreshold[label]}`;
  const table = new Table({
    head: ['class', 'cells', 'score / mask threshold', 'competition score'],
    style: { head: [], border: [] },
    colAligns: ['left', 'right', 'right', 'right'],
  });
  classes.forEach((name, i) => {
    const [before, after] = [scores.before.perClass[i], scores.after.perClass[i]];
    const pairs = `${pair(thresholds.before, i + 1)} → ${pair(thresholds.after, i + 1)}`;
    table.push([name, String(before.instances), pairs, change(before.iouMap, after.iouMap)]);
  });
  const { before, after } = scores;
  table.push([`all, ${before.images} images`, String(before.instances), '', change(before.iouMap, after.iouMap)]);
  return table.toString();
}
