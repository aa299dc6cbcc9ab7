import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { listPngs, loadSample } from '../data/dataset.ts';
import { writePng } from '../data/png.ts';
import { type Comparison, comparisonPicture, targetInstances, toRgb } from '../eval/overlay.ts';
import { predictImages } from '../eval/predictImages.ts';
import { selectInstances } from '../eval/selectInstances.ts';
import { type SubmissionRow, submissionRows, writeSubmission } from '../eval/submission.ts';
import { startProgress } from '../train/progress.ts';
import type { Run } from '../train/run.ts';

const PICTURES = 3;

/**
 * `overlay.png` in the run's folder: image | truth | prediction of a few validation images, as the network sees them. Null for a
 * box-only model, which has no outlines to draw.
 */
export async function writePictures({ model, split, dataset, options, out, thresholds }: Run): Promise<string | null> {
  if (!model.config.masks) return null;
  const step = Math.max(1, Math.floor(split.validation.length / PICTURES));
  const comparisons: Comparison[] = [];
  for (const record of split.validation.filter((_, i) => i % step === 0).slice(0, PICTURES)) {
    const { image, target } = loadSample(record, { resize: options.resize });
    const [detections] = await model.predict([image]);
    comparisons.push({
      id: record.id,
      image: toRgb(image),
      truth: targetInstances(target, image.width, image.height),
      predicted: selectInstances(detections, thresholds, image.width, image.height),
    });
  }
  const path = join(out, 'overlay.png');
  const picture = comparisonPicture(comparisons, dataset.classes);
  writePng(path, picture.width, picture.height, picture.data);
  return path;
}

/**
 * `submission.csv` in the run's folder: for the images of DATA/test where there are any, else for the validation images. Null for a
 * box-only model, which finds no masks to write there.
 */
export async function writeRunSubmission(run: Run): Promise<{ path: string; rows: number; images: number } | null> {
  if (!run.model.config.masks) return null;
  const { model, dataset, split, options, out, thresholds } = run;
  const test = join(dataset.dir, 'test');
  const testFiles = existsSync(test) ? listPngs(test) : [];
  const files =
    testFiles.length > 0
      ? testFiles.map((path) => ({ id: path.replace(/^.*[\\/]/, '').replace(/\.png$/i, ''), path }))
      : split.validation.map(({ id, path }) => ({ id, path }));
  const rows: SubmissionRow[] = [];
  const bar = startProgress('Predicting', files.length);
  let done = 0;
  const { batchSize, resize, predictResize } = options;
  const prediction = { batchSize, resize: predictResize ?? resize };
  for await (const { id, width, height, detections } of predictImages(model, files, prediction)) {
    rows.push(...submissionRows(id, selectInstances(detections, thresholds, width, height), width));
    bar.update(++done, id);
  }
  bar.stop();
  const path = join(out, 'submission.csv');
  writeSubmission(path, rows);
  return { path, rows: rows.length, images: files.length };
}
