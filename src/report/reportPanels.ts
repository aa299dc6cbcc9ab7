import type { ViewName } from '../eval/analyzeImage.ts';
import { classColour } from '../eval/overlay.ts';
import { formatScore } from './format.ts';
import { type Html, html, trusted } from './html.ts';
import type { PanelEntry } from './panelFolder.ts';
import { crop, encodeLayer, encodePlain } from './panelLayers.ts';
import type { ReportPanels } from './runReport.ts';

/** A swatch in the colour of a class. */
export const classKey = (label: number): Html =>
  html`<i class="key" style="background:rgb(${classColour(label).join(',')})"></i>`;

const dataUri = (png: Buffer): string => `data:image/png;base64,${png.toString('base64')}`;

const sum = ({ counts }: PanelEntry, key: 'truth' | 'found' | 'detected'): number =>
  counts.reduce((total, count) => total + count[key], 0);

/** Counts of the classes that are there, each with its colour. */
function chips({ counts }: PanelEntry, key: 'truth' | 'found'): Html {
  const shown = counts.filter((count) => count[key] > 0);
  if (shown.length === 0) return html`<span class="chip">none</span>`;
  return html`${shown.map(
    (count) => html`<span class="chip">${classKey(count.label)}<b>${count[key]}</b> ${count.class}</span>`,
  )}`;
}

/** The pictures of the run: every view of an image lies as a clear layer over the one picture that all of them share. */
export function panelArticles({ index, pictures }: ReportPanels): Html {
  return html`${index.panels.map((entry, i) => article(entry, i, pictures[i]))}`;
}

function article(entry: PanelEntry, number: number, { image, href }: ReportPanels['pictures'][number]): Html | null {
  const { id, score, boxes, views } = entry;
  if (views.image === undefined) return null;
  const base = crop(image, views.image);
  const { width, height } = base;
  const baseId = `image-${number}`;
  const view = (name: ViewName, title: string, caption: Html): Html | null => {
    const place = views[name];
    if (place === undefined) return null;
    const layer =
      name === 'image'
        ? trusted(`<image id="${baseId}" width="${width}" height="${height}" href="${dataUri(encodePlain(base))}"/>`)
        : trusted(
            `<use href="#${baseId}"/><image width="${width}" height="${height}" href="${dataUri(encodeLayer(crop(image, place), base))}"/>`,
          );
    return html`<figure><a href="${href}"><svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${title}">${layer}</svg></a><figcaption>${caption}</figcaption></figure>`;
  };
  const boxViews = [
    view('truthBoxes', `Boxes of the truth of image ${id}`, html`Boxes of the truth: <b>${sum(entry, 'truth')}</b>`),
    view('predictedBoxes', `Boxes found in image ${id}`, html`Boxes found, after NMS at IoU .6: <b>${boxes}</b>`),
  ];
  const plain = view('image', `Image ${id}`, html`Image, ${width} × ${height} dots`);
  const masks = views.prediction !== undefined;
  return html`<article class="panel">
<header><h3>${id}</h3><span class="sub">${sum(entry, 'truth')} cells, ${sum(entry, 'found')} found, ${sum(entry, 'detected')} before thresholds</span>
<span class="own">${score === null ? '' : html`score of this image <b>${formatScore(score)}</b>`}</span></header>
<div class="views">${plain}${
    masks
      ? [
          view('truth', `Truth of image ${id}`, html`Truth: ${chips(entry, 'truth')}`),
          view('prediction', `Cells found in image ${id}`, html`Found: ${chips(entry, 'found')}`),
        ]
      : boxViews
  }</div>
${masks && html`<details><summary>Boxes</summary><div class="views two">${boxViews}</div></details>`}
</article>
`;
}
