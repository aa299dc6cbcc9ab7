import { join } from 'node:path';
import { writeFileAtomic } from '../../data/files.ts';
import { readImage } from '../../data/images.ts';
import { writePng } from '../../data/png.ts';
import { drawInstances } from '../../eval/overlay.ts';
import type { ImageFormat } from '../formats.ts';
import type { ImagePrediction } from '../prediction.ts';
import { boxOutlines } from './boxOutlines.ts';
import { geojson } from './geojson.ts';
import { imagejZip } from './imagejZip.ts';
import { labelImage } from './labelImage.ts';

/** What to write for an image, and where. */
export interface OutputJob {
  prediction: ImagePrediction;
  /** The image's file. */
  image: string;
  formats: readonly ImageFormat[];
  /** Folder of the run. */
  out: string;
  /** Names of the labels 1 …. */
  classes: readonly string[];
}

/** `stem` is the path of the file to write without its ending. */
type Writer = (job: OutputJob, stem: string) => void | Promise<void>;

const writers: Readonly<Record<ImageFormat, Writer>> = {
  labels({ prediction }, stem) {
    const { width, height } = prediction;
    // Cellpose's name, so that with the images beside them they are a data set.
    writePng(`${stem}_masks.png`, width, height, labelImage(prediction));
  },
  async imagej({ prediction, classes }, stem) {
    writeFileAtomic(`${stem}.zip`, await imagejZip(prediction, classes));
  },
  geojson({ prediction, classes }, stem) {
    writeFileAtomic(`${stem}.geojson`, geojson(prediction, classes));
  },
  overlays({ prediction, image: path }, stem) {
    const masks = prediction.cells.flatMap(({ mask, ...cell }) => (mask ? [{ ...cell, mask }] : []));
    const image = readImage(path);
    const drawn =
      masks.length === prediction.cells.length
        ? drawInstances(image, masks)
        : drawInstances(image, boxOutlines(prediction), { opacity: 0 });
    writePng(`${stem}.png`, drawn.width, drawn.height, drawn.data);
  },
};

/** Writes an image's files, each atomically: `FORMAT/ID.ending` in the run's folder. */
export async function writeImageOutputs(job: OutputJob): Promise<void> {
  for (const format of job.formats) await writers[format](job, join(job.out, format, job.prediction.id));
}
