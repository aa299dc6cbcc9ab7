import { join } from 'node:path';
import { Command } from 'commander';
import { checkResize } from '../data/checkResize.ts';
import { requireOutputFolder } from '../data/files.ts';
import { imageStem, inspectImage, listImages, readImage } from '../data/images.ts';
import { writePng } from '../data/png.ts';
import { drawInstances } from '../eval/overlay.ts';
import { predictImages } from '../eval/predictImages.ts';
import { selectInstances } from '../eval/selectInstances.ts';
import { type SubmissionRow, submissionRows, writeSubmission } from '../eval/submission.ts';
import type { Device } from '../tensor/device.ts';
import { startProgress } from '../train/progress.ts';
import { openModel, type StoredModel } from './loadModel.ts';
import { parsePositive, parsePositiveCount } from './numbers.ts';
import { adapterOption, interruptible, say, withDevice } from './session.ts';

interface Flags {
  weights: string;
  images: string;
  out: string;
  resize?: number;
  batchSize: number;
  adapter: string;
}

export function predictCommand(): Command {
  return new Command('predict')
    .description('Outline every cell of a folder of images: submission.csv and a coloured overlay of each image.')
    .requiredOption('--weights <file>', 'checkpoint of a training run')
    .requiredOption('--images <dir>', 'folder of PNG or TIFF images')
    .requiredOption('--out <dir>', 'folder for submission.csv and overlays/')
    .option('--resize <factor>', 'scale of the images for the network (default: as in training)', parsePositive)
    .option('--batch-size <n>', 'images per step', parsePositiveCount, 1)
    .addOption(adapterOption())
    .action(async (flags: Flags) => {
      const prediction = openPrediction(flags);
      await withDevice(flags.adapter, (device) => predict(prediction, device));
    });
}

export interface Prediction {
  stored: StoredModel;
  files: { id: string; path: string }[];
  out: string;
  /** Scale of the images for the network. */
  resize: number;
  batchSize: number;
}

/** Checks weights and every image's file; needs no device and writes nothing. @throws UserError for whatever is wrong */
export function openPrediction({ weights, images, out, resize, batchSize }: Omit<Flags, 'adapter'>): Prediction {
  const stored = openModel(weights);
  const files = listImages(images).map((path) => ({ id: imageStem(path), path, ...inspectImage(path) }));
  requireOutputFolder(out, '--out');
  const scale = resize ?? stored.info.resize;
  checkResize(files, scale);
  return { stored, files, out, resize: scale, batchSize };
}

/** Writes `submission.csv` and an overlay of each image; says so when the user stopped it before. */
export async function predict({ stored, files, out, resize, batchSize }: Prediction, device: Device): Promise<void> {
  const { model, info } = stored;
  await stored.allocate(device);
  const bar = startProgress('Predicting', files.length);
  const interrupt = interruptible();
  const rows: SubmissionRow[] = [];
  let done = 0;
  try {
    for await (const predicted of predictImages(model, files, { resize, batchSize })) {
      const { id, path, width, height, detections } = predicted;
      const instances = selectInstances(detections, info.thresholds, width, height);
      rows.push(...submissionRows(id, instances, width));
      const overlay = drawInstances(readImage(path), instances);
      writePng(join(out, 'overlays', `${id}.png`), overlay.width, overlay.height, overlay.data);
      bar.update(++done, id);
      if (interrupt.stopping()) break;
    }
  } finally {
    bar.stop();
    interrupt.done();
    model.dispose();
  }
  if (done < files.length) {
    say(`Stopped after ${done} of ${files.length} images; submission.csv was not written.`);
    process.exitCode = 130;
    return;
  }
  const path = join(out, 'submission.csv');
  writeSubmission(path, rows);
  const cells = rows.filter(([, rle]) => rle !== '').length;
  say(`${cells} cells in ${files.length} images: ${path}, pictures in ${join(out, 'overlays')}`);
}
