import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadSample } from '../../src/data/dataset.ts';
import { writePng } from '../../src/data/png.ts';
import { rleEncode } from '../../src/data/rle.ts';
import type { Sample } from '../../src/data/types.ts';
import { type MaskRCNNConfig, parseConfig } from '../../src/model/config.ts';
import { MaskRCNN } from '../../src/model/maskRcnn.ts';
import { completeTrainOptions, type GivenTrainOptions } from '../../src/train/options.ts';
import { planRun, type Run } from '../../src/train/run.ts';
import { HEADER, temporaryFolder } from '../data/folders.ts';
import { seeded } from '../support/random.ts';

export const WIDTH = 96;
export const HEIGHT = 80;
/** The image of `blobDataset` that has a row but no cell. */
export const EMPTY_ID = 'image-6';

interface Blob {
  x: number;
  y: number;
  rx: number;
  ry: number;
}

function covers({ x, y, rx, ry }: Blob, column: number, row: number): boolean {
  return ((column - x) / rx) ** 2 + ((row - y) / ry) ** 2 <= 1;
}

/** Seven 96 × 80 images: bright discs (`disc`) and dark lying ellipses (`oval`) on grey noise; the last shows nothing. */
export function blobDataset(): string {
  const dir = temporaryFolder();
  mkdirSync(join(dir, 'train'));
  const next = seeded(5);
  const lines = [HEADER];
  for (let index = 0; index < 7; index++) {
    const id = `image-${index}`;
    const pixels = Uint8Array.from({ length: WIDTH * HEIGHT }, () => 120 + Math.floor(next() * 16));
    const disc = index % 2 === 0;
    for (let cell = 0; cell < (id === EMPTY_ID ? 0 : 3); cell++) {
      // Each cell has a third of the width to itself, so that none overlap.
      const rx = disc ? 8 + next() * 4 : 12 + next() * 3;
      const ry = disc ? rx : 6 + next() * 2;
      const blob = { x: 16 + cell * 32 + (next() - 0.5) * 2, y: 15 + next() * 50, rx, ry };
      const mask = new Uint8Array(WIDTH * HEIGHT);
      for (let i = 0; i < mask.length; i++) {
        if (!covers(blob, i % WIDTH, Math.floor(i / WIDTH))) continue;
        mask[i] = 1;
        pixels[i] = (disc ? 200 : 40) + Math.floor(next() * 16);
      }
      lines.push(`${id},${rleEncode(mask)},${WIDTH},${HEIGHT},${disc ? 'disc' : 'oval'}`);
    }
    if (id === EMPTY_ID) lines.push(`${id},,${WIDTH},${HEIGHT},`);
    writePng(join(dir, 'train', `${id}.png`), WIDTH, HEIGHT, pixels);
  }
  writeFileSync(join(dir, 'train.csv'), `${lines.join('\n')}\n`);
  return dir;
}

/** The smallest model that has every part of the real one. */
export function smallestConfig(given: Partial<MaskRCNNConfig> = {}): MaskRCNNConfig {
  return parseConfig(
    {
      block: 'basic',
      layers: [1, 1, 1, 1],
      width: 8,
      norm: 'batch',
      fpnChannels: 8,
      anchorSizes: [8, 16, 32, 64, 128],
      representationSize: 16,
      maskLayers: [8],
      maskDimReduced: 8,
      numClasses: 3,
      minSize: null,
      maxSize: null,
      imageMean: [0.5, 0.5, 0.5],
      imageStd: [0.2, 0.2, 0.2],
      rpnPreNmsTopNTrain: 100,
      rpnPreNmsTopNTest: 100,
      rpnPostNmsTopNTrain: 50,
      rpnPostNmsTopNTest: 50,
      rpnBatchSizePerImage: 32,
      boxBatchSizePerImage: 32,
      boxDetectionsPerImg: 20,
      canonicalScale: 56,
      ...given,
    },
    'test',
  );
}

/** Of so many positives the masks are computed in parts of the list, see `RoiHeads`. */
export const IN_PARTS: Partial<MaskRCNNConfig> = {
  rpnPreNmsTopNTrain: 300,
  rpnPostNmsTopNTrain: 200,
  boxBatchSizePerImage: 300,
};

/** A planned run of the smallest model on `data`, in `out`; `given.model` changes the model. */
export function smallestRun(data: string, out: string, given: GivenTrainOptions = {}): Run {
  const options = completeTrainOptions({
    data,
    resize: 1,
    epochs: 2,
    validation: 0.3,
    lr: 0.02,
    warmupSteps: 2,
    workers: 0,
    ...given,
  });
  const planned = planRun(options, data, out);
  const numClasses = planned.dataset.classes.length + 1;
  const model = new MaskRCNN(smallestConfig({ ...options.model, numClasses }));
  model.precision = options.precision;
  return { ...planned, model };
}

/** The first two images of `blobDataset`, loaded: a batch. */
export function blobBatch(): Sample[] {
  return smallestRun(blobDataset(), 'never written')
    .dataset.images.slice(0, 2)
    .map((record) => loadSample(record));
}
