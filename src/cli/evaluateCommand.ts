import { Command } from 'commander';
import { checkResize } from '../data/checkResize.ts';
import type { Dataset } from '../data/dataset.ts';
import { requireOutputFile, writeFileAtomic } from '../data/files.ts';
import { type EvaluationResult, Evaluator } from '../eval/evaluator.ts';
import type { Precision } from '../model/precision.ts';
import { precisionRecallPicture } from '../report/precisionRecall.ts';
import type { Device } from '../tensor/device.ts';
import { openDatasetShown } from '../train/openData.ts';
import type { ForeignOptions } from '../train/weightsInfo.ts';
import { detectSamples } from './detectSamples.ts';
import { UserError } from './errors.ts';
import { openModel, type StoredModel } from './loadModel.ts';
import { parsePositiveCount } from './numbers.ts';
import { detectionWork } from './programList.ts';
import { scoreTables } from './scoreTables.ts';
import { adapterOption, precisionOption, say, tunerOption, withDevice } from './session.ts';
import { foreignOptions } from './weightsOptions.ts';

interface Flags extends ForeignOptions {
  weights: string;
  data: string;
  json?: string;
  curves?: string;
  batchSize: number;
  precision?: Precision;
  adapter: string;
  tuner?: boolean;
}

export function evaluateCommand(): Command {
  const command = new Command('evaluate')
    .description(
      "Score weights on annotated images: the competition's score, the notebook's box mAP and compute_mAP, COCO's AP and AR.",
    )
    .requiredOption(
      '--weights <file>',
      "checkpoint of a training run, or torchvision's (.safetensors, .pth, .pt, .bin)",
    )
    .requiredOption('--data <dir>', 'folder with train.csv, a COCO file, or label images')
    .option('--json <file>', 'write all scores here, by class and by image too')
    .option('--curves <file.svg>', 'draw precision over recall here')
    .option('--batch-size <n>', 'images per step', parsePositiveCount, 2)
    .addOption(precisionOption())
    .addOption(adapterOption())
    .addOption(tunerOption());
  for (const option of foreignOptions()) command.addOption(option);
  return command.action(async ({ weights, data, json, curves, batchSize, adapter, tuner, ...foreign }: Flags) => {
    if (json !== undefined) requireOutputFile(json, '--json');
    if (curves !== undefined) requirePicture(curves);
    const evaluation = await openEvaluation(weights, data, batchSize, foreign);
    const evaluator = await withDevice(adapter, (device) => evaluateImages(evaluation, device), {
      tuner,
      precision: foreign.precision,
      work: detectionWork(evaluation.stored.info.config),
    });
    if (!evaluator) return;
    const { classes } = evaluation.stored.info;
    const scores = evaluator.compute();
    console.log(scoreTables(scores, classes));
    if (json !== undefined) writeFileAtomic(json, scoresJson(scores, classes));
    if (curves !== undefined) writeFileAtomic(curves, precisionRecallPicture(evaluator.cocoEvaluation(), classes));
  });
}

function requirePicture(path: string): void {
  if (!/\.svg$/i.test(path)) throw new UserError(`--curves ${path}: expected the name of a picture that ends in .svg.`);
  requireOutputFile(path, '--curves');
}

/** The scores as a file: `iouMap`, `boxMap30`, `computeMAP` and `maskAP50` first; classes under their names. */
function scoresJson(scores: EvaluationResult, classes: readonly string[]): string {
  const perClass = scores.perClass.map((one) => ({ name: classes[one.label - 1], ...one }));
  return `${JSON.stringify({ ...scores, perClass }, null, 2)}\n`;
}

export interface Evaluation {
  stored: StoredModel;
  dataset: Dataset;
  batchSize: number;
}

/** Checks weights and data against each other; needs no device. @throws UserError for whatever is wrong with them */
export async function openEvaluation(
  weights: string,
  data: string,
  batchSize: number,
  foreign: ForeignOptions & { precision?: Precision } = {},
): Promise<Evaluation> {
  const stored = await openModel(weights, foreign);
  if (!stored.named) {
    throw new UserError(
      `${weights} does not name its ${stored.info.classes.length} classes; name them in the order of their labels, --classes a,b,c, as the data do.`,
    );
  }
  const dataset = openDatasetShown(data, { classes: stored.info.classes });
  checkResize(dataset.images, stored.info.resize);
  return { stored, dataset, batchSize };
}

/** The scores of all images of the data set, or null when the user stopped it. */
export async function evaluate(evaluation: Evaluation, device: Device): Promise<EvaluationResult | null> {
  return (await evaluateImages(evaluation, device))?.compute() ?? null;
}

/** Compares what the model finds in all images of the data set with their truths; null when the user stopped it. */
export async function evaluateImages(
  { stored, dataset, batchSize }: Evaluation,
  device: Device,
): Promise<Evaluator | null> {
  const { model, info } = stored;
  await stored.allocate(device);
  const evaluator = new Evaluator({ numClasses: model.config.numClasses, thresholds: info.thresholds });
  let finished: boolean;
  try {
    finished = await detectSamples(
      { stored, dataset, records: dataset.images, batchSize, label: 'Evaluating', crowds: true },
      (detections, { image, target }) => evaluator.add(detections, target, image.width, image.height, image.id),
    );
  } finally {
    model.dispose();
  }
  if (!finished) {
    say('Stopped; nothing was written.');
    process.exitCode = 130;
    return null;
  }
  return evaluator;
}
