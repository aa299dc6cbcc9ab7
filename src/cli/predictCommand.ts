import { basename, join } from 'node:path';
import { Command } from 'commander';
import { listPngs } from '../data/dataset.ts';
import { readPng, writePng } from '../data/png.ts';
import { drawInstances } from '../eval/overlay.ts';
import { predictImages } from '../eval/predictImages.ts';
import { type SubmissionRow, selectInstances, submissionRows, writeSubmission } from '../eval/submission.ts';
import { startProgress } from '../train/progress.ts';
import { UserError } from './errors.ts';
import { loadModel } from './loadModel.ts';
import { parseCount, parseNumber } from './numbers.ts';
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
    .description('Outline every cell of a folder of PNGs: submission.csv and a coloured overlay of each image.')
    .requiredOption('--weights <file>', 'checkpoint of a training run')
    .requiredOption('--images <dir>', 'folder of PNG images')
    .requiredOption('--out <dir>', 'folder for submission.csv and overlays/')
    .option('--resize <factor>', 'scale of the images for the network (default: as in training)', parseNumber)
    .option('--batch-size <n>', 'images per step', parseCount, 1)
    .addOption(adapterOption())
    .action(async ({ weights, images, out, resize, batchSize, adapter }: Flags) => {
      if (resize !== undefined && !(resize > 0)) throw new UserError(`--resize ${resize}: expected a number above 0.`);
      if (batchSize < 1) throw new UserError(`--batch-size ${batchSize}: expected a whole number from 1.`);
      const files = listPngs(images).map((path) => ({ id: basename(path).replace(/\.png$/i, ''), path }));
      if (files.length === 0) throw new UserError(`${images}: it holds no PNG; expected a folder of .png images.`);
      await withDevice(adapter, async (device) => {
        const { model, info } = await loadModel(weights, device);
        const bar = startProgress('Predicting', files.length);
        const interrupt = interruptible();
        const rows: SubmissionRow[] = [];
        let done = 0;
        try {
          for await (const predicted of predictImages(model, files, { resize: resize ?? info.resize, batchSize })) {
            const { id, path, width, height, detections } = predicted;
            const instances = selectInstances(detections, info.thresholds, width, height);
            rows.push(...submissionRows(id, instances, width));
            const overlay = drawInstances(readPng(path), instances);
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
        say(
          `${rows.filter(([, rle]) => rle !== '').length} cells in ${files.length} images: ${path}, pictures in ${join(out, 'overlays')}`,
        );
      });
    });
}
