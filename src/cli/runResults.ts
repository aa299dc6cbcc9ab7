import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { writeFileAtomic } from '../data/files.ts';
import { findImages, imageStem } from '../data/images.ts';
import { writePng } from '../data/png.ts';
import { type Comparison, comparisonPicture, targetInstances, toRgb } from '../eval/overlay.ts';
import { predictImages } from '../eval/predictImages.ts';
import { selectInstances } from '../eval/selectInstances.ts';
import { type SubmissionRow, submissionRows, writeSubmission } from '../eval/submission.ts';
import { renderReport } from '../report/reportPage.ts';
import { startProgress } from '../train/progress.ts';
import { RUN_FILES, type Run } from '../train/run.ts';
import { readRun } from '../train/runFolder.ts';
import { spread, writePanels } from './panelsCommand.ts';

/** Validation images that are analysed, and those of them that the overview shows. */
const PANELS = 6;
const PICTURES = 3;

/**
 * Pictures of a few validation images in the run's folder, as the network sees them: an analysis of each in `panels`, and image |
 * truth | prediction of some in `overlay.png`.
 *
 * @param epoch whose weights the model has
 * @returns path of the overview; of the folder for a box-only model, which has no outlines to draw
 */
export async function writePictures(run: Run, epoch: number): Promise<string> {
  const { model, split, dataset, options, out, thresholds } = run;
  const { classes } = dataset;
  const records = spread(split.validation, PANELS);
  const overview = new Set(spread(records, PICTURES).map(({ id }) => id));
  const comparisons: Comparison[] = [];
  const panels = join(out, RUN_FILES.panels);
  await writePanels({
    model,
    records,
    classes,
    epoch,
    thresholds,
    resize: options.resize,
    out: panels,
    onImage: ({ image, target, detections }) => {
      if (!overview.has(image.id) || detections.masks === undefined) return;
      comparisons.push({
        id: image.id,
        image: toRgb(image),
        truth: targetInstances(target, image.width, image.height),
        predicted: selectInstances(detections, thresholds, image.width, image.height),
      });
    },
  });
  if (comparisons.length === 0) return panels;
  const path = join(out, 'overlay.png');
  const picture = comparisonPicture(comparisons, classes);
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
  const testFiles = existsSync(test) ? findImages(test) : [];
  const files =
    testFiles.length > 0
      ? testFiles.map((path) => ({ id: imageStem(path), path }))
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

/** Writes the report of a run, finished or not. @returns its path */
export function writeReport(run: string, out = join(run, RUN_FILES.report)): string {
  writeFileAtomic(out, renderReport(readRun(run, dirname(out))));
  return out;
}
