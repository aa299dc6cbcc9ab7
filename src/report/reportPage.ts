/** A training run as one HTML page that needs nothing beside it: charts are inline SVG, pictures inline PNG, no script. */
import type { KernelRecord } from '../tuner/tunedChoice.ts';
import { formatBytes, formatCount, formatDuration, formatMoment, formatNumber, formatScore, median } from './format.ts';
import { type Content, type Html, html, trusted } from './html.ts';
import { lossKeys, lossName, scoreKeys, scoreName, timeChart, trainingCharts } from './reportCharts.ts';
import { classKey, panelArticles } from './reportPanels.ts';
import { REPORT_STYLE } from './reportStyle.ts';
import type { RunReport } from './runReport.ts';

/** Renders a run. @returns an HTML document; links to files of the run are relative */
export function renderReport(report: RunReport): string {
  const title = `Training run ${report.name}`;
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>${trusted(REPORT_STYLE)}</style>
</head>
<body>
<header class="top"><div>
<p class="kicker">Mask R-CNN training report</p>
<h1>${title}</h1>
<p class="sub">${headline(report)}</p>
${figures(report)}
</div></header>
<main>
${pictures(report)}
${training(report)}
${classTable(report)}
${dataSet(report)}
${epochTable(report)}
${configuration(report)}
${machine(report)}
${files(report)}
</main>
<footer><div>Made by webgpu-mask-rcnn. Competition score: mean over images of TP / (TP + FP + FN) at mask IoU .50, .55, … .95. AP50: area under the envelope of precision over recall at IoU .5, all classes together. Box mAP: the notebook’s, after NMS at IoU .3.</div></footer>
</body>
</html>
`;
  return page.text;
}

function section(title: string, intro: Content, body: Content): Html {
  return html`<section>
<h2>${title}</h2>
${intro !== null && html`<p>${intro}</p>`}
${body}
</section>
`;
}

function headline({ config, plannedEpochs, epochs, environment }: RunReport): Html {
  const done = epochs.length;
  const status =
    done >= plannedEpochs
      ? html`<span class="status">Finished</span>`
      : html`<span class="status open">${done === 0 ? 'No epoch finished yet' : `${done} of ${plannedEpochs} epochs done`}</span>`;
  const parts: Content[] = [
    status,
    `preset ${config.preset}`,
    config.data === null ? 'synthetic cells' : html`data <code>${String(config.data)}</code>`,
  ];
  const first = environment?.sessions[0];
  if (first) parts.push(formatMoment(first.started));
  return html`${parts.flatMap((part, i) => (i === 0 ? [part] : [' · ', part]))}`;
}

/** The scores to show on top: the final ones, else those of the best epoch. */
function headScores({ final, epochs, bestEpoch }: RunReport): { scores: Record<string, number | null>; note: string } {
  if (final) return { scores: final.scores, note: 'thresholds chosen on validation' };
  const best = epochs.find(({ epoch }) => epoch === bestEpoch);
  return { scores: best?.scores ?? {}, note: 'on the validation images' };
}

function figures(report: RunReport): Html | null {
  const { epochs, plannedEpochs, bestEpoch, environment } = report;
  if (epochs.length === 0) return null;
  const { scores, note } = headScores(report);
  const tile = (name: string, value: string, small: string): Html =>
    html`<div><dt>${name}</dt><dd>${value}<small>${small}</small></dd></div>`;
  const tiles = ['iouMap', 'maskAP50', 'boxAP50']
    .filter((key) => typeof scores[key] === 'number')
    .map((key, i) => tile(scoreName(key), formatScore(scores[key]), i === 0 ? note : 'at IoU .5, any class'));
  const stepTime = median(epochs.map((row) => row.secondsPerStep));
  const trained = epochs.reduce((total, row) => total + row.steps * row.secondsPerStep, 0);
  const adapter = environment?.sessions.at(-1)?.adapter.kind;
  return html`<dl class="figures">
${tiles}
${bestEpoch !== null && tile('Best epoch', String(bestEpoch), `of ${plannedEpochs}, by competition score`)}
${tile('Time of a step', formatDuration(stepTime), adapter === undefined ? 'median' : `median, on ${adapter}`)}
${tile('Training time', formatDuration(trained), `${formatCount(epochs.reduce((total, row) => total + row.steps, 0))} steps, validation not counted`)}
</dl>`;
}

function pictures({ panels, classes }: RunReport): Html | null {
  if (panels === null || panels.index.panels.length === 0) return null;
  const legend = html`<div class="legend">${classes.map(({ name }, i) => html`<span>${classKey(i + 1)}${name}</span>`)}</div>`;
  const intro = `Images that the network was not trained on, with the weights of epoch ${panels.index.epoch}: outlines in the colour of the cell’s type, with the network’s certainty. A click opens the full picture.`;
  return section('What it finds', intro, html`${legend}${panelArticles(panels)}`);
}

function training(report: RunReport): Html {
  const charts = trainingCharts(report);
  const intro =
    charts === null
      ? 'No epoch has ended yet: there is nothing to draw.'
      : 'Over the epochs. The dashed line marks the one whose weights are kept.';
  return section('Training', intro, charts);
}

/** A table that scrolls by itself where it is too wide. */
function table(head: readonly Content[], rows: readonly Content[], className = ''): Html {
  return html`<div class="scroll${className}"><table><thead><tr>${head}</tr></thead><tbody>
${rows}</tbody></table></div>`;
}

const th = (content: Content): Html => html`<th scope="col">${content}</th>`;
const td = (content: Content): Html => html`<td>${content}</td>`;

function classTable({ classes, environment, final }: RunReport): Html | null {
  if (classes.length === 0) return null;
  const scores = [...new Set((final?.perClass ?? []).flatMap((entry) => Object.keys(entry.scores)))];
  const head = [
    'Type',
    ...(environment ? ['Training cells', 'Validation cells'] : []),
    'Score above',
    'Mask above',
    ...scores.map(scoreName),
  ];
  const rows = classes.map(({ name, minScore, maskThreshold }, i) => {
    const cells = environment?.data.cells.find((entry) => entry.class === name);
    const own = final?.perClass.find(({ label }) => label === i + 1);
    return html`<tr><th scope="row">${classKey(i + 1)}${name}</th>${[
      ...(environment ? [cells ? formatCount(cells.train) : '–', cells ? formatCount(cells.validation) : '–'] : []),
      minScore.toFixed(2),
      maskThreshold.toFixed(2),
      ...scores.map((key) => formatScore(own?.scores[key])),
    ].map(td)}</tr>\n`;
  });
  const intro =
    'A cell is kept where its score is above the type’s threshold, and a pixel belongs to it where its mask is. Both are stored with the best weights.';
  return section('Cell types', intro, table(head.map(th), rows));
}

function facts(entries: readonly (readonly [string, Content])[]): Html {
  return html`<dl class="facts">
${entries.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>\n`)}</dl>`;
}

function dataSet({ config, environment }: RunReport): Html {
  const where: [string, Content] = [
    'Folder',
    config.data === null ? 'synthetic cells' : html`<code>${String(config.data)}</code>`,
  ];
  if (environment === null) return section('Data', null, facts([where]));
  const { images, cells, sizes, cellsPerImage } = environment.data;
  const total = (key: 'train' | 'validation'): number => cells.reduce((sum, entry) => sum + entry[key], 0);
  const shown = sizes.slice(0, 3).map(({ width, height }) => `${width} × ${height}`);
  const more = sizes.length - shown.length;
  return section(
    'Data',
    null,
    facts([
      where,
      ['Images to train', formatCount(images.train)],
      ['Images to validate', formatCount(images.validation)],
      ['Cells to train', formatCount(total('train'))],
      ['Cells to validate', formatCount(total('validation'))],
      [
        'Cells of an image',
        `${cellsPerImage.min} to ${cellsPerImage.max}, median ${formatNumber(cellsPerImage.median)}`,
      ],
      ['Size of the images', `${shown.join(', ')}${more > 0 ? ` and ${more} more` : ''} pixels`],
    ]),
  );
}

function epochTable({ epochs, bestEpoch }: RunReport): Html | null {
  if (epochs.length === 0) return null;
  const losses = lossKeys(epochs);
  const scores = scoreKeys(epochs);
  const head = [
    'Epoch',
    ...scores.map(scoreName),
    'Training loss',
    'Validation loss',
    ...losses.map((key) => `${lossName(key)} (val.)`),
    'Learning rate',
    'Time of a step',
  ];
  const rows = epochs.map((row) => {
    const cells = [
      String(row.epoch),
      ...scores.map((key) => formatScore(row.scores[key])),
      formatScore(row.train.total),
      formatScore(row.validation.total),
      ...losses.map((key) => formatScore(row.validation[key])),
      formatNumber(row.lr),
      formatDuration(row.secondsPerStep),
    ];
    return html`<tr${trusted(row.epoch === bestEpoch ? ' class="best"' : '')}>${cells.map(td)}</tr>\n`;
  });
  const intro = 'The kept epoch is marked. metrics.jsonl has every figure in full.';
  return section('Epoch by epoch', intro, table(head.map(th), rows, ' epochs'));
}

/** An option's value in a line. */
function optionText(value: unknown): string {
  if (value === null || value === undefined) return 'none';
  if (typeof value === 'number') return Number.isInteger(value) ? String(value) : formatNumber(value);
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (Array.isArray(value)) return value.map(optionText).join(', ');
  if (typeof value === 'object') {
    return Object.entries(value)
      .map(([key, part]) => `${key} ${optionText(part)}`)
      .join(', ');
  }
  return String(value);
}

const OPTION_NAMES: Readonly<Record<string, string>> = {
  lr: 'Learning rate',
  stepLr: 'StepLR',
  resize: 'Resize factor',
};

/** `batchSize` → "Batch size". */
function optionName(key: string): string {
  if (OPTION_NAMES[key] !== undefined) return OPTION_NAMES[key];
  const words = key.replace(
    /([a-z])([A-Z])/g,
    (_, before: string, letter: string) => `${before} ${letter.toLowerCase()}`,
  );
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function configuration({ config }: RunReport): Html {
  const entries = Object.entries(config).map(([key, value]): [string, Content] => {
    const text = key === 'data' && value === null ? 'synthetic cells' : optionText(value);
    return [optionName(key), text === 'none' ? html`<span class="default">none</span>` : text];
  });
  const intro = html`The same run again: <code>npm run train -- --config config.json</code>`;
  return section('Configuration', intro, facts(entries));
}

function machine(report: RunReport): Html {
  const { environment, epochs } = report;
  const chart = timeChart(report);
  const times = epochs.map((row) => row.secondsPerStep);
  const timeFacts: [string, Content][] =
    times.length === 0
      ? []
      : [
          ['Time of a step, median', formatDuration(median(times))],
          [
            'Fastest and slowest epoch',
            `${formatDuration(Math.min(...times))} and ${formatDuration(Math.max(...times))}`,
          ],
        ];
  if (environment === null) {
    const told = facts([['Adapter', html`<span class="default">not recorded</span>`], ...timeFacts]);
    return section('Where it ran', null, html`<div class="charts beside">${chart}${told}</div>`);
  }
  const { sessions, model } = environment;
  const { machine: host, adapter, versions, kernels } = sessions[sessions.length - 1];
  const told = facts([
    ['Adapter', `${adapter.name} (${adapter.kind})`],
    ['Driver', adapter.driver],
    ...(kernels ? [['Kernels', kernelsInWords(kernels)] satisfies [string, Content]] : []),
    ['Processor', `${host.processor}, ${host.cores} cores`],
    ['Memory', `${host.memoryGiB} GiB`],
    ['System', host.system],
    ...Object.entries(versions).map(([name, version]): [string, Content] => [name, version]),
    ['Parameters of the model', formatCount(model.parameters)],
    ...timeFacts,
  ]);
  const list =
    sessions.length > 1 &&
    table(
      ['Session', 'Started', 'Ended', 'Adapter'].map(th),
      sessions.map(
        ({ started, ended, adapter: own }, i) =>
          html`<tr>${[String(i + 1), formatMoment(started), ended === null ? 'cut off' : formatMoment(ended), `${own.name} (${own.kind})`].map(td)}</tr>\n`,
      ),
      ' words',
    );
  return section('Where it ran', null, html`<div class="charts beside">${chart}${told}</div>${list}`);
}

function kernelsInWords(kernels: KernelRecord): string {
  if (kernels.origin === 'family') return `${kernels.family}, as asked for`;
  return kernels.origin === 'table' ? 'by the built-in table' : `measured ${formatMoment(kernels.measured)}`;
}

function files({ files: list }: RunReport): Html {
  const rows = list.map(
    ({ href, name, bytes, what }) =>
      html`<tr><td><a class="mono" href="${href}">${name}</a></td><td class="text">${what}</td><td>${formatBytes(bytes)}</td></tr>\n`,
  );
  const head = [th('File'), html`<th scope="col" class="text">What it is</th>`, th('Size')];
  return section('Files of the run', null, table(head, rows));
}
