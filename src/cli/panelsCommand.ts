import { join } from 'node:path';
import { Command } from 'commander';
import { checkResize } from '../data/checkResize.ts';
import { type Dataset, type ImageRecord, loadSample, openDataset } from '../data/dataset.ts';
import { requireOutputFolder } from '../data/files.ts';
import type { Detections, Sample } from '../data/types.ts';
import { analyzeImage } from '../eval/analyzeImage.ts';
import type { Thresholds } from '../eval/thresholds.ts';
import type { MaskRCNN } from '../model/maskRcnn.ts';
import { type PanelEntry, PanelWriter } from '../report/panelFolder.ts';
import type { Device } from '../tensor/device.ts';
import { startProgress } from '../train/progress.ts';
import { UserError } from './errors.ts';
import { openModel, type StoredModel } from './loadModel.ts';
import { parseIndices, parseNames, parsePositiveCount } from './numbers.ts';
import { adapterOption, interruptible, say, tunerOption, withDevice } from './session.ts';

/** Images that are shown where the user names none. */
const DEFAULT_COUNT = 6;

interface Flags {
  weights: string;
  data: string;
  out: string;
  images?: string[];
  indices?: number[];
  scale?: number;
  adapter: string;
  tuner?: boolean;
}

export function panelsCommand(): Command {
  return new Command('panels')
    .description(
      'Show image, truth and prediction side by side: outlines, boxes, scores, counts by class and the score of each image.',
    )
    .requiredOption('--weights <file>', 'checkpoint of a training run')
    .requiredOption('--data <dir>', 'folder with train.csv and train/<id>.png')
    .requiredOption('--out <dir>', 'folder for a picture of each image and panels.json')
    .option('--images <ids>', 'ids of the images, separated by commas', parseNames)
    .option(
      '--indices <list>',
      `their positions 0,1,… in the order of ids (default: ${DEFAULT_COUNT} of all)`,
      parseIndices,
    )
    .option('--scale <n>', 'dots for a pixel of the image (default: 600 dots an image, or more)', parsePositiveCount)
    .addOption(adapterOption())
    .addOption(tunerOption())
    .action(async (flags: Flags) => {
      const plan = await planPanels(flags);
      await withDevice(flags.adapter, (device) => panels(plan, device), flags);
    });
}

export interface PanelPlan {
  stored: StoredModel;
  dataset: Dataset;
  records: ImageRecord[];
  out: string;
  scale?: number;
}

/** Checks weights, data and the chosen images; needs no device and writes nothing. @throws UserError for whatever is wrong */
export async function planPanels(flags: Omit<Flags, 'adapter'>): Promise<PanelPlan> {
  const { weights, data, out, images, indices, scale } = flags;
  const stored = await openModel(weights);
  const dataset = openDataset(data, { classes: stored.info.classes });
  const records = chooseImages(dataset, images, indices);
  checkResize(records, stored.info.resize);
  requireOutputFolder(out, '--out');
  return { stored, dataset, records, out, scale };
}

function chooseImages({ dir, images }: Dataset, ids?: readonly string[], indices?: readonly number[]): ImageRecord[] {
  if (ids === undefined && indices === undefined) return spread(images, DEFAULT_COUNT);
  const byId = new Map(images.map((image) => [image.id, image]));
  const chosen = [
    ...(ids ?? []).map((id) => {
      const image = byId.get(id);
      if (image === undefined) throw new UserError(`--images ${id}: ${dir} has no image of this id.`);
      return image;
    }),
    ...(indices ?? []).map((index) => {
      if (index < images.length) return images[index];
      throw new UserError(`--indices ${index}: ${dir} has ${images.length} images, expected 0 … ${images.length - 1}.`);
    }),
  ];
  return [...new Set(chosen)];
}

/** Up to `count` of a list, evenly over its length. */
export function spread<T>(list: readonly T[], count: number): T[] {
  const chosen = Math.min(count, list.length);
  return Array.from({ length: chosen }, (_, i) => list[Math.floor((i * list.length) / chosen)]);
}

async function panels({ stored, records, out, scale }: PanelPlan, device: Device): Promise<void> {
  const { model, info } = stored;
  await stored.allocate(device);
  const interrupt = interruptible();
  try {
    const { epoch, thresholds, classes, resize } = info;
    const stopping = interrupt.stopping;
    const entries = await writePanels({ model, records, classes, epoch, thresholds, resize, out, scale, stopping });
    if (entries === null) {
      say('Stopped; panels.json was not written.');
      process.exitCode = 130;
      return;
    }
    for (const { file, score, counts } of entries) {
      const sum = (key: 'truth' | 'found') => counts.reduce((total, count) => total + count[key], 0);
      const own = score === null ? '' : `, score ${score.toFixed(3)}`;
      console.log(`${join(out, file)}: ${sum('truth')} cells, ${sum('found')} found${own}`);
    }
  } finally {
    interrupt.done();
    model.dispose();
  }
}

export interface PanelOptions {
  /** On the device. */
  model: MaskRCNN;
  records: readonly ImageRecord[];
  classes: readonly string[];
  epoch: number;
  thresholds: Thresholds;
  resize: number;
  out: string;
  scale?: number;
  stopping?: () => boolean;
  /** Sees each image with all that the model kept in it. */
  onImage?: (found: Sample & { detections: Detections }) => void;
}

/**
 * Predicts images one by one, at the size the network sees, and writes their pictures and index.
 *
 * @returns what the index says of each; null when the user stopped it
 */
export async function writePanels(options: PanelOptions): Promise<PanelEntry[] | null> {
  const { model, records, classes, thresholds, resize, out, scale, stopping, onImage } = options;
  const writer = new PanelWriter(out, options);
  const entries: PanelEntry[] = [];
  const bar = startProgress('Panels', records.length);
  try {
    for (const record of records) {
      const { image, target } = loadSample(record, { resize });
      const [detections] = await model.predict([image]);
      onImage?.({ image, target, detections });
      entries.push(writer.add(analyzeImage({ image, target, detections, thresholds, classes, scale })));
      bar.update(entries.length, record.id);
      if (stopping?.()) return null;
    }
  } finally {
    bar.stop();
  }
  writer.finish();
  return entries;
}
