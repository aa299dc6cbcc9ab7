import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Command } from 'commander';
import { stringify } from 'csv-stringify/sync';
import type { Dataset, ImageRecord } from '../data/dataset.ts';
import { requireOutputFolder, writeFileAtomic } from '../data/files.ts';
import { cellsOf } from '../data/imageCounts.ts';
import { readImage } from '../data/images.ts';
import { writePng } from '../data/png.ts';
import { rleRuns } from '../data/rle.ts';
import { runsCrop } from '../data/runs.ts';
import { TEST_MODE_ROWS } from '../data/table.ts';
import { drawInstances, enlarge, panelRow, panelScale } from '../eval/overlay.ts';
import { type DataSummary, summarizeData } from '../report/eda.ts';
import { cellSizeCharts, cellsPerImageChart, classCharts, fileNameOf, quantileChart } from '../report/edaCharts.ts';
import { type EdaExample, edaPage } from '../report/edaHtml.ts';
import { edaText } from '../report/edaText.ts';
import { openDatasetShown } from '../train/openData.ts';
import { UserError } from './errors.ts';
import { say } from './session.ts';

interface Flags {
  data: string;
  out: string;
  testMode?: boolean;
  competitionClasses?: boolean;
}

/** Types with a picture of their own. */
const MOST_EXAMPLES = 8;

/**
 * `eda --data DIR --out DIR`: the tables and pictures of the notebook's exploration. It writes eda.html (one file, everything in
 * it), eda.txt, counts.csv, each chart as SVG and a typical image of each type as PNG.
 */
export function edaCommand(): Command {
  return new Command('eda')
    .description('Describe a data set before training: images and cells per type, cells per image, sizes; as a page.')
    .requiredOption('--data <dir>', 'a data set: train.csv and train/<id>.png, a COCO file, or label images')
    .requiredOption('--out <dir>', 'folder for eda.html, eda.txt, counts.csv and the pictures')
    .option('--test-mode', `read only the first ${TEST_MODE_ROWS} rows of train.csv`)
    .option('--competition-classes', 'list astro, cort and shsy5y, whatever types the file holds')
    .action(async ({ data, out, testMode, competitionClasses }: Flags) => {
      requireOutputFolder(out, '--out');
      if (resolve(out) === resolve(data) || existsSync(join(out, 'train.csv'))) {
        throw new UserError(`--out ${out}: it holds a data set, expected a folder for the pictures.`);
      }
      const dataset = openDatasetShown(data, { competitionClasses, maxRows: testMode ? TEST_MODE_ROWS : undefined });
      const page = writeEda(dataset, out);
      say(`Open ${page} in a browser.`);
    });
}

/** Writes all files of the exploration and prints its text. @returns the path of the page */
export function writeEda(dataset: Dataset, out: string): string {
  const summary = summarizeData(dataset);
  const examples = summary.classes.flatMap(({ name, example }, i) =>
    example === undefined || i >= MOST_EXAMPLES
      ? []
      : [writeExample(example, name, join(out, `example-${fileNameOf(name, i)}.png`))],
  );
  for (const { file, svg } of charts(summary)) writeFileAtomic(join(out, `${file}.svg`), svg);
  const rows = summary.rows.map(({ id, cellType, cells, quantile }) => [id, cellType, cells, quantile]);
  const columns = ['id', 'cell_type', 'annotation', 'quantiles'];
  writeFileAtomic(join(out, 'counts.csv'), stringify(rows, { header: true, columns }));
  const text = edaText(summary);
  writeFileAtomic(join(out, 'eda.txt'), text);
  console.log(text);
  const page = join(out, 'eda.html');
  writeFileAtomic(page, edaPage(summary, examples));
  return page;
}

function charts(summary: DataSummary) {
  const { classes } = summary;
  return [
    ...classCharts(summary),
    cellsPerImageChart(summary),
    ...classes.flatMap((item, i) => (item.images === 0 ? [] : [quantileChart(item, i)])),
    ...cellSizeCharts(summary),
  ];
}

/** An image beside itself with its cells outlined. */
function writeExample(record: ImageRecord, name: string, file: string): EdaExample {
  const { path, id, width, height } = record;
  const cells = cellsOf(record);
  const image = readImage(path);
  const scale = panelScale(width);
  const instances = cells.map(({ rle, label, line }) => ({
    mask: runsCrop(rleRuns(rle, width, height, `${path}, line ${line} of the table`), width),
    label,
  }));
  const picture = panelRow([
    { image: enlarge(image, scale), title: id },
    { image: drawInstances(image, instances, { scale, scores: false }), title: `${cells.length} cells` },
  ]);
  writePng(file, picture.width, picture.height, picture.data);
  return { name, id, cells: cells.length, png: readFileSync(file) };
}
