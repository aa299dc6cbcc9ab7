import { join } from 'node:path';
import { Command } from 'commander';
import { checkResize } from '../data/checkResize.ts';
import { requireOutputFolder, sha256OfFile } from '../data/files.ts';
import type { Precision } from '../model/precision.ts';
import { readCocoIds } from '../predict/cocoIds.ts';
import { type FolderRun, finishFolderRun, planFolderRun, predictFolder } from '../predict/folderRun.ts';
import { chooseFormats, imageFormats, type OutputFormat, parseFormats } from '../predict/formats.ts';
import { openImageFolder } from '../predict/imageFiles.ts';
import { plainCocoIds } from '../predict/outputs/cocoResults.ts';
import { parseShard, type Shard, WHOLE } from '../predict/shards.ts';
import type { Device } from '../tensor/device.ts';
import type { ForeignOptions } from '../train/weightsInfo.ts';
import { openModel, type StoredModel } from './loadModel.ts';
import { sayPredictionPlan } from './memoryLines.ts';
import { parseCount, parsePositive, parsePositiveCount } from './numbers.ts';
import { detectionWork } from './programList.ts';
import { adapterOption, interruptible, precisionOption, say, tunerOption, withDevice } from './session.ts';
import { foreignOptions } from './weightsOptions.ts';

interface Flags extends ForeignOptions {
  weights: string;
  images: string;
  out: string;
  resize?: number;
  batchSize: number;
  formats?: OutputFormat[];
  shard?: Shard;
  workers?: number;
  restart?: boolean;
  cocoImages?: string;
  precision?: Precision;
  adapter: string;
  tuner?: boolean;
}

export function predictCommand(): Command {
  const command = new Command('predict')
    .description(
      'Outline every cell of a folder of images: submission.csv, a coloured overlay of each image, other formats.',
    )
    .requiredOption(
      '--weights <file>',
      "checkpoint of a training run, or torchvision's (.safetensors, .pth, .pt, .bin)",
    )
    .requiredOption('--images <dir>', 'folder of PNG or TIFF images')
    .requiredOption('--out <dir>', 'folder for what is found; the same command again goes on after a stop')
    .option(
      '--formats <list>',
      'some of submission, coco, labels, imagej, geojson, overlays (default: submission,overlays)',
      parseFormats,
    )
    .option(
      '--shard <i/n>',
      'only part I of N of the images, in an --out of its own; join the parts with merge',
      parseShard,
    )
    .option('--restart', 'begin anew where --out holds a run')
    .option('--resize <factor>', 'scale of the images for the network (default: as the weights say)', parsePositive)
    .option('--batch-size <n>', 'images per step', parsePositiveCount, 1)
    .option('--workers <n>', 'threads that load images and write results', parseCount, 2)
    .option('--coco-images <file>', 'COCO annotations whose ids of images and categories coco takes (default: 1, 2, …)')
    .addOption(precisionOption())
    .addOption(adapterOption())
    .addOption(tunerOption());
  for (const option of foreignOptions()) command.addOption(option);
  return command.action(async (flags: Flags) => {
    const prediction = await openPrediction(flags);
    if (isDone(prediction)) await predict(prediction);
    else {
      const work = detectionWork(prediction.stored.info.config);
      const { tuner, precision } = flags;
      await withDevice(flags.adapter, (device) => predict(prediction, device), { tuner, precision, work });
    }
  });
}

export interface Prediction {
  stored: StoredModel;
  run: FolderRun;
}

const isDone = ({ run }: Prediction): boolean => run.files.length === (run.state?.done ?? 0);

/**
 * Checks weights, images and what an earlier process has left in the folder; needs no device and writes nothing.
 * @throws UserError for whatever is wrong
 */
export async function openPrediction(flags: Omit<Flags, 'adapter'>): Promise<Prediction> {
  const { weights, images, out, batchSize, shard = WHOLE, restart = false, workers = 2, cocoImages } = flags;
  const stored = await openModel(weights, flags);
  const { config, classes } = stored.info;
  const formats = chooseFormats(flags.formats, config.masks);
  const folder = openImageFolder(images, shard);
  requireOutputFolder(out, '--out');
  const resize = flags.resize ?? stored.info.predictResize ?? stored.info.resize;
  checkResize(folder.files, resize);
  const cocoIds = cocoImages === undefined ? plainCocoIds : await readCocoIds(cocoImages, classes);
  for (const file of folder.files) cocoIds.imageId(file);
  const facts = {
    weights: sha256OfFile(weights),
    classes,
    masks: config.masks,
    resize,
    batchSize,
    shard,
    images: { count: folder.count, sha256: folder.sha256 },
    ...(stored.model.precision !== 'f32' && { precision: stored.model.precision }),
  };
  const run = planFolderRun(facts, { files: folder.files, formats, out, workers, cocoIds }, restart);
  return { stored, run };
}

/**
 * Predicts what is not done yet and writes all formats; says so when the user stopped it before.
 * @param device not needed where all images are done
 */
export async function predict({ stored, run }: Prediction, device?: Device): Promise<void> {
  const { files, state, out, formats } = run;
  if (state !== undefined && state.done > 0) say(`${state.done} of ${files.length} images are done already (${out}).`);
  const interrupt = interruptible();
  let done: number;
  try {
    const open = async () => {
      if (device === undefined) throw new Error('predict: images are left, but there is no device');
      await sayPredictionPlan(device, stored.model, files, run.header);
      await stored.allocate(device);
      return { model: stored.model, thresholds: stored.info.thresholds };
    };
    done = await predictFolder(run, open, interrupt.stopping);
  } finally {
    interrupt.done();
    stored.model.dispose();
  }
  if (done < files.length || interrupt.stopping()) {
    say(`Stopped after ${done} of ${files.length} images. The same command goes on there.`);
    process.exitCode = 130;
    return;
  }
  const { cells, paths } = finishFolderRun(run);
  const folders = imageFormats.filter((format) => formats.includes(format)).map((format) => join(out, format));
  say(`${cells} cells in ${files.length} images: ${[...paths, ...folders].join(', ')}`);
}
