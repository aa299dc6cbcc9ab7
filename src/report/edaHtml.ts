import type { DataSummary } from './eda.ts';
import { cellSizeCharts, cellsPerImageChart, classCharts, type EdaChart, quantileChart } from './edaCharts.ts';
import {
  cellSizeTables,
  cellsPerImageTable,
  classTable,
  type EdaTable,
  headTable,
  imageSizeTable,
  limitTable,
  quantileTable,
} from './edaTables.ts';
import { formatCount } from './format.ts';
import { type Content, type Html, html, trusted } from './html.ts';
import { REPORT_STYLE } from './reportStyle.ts';

/** A picture of one class: an image and the same with its cells outlined, as PNG. */
export interface EdaExample {
  /** The class's name, and the image's. */
  name: string;
  id: string;
  cells: number;
  png: Uint8Array;
}

const STYLE = `
tbody th { vertical-align: baseline; }
.chart.wide { grid-column: 1 / -1; }
.tables { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0 16px; }
h3 { font-size: 15px; margin: 26px 0 0; font-weight: 620; }
h3 + p { margin: 0; color: var(--muted); font-size: 13.5px; }
.chart img, .panel img { display: block; width: 100%; height: auto; border-radius: 5px; }
@media (max-width: 680px) { .tables { grid-template-columns: minmax(0, 1fr); } }
`;

/** The whole exploration as one page that needs no other file. */
export function edaPage(summary: DataSummary, examples: readonly EdaExample[]): string {
  const { classes } = summary;
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${summary.dir}: the data</title>
<style>${trusted(REPORT_STYLE + STYLE)}</style>
</head>
<body>
<header class="top"><div>
<p class="kicker">The data before training</p>
<h1>${summary.dir}</h1>
${figures(summary)}
</div></header>
<main>
${section(
  'Cell types',
  'How often each type occurs. Training and validation images are drawn so that both hold every type in these shares.',
  html`<div class="charts">${classCharts(summary).map((chart) => figure(chart))}</div>${table(classTable(summary), false)}`,
)}
${section(
  'Cells per image',
  'How crowded the images are. The most crowded ones decide how many detections a model must be allowed to give back.',
  html`<div class="charts">${figure(cellsPerImageChart(summary), true)}</div>${table(cellsPerImageTable(summary))}${table(limitTable(summary))}`,
)}
${section(
  'Quintiles of each type',
  "The images of a type in five groups of equal size by their number of cells (pandas' qcut); dashed lines are the edges between them.",
  classes.map((item, i) =>
    item.images === 0
      ? null
      : html`<div class="charts">${figure(quantileChart(item, i))}<div>${table(quantileTable(item))}</div></div>
<details><summary>Images with the most cells of ${item.name}</summary>${table(headTable(summary, item.name), false)}</details>`,
  ),
)}
${section(
  'Size of cells',
  "In pixels of the files. A cell's box, times the factor of --resize, is what the model's anchors have to fit.",
  html`<div class="charts">${cellSizeCharts(summary).map((chart) => figure(chart))}</div>${cellSizeTables(summary).map((item) => table(item))}`,
)}
${examples.length > 0 && section('A typical image of each type', 'The image whose number of cells is nearest to the median, as it is and with its annotated cells.', examples.map(example))}
${section('Image sizes', null, table(imageSizeTable(summary), false))}
</main>
<footer><div>Written by <code>webgpu-mask-rcnn eda</code>; every table is in <code>eda.txt</code>, cells per image and type in <code>counts.csv</code>.</div></footer>
</body>
</html>
`;
  return page.text;
}

function section(title: string, intro: string | null, content: Content): Html {
  return html`<section>
<h2>${title}</h2>
${intro !== null && html`<p>${intro}</p>`}
${content}
</section>`;
}

function figures({ images, cells, classes, imageDescription, imagesWithoutCells }: DataSummary): Html {
  const entry = (name: string, value: string, small: string): Html =>
    html`<div><dt>${name}</dt><dd>${value}<small>${small}</small></dd></div>`;
  const empty = imagesWithoutCells === 0 ? 'each with cells' : `${formatCount(imagesWithoutCells)} without cells`;
  return html`<dl class="figures">
${entry('Images', formatCount(images), empty)}
${entry('Cells', formatCount(cells), 'annotated')}
${entry(
  'Types',
  formatCount(classes.length),
  classes
    .map(({ name }) => name)
    .slice(0, 6)
    .join(', '),
)}
${entry('Cells in an image', formatCount(Math.round(imageDescription['50%'])), 'median')}
${entry('Most cells', formatCount(imageDescription.max), 'in one image')}
</dl>`;
}

function figure({ svg }: EdaChart, wide = false): Html {
  return html`<figure class="chart${wide ? ' wide' : ''}">${trusted(svg)}</figure>\n`;
}

/** @param titled shows the table's own title and note above it */
function table({ title, note, head, rows }: EdaTable, titled = true): Html {
  const cells = (row: readonly string[]): Html =>
    html`<tr>${row.map((text, i) => (i === 0 ? html`<th scope="row">${text}</th>` : html`<td>${text}</td>`))}</tr>\n`;
  return html`${titled && html`<h3>${title}</h3><p>${note}</p>`}
<div class="scroll"><table><thead><tr>${head.map((text) => html`<th scope="col">${text}</th>`)}</tr></thead><tbody>
${rows.map(cells)}</tbody></table></div>\n`;
}

function example({ name, id, cells, png }: EdaExample): Html {
  const source = `data:image/png;base64,${Buffer.from(png).toString('base64')}`;
  return html`<article class="panel"><header><h3>${name}</h3><span class="mono">${id}</span><span class="own">${formatCount(cells)} cells</span></header>
<img src="${source}" alt="Image ${id} and its annotated cells"></article>\n`;
}
