import { CHART_COLOURS, type LineChartOptions, lineChart } from './chart.ts';
import { type Html, html, trusted } from './html.ts';
import type { EpochRow, RunReport } from './runReport.ts';

const LOSS_NAMES: Readonly<Record<string, string>> = {
  loss_objectness: 'RPN objectness',
  loss_rpn_box_reg: 'RPN box regression',
  loss_classifier: 'Classifier',
  loss_box_reg: 'Box regression',
  loss_mask: 'Mask',
};

/** A loss in words; torchvision's name where there are none. */
export const lossName = (key: string): string => LOSS_NAMES[key] ?? key;

const SCORE_NAMES: Readonly<Record<string, string>> = {
  iouMap: 'Competition score',
  maskAP50: 'Mask AP50',
  boxMap30: 'Box mAP (IoU .3)',
  boxAP50: 'Box AP50',
};

/** A score in words; its key where there are none. */
export const scoreName = (key: string): string => SCORE_NAMES[key] ?? key;

/** Keys of the losses of some epochs, without the total, in the order in which they come. */
export function lossKeys(epochs: readonly EpochRow[]): string[] {
  const keys = new Set(epochs.flatMap(({ train, validation }) => [...Object.keys(train), ...Object.keys(validation)]));
  return [...keys].filter((key) => key !== 'total');
}

/** Keys of the scores of some epochs: those that have a name first. */
export function scoreKeys(epochs: readonly EpochRow[]): string[] {
  const present = new Set(epochs.flatMap(({ scores }) => Object.keys(scores).filter((key) => scores[key] !== null)));
  const known = Object.keys(SCORE_NAMES).filter((key) => present.has(key));
  return [...known, ...[...present].filter((key) => !known.includes(key))];
}

/** A chart with its title and the names of its curves in the page's own letters. */
function figure(title: string, note: string | null, options: Omit<LineChartOptions, 'title'>): Html {
  const svg = lineChart({ ...options, title: '', legend: false });
  const labelled = svg.replace(
    /^<svg width="\d+" height="\d+"/,
    () => html`<svg role="img" aria-label="${title}"`.text,
  );
  const { series } = options;
  const names = series.map(
    ({ name }, i) =>
      html`<span><i class="key" style="background:${CHART_COLOURS[i % CHART_COLOURS.length]}"></i>${name}</span>`,
  );
  return html`<figure class="chart"><figcaption>${title}${note !== null && html`<small>${note}</small>`}${
    series.length > 1 && html`<div class="legend">${names}</div>`
  }</figcaption>${trusted(labelled)}</figure>\n`;
}

// Drawn about as large as they are shown, on a telephone too, so that their letters keep their size.
const SMALL = { width: 350, height: 220, xLabel: '', yLabel: '', wholeX: true };
const HALF = { ...SMALL, width: 460, height: 265 };

type Curve = (value: (row: EpochRow) => number | null | undefined) => [number, number | null][];
const curveOf =
  (epochs: readonly EpochRow[]): Curve =>
  (value) =>
    epochs.map((row) => [row.epoch, value(row) ?? null]);

/** Scores, losses and learning rate; none before the first epoch's end. */
export function trainingCharts({ epochs, bestEpoch, learningRate }: RunReport): Html | null {
  if (epochs.length === 0) return null;
  const mark = bestEpoch === null ? undefined : { x: bestEpoch, label: `best: ${bestEpoch}` };
  const curve = curveOf(epochs);
  const losses = (key: string) => [
    { name: 'training', points: curve(({ train }) => train[key]) },
    { name: 'validation', points: curve(({ validation }) => validation[key]) },
  ];
  const scores = scoreKeys(epochs).map((key) => ({ name: scoreName(key), points: curve((row) => row.scores[key]) }));
  return html`<div class="charts">
${figure('Scores on the validation images', '0…1', { ...HALF, series: scores, yMin: 0, mark })}
${figure('Total loss', 'mean of each epoch', { ...HALF, series: losses('total'), mark })}
</div><div class="charts small">
${lossKeys(epochs).map((key) => figure(`${lossName(key)} loss`, null, { ...SMALL, series: losses(key), mark }))}
${figure('Learning rate', 'by step', { ...SMALL, series: [{ name: 'lr', points: learningRate }], yMin: 0 })}
</div>`;
}

/** Seconds of a training step by epoch; none before the first epoch's end. */
export function timeChart({ epochs }: RunReport): Html | null {
  if (epochs.length === 0) return null;
  const series = [{ name: 'time', points: curveOf(epochs)((row) => row.secondsPerStep) }];
  return figure('Time of a training step', 'seconds, mean of each epoch', { ...HALF, series, yMin: 0 });
}
