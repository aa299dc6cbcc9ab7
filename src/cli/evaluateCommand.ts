import Table from 'cli-table3';
import { Command } from 'commander';
import { checkResize } from '../data/checkResize.ts';
import type { Dataset } from '../data/dataset.ts';
import { writeFileAtomic } from '../data/files.ts';
import { Loader } from '../data/loader.ts';
import { type EvaluationResult, Evaluator } from '../eval/evaluator.ts';
import type { Device } from '../tensor/device.ts';
import { openDatasetShown } from '../train/openData.ts';
import { startProgress } from '../train/progress.ts';
import type { ForeignOptions } from '../train/weightsInfo.ts';
import { UserError } from './errors.ts';
import { openModel, type StoredModel } from './loadModel.ts';
import { parsePositiveCount } from './numbers.ts';
import { adapterOption, interruptible, say, withDevice } from './session.ts';
import { foreignOptions } from './weightsOptions.ts';

interface Flags extends ForeignOptions {
  weights: string;
  data: string;
  json?: string;
  batchSize: number;
  adapter: string;
}

export function evaluateCommand(): Command {
  const command = new Command('evaluate')
    .description("Score weights on annotated images: the competition's score, box and mask average precision.")
    .requiredOption(
      '--weights <file>',
      "checkpoint of a training run, or torchvision's (.safetensors, .pth, .pt, .bin)",
    )
    .requiredOption('--data <dir>', 'folder with train.csv, a COCO file, or label images')
    .option('--json <file>', 'write the scores here')
    .option('--batch-size <n>', 'images per step', parsePositiveCount, 2)
    .addOption(adapterOption());
  for (const option of foreignOptions()) command.addOption(option);
  return command.action(async ({ weights, data, json, batchSize, adapter, ...foreign }: Flags) => {
    const evaluation = await openEvaluation(weights, data, batchSize, foreign);
    const scores = await withDevice(adapter, (device) => evaluate(evaluation, device));
    if (!scores) return;
    console.log(scoreTable(scores, evaluation.stored.info.classes));
    if (json) writeFileAtomic(json, `${JSON.stringify(scores, null, 2)}\n`);
  });
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
  foreign: ForeignOptions = {},
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

/** Scores all images of the data set, or null when the user stopped it. */
export async function evaluate(
  { stored, dataset, batchSize }: Evaluation,
  device: Device,
): Promise<EvaluationResult | null> {
  const { model, info } = stored;
  await stored.allocate(device);
  const loader = new Loader({ dataset, batchSize, random: 0, resize: info.resize, workers: 1 });
  const evaluator = new Evaluator({ numClasses: model.config.numClasses, thresholds: info.thresholds });
  const bar = startProgress('Evaluating', dataset.images.length);
  const interrupt = interruptible();
  let done = 0;
  try {
    for await (const batch of loader) {
      const detections = await model.predict(batch.map(({ image }) => image));
      for (const [i, { image, target }] of batch.entries()) {
        evaluator.add(detections[i], target, image.width, image.height);
      }
      done += batch.length;
      bar.update(done);
      if (interrupt.stopping()) break;
    }
  } finally {
    bar.stop();
    interrupt.done();
    await loader.close();
    model.dispose();
  }
  if (done < dataset.images.length) {
    say(`Stopped after ${done} of ${dataset.images.length} images; nothing was written.`);
    process.exitCode = 130;
    return null;
  }
  return evaluator.compute();
}

function scoreTable(scores: EvaluationResult, classes: readonly string[]): string {
  const text = (value: number | null): string => (value === null ? '–' : value.toFixed(4));
  const table = new Table({ head: ['score', 'value'], style: { head: [], border: [] }, colAligns: ['left', 'right'] });
  table.push(
    ['competition score (IoU .50:.95)', text(scores.iouMap)],
    ['box mAP (NMS .3, IoU .3)', text(scores.boxMap30)],
    ['mask AP50', text(scores.maskAP50)],
    ['box AP50', text(scores.boxAP50)],
  );
  for (const { label, iouMap } of scores.perClass)
    table.push([`competition score, ${classes[label - 1]}`, text(iouMap)]);
  table.push(['images', String(scores.images)], ['cells', String(scores.instances)]);
  return table.toString();
}
