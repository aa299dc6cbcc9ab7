/** One image, its truth and what the network found, side by side: the notebook's `analyze_train_sample`. */
import type { RgbImage } from '../data/png.ts';
import type { Detections, LoadedImage, Target } from '../data/types.ts';
import { drawText, textHeight, textWidth } from './bitmapFont.ts';
import { nmsForMetrics } from './boxAveragePrecision.ts';
import { COMPETITION_IOU_THRESHOLDS, imageIouMap } from './competitionScore.ts';
import { orderByScore } from './maskAveragePrecision.ts';
import {
  type DrawnBox,
  drawBoxes,
  drawInstances,
  enlarge,
  GAP,
  INK,
  type Panel,
  panelGrid,
  panelRow,
  targetInstances,
  titleHeightOf,
  toRgb,
} from './overlay.ts';
import { selectInstances } from './selectInstances.ts';
import { evaluationSample, selectionTable, type Thresholds } from './thresholds.ts';

/** IoU above which the box view drops the worse of two boxes of a class, as the notebook's. */
export const BOX_VIEW_NMS = 0.6;

/** The pictures of an image; those of masks are missing for a box-only model. */
export const VIEW_NAMES = ['image', 'truth', 'prediction', 'truthBoxes', 'predictedBoxes'] as const;
export type ViewName = (typeof VIEW_NAMES)[number];

/** Cells of a class in one image. */
export interface ClassCount {
  /** Class label, 1 … */
  label: number;
  /** Cells of the truth, crowds not counted. */
  truth: number;
  /** Cells found: above their class's score, with at least a pixel of their own; boxes after NMS for a box-only model. */
  found: number;
  /** Everything the model kept, before any threshold. */
  detected: number;
}

export interface ImageAnalysis {
  id: string;
  /** Cells by class, one entry for each label 1 … numClasses - 1. */
  counts: ClassCount[];
  /** Boxes of the box view: above their class's score, after NMS. */
  boxes: number;
  /** The image's own competition score with its precisions at IoU .50, .55 …; null for a box-only model. */
  score: { score: number; perThreshold: number[] } | null;
  /** Pictures by name, all of one size. */
  views: Partial<Record<ViewName, RgbImage>>;
}

export interface AnalysisInput {
  image: LoadedImage;
  target: Target;
  /** Everything the model kept in the image. */
  detections: Detections;
  thresholds: Thresholds;
  /** Names of the labels 1 …. */
  classes: readonly string[];
  /** Whole number of dots for a pixel of the image; by default as many as make it 600 dots wide or more. */
  scale?: number;
}

/**
 * `torchvision.ops.batched_nms`: non-maximum suppression among the boxes of each class alone.
 *
 * @param boxes [n, 4] xmin, ymin, xmax, ymax
 * @param labels [n]
 * @param scores [n]
 * @returns kept indices, best score first; equal scores in index order
 */
export function batchedNms(
  { boxes, labels, scores }: Pick<Detections, 'boxes' | 'labels' | 'scores'>,
  iouThreshold: number,
): number[] {
  const kept = [...new Set(labels)].flatMap((label) => {
    const indices = Array.from(labels.keys()).filter((i) => labels[i] === label);
    const own = Float32Array.from(indices.flatMap((i) => Array.from(boxes.subarray(4 * i, 4 * i + 4))));
    return nmsForMetrics(
      own,
      Float32Array.from(indices, (i) => scores[i]),
      iouThreshold,
    ).map((k) => indices[k]);
  });
  kept.sort((a, b) => a - b);
  return orderByScore(kept.map((i) => scores[i])).map((k) => kept[k]);
}

/** The boxes of the notebook's view: score above their class's `minScore`, then `batchedNms` at IoU .6. */
export function selectBoxes(detections: Detections, thresholds: Thresholds): DrawnBox[] {
  const { labels, scores } = detections;
  const strong = Array.from(labels.keys()).filter((i) => scores[i] > thresholds.minScore[labels[i]]);
  const own = {
    boxes: Float32Array.from(strong.flatMap((i) => Array.from(detections.boxes.subarray(4 * i, 4 * i + 4)))),
    labels: Int32Array.from(strong, (i) => labels[i]),
    scores: Float32Array.from(strong, (i) => scores[i]),
  };
  return batchedNms(own, BOX_VIEW_NMS).map((i) => ({
    box: own.boxes.subarray(4 * i, 4 * i + 4),
    label: own.labels[i],
    score: own.scores[i],
  }));
}

/**
 * Compares what the model found in an image with its truth: counts by class, the competition score of this image alone, and
 * pictures with outlines, boxes and scores in the colours of the classes.
 *
 * @throws Error if counts or sizes disagree
 */
export function analyzeImage(input: AnalysisInput): ImageAnalysis {
  const { image, target, detections, thresholds, classes, scale = analysisScale(image.width) } = input;
  const { width, height } = image;
  const plain = toRgb(image);
  const text = { scale, outline: Math.min(scale, 2), textScale: textScaleOf(scale * width) };
  const boxes = selectBoxes(detections, thresholds);
  const truthBoxes = Array.from(target.labels, (label, i) => ({ label, box: target.boxes.subarray(4 * i, 4 * i + 4) }));
  const views: ImageAnalysis['views'] = { image: enlarge(plain, scale) };
  let found: readonly { label: number }[] = boxes;
  let score: ImageAnalysis['score'] = null;
  if (detections.masks !== undefined) {
    const instances = selectInstances(detections, thresholds, width, height);
    found = instances;
    score = imageIouMap(selectionTable(evaluationSample(detections, target, width, height), thresholds));
    views.truth = drawInstances(plain, targetInstances(target, width, height), text);
    views.prediction = drawInstances(plain, instances, text);
  }
  views.truthBoxes = drawBoxes(plain, truthBoxes, text);
  // The best-scored last, over the others.
  views.predictedBoxes = drawBoxes(plain, boxes.toReversed(), text);
  const count = (labels: Iterable<number>, label: number): number => [...labels].filter((own) => own === label).length;
  const cells = target.labels.filter((_, i) => target.iscrowd[i] === 0);
  const counts = classes.map((_, i) => ({
    label: i + 1,
    truth: count(cells, i + 1),
    found: count(
      found.map(({ label }) => label),
      i + 1,
    ),
    detected: count(detections.labels, i + 1),
  }));
  return { id: image.id, counts, boxes: boxes.length, score, views };
}

/** The whole factor that makes an image 600 dots wide or more, so that thin outlines and scores can be read. */
export const analysisScale = (width: number): number => Math.max(1, Math.ceil(600 / width));

const textScaleOf = (dots: number): number => Math.max(1, Math.round(dots / 340));

/** Counts of the classes that are there, as in "9 branched, 2 round". */
export function countsText(counts: readonly ClassCount[], key: 'truth' | 'found', classes: readonly string[]): string {
  const parts = counts.filter((count) => count[key] > 0).map((count) => `${count[key]} ${classes[count.label - 1]}`);
  return parts.length === 0 ? 'no cells' : parts.join(', ');
}

/** Where a view lies in the picture. */
export interface Place {
  x: number;
  y: number;
  width: number;
  height: number;
}

/**
 * The analysis as one picture: image, truth and prediction above; counts, scores and thresholds in figures, and the boxes of
 * truth and prediction below; a legend at the foot. A box-only model has the boxes in the first row.
 *
 * @param classes names of the labels 1 …
 * @returns the picture, and where in it each view lies
 */
export function analysisPicture(
  analysis: ImageAnalysis,
  thresholds: Thresholds,
  classes: readonly string[],
): { picture: RgbImage; places: Partial<Record<ViewName, Place>> } {
  const { id, counts, boxes, score, views } = analysis;
  const image = views.image as RgbImage;
  const textScale = textScaleOf(image.width);
  const figures: Panel = { image: figuresOf(analysis, thresholds, classes), title: '' };
  const titles: Record<ViewName, string> = {
    image: id,
    truth: `truth: ${countsText(counts, 'truth', classes)}`,
    prediction: `found: ${countsText(counts, 'found', classes)}; score ${score?.score.toFixed(3)}`,
    truthBoxes: 'boxes of the truth',
    predictedBoxes: `boxes found, after NMS at IoU .6: ${boxes}`,
  };
  const layout: (ViewName | 'figures')[][] =
    score === null
      ? [['image', 'truthBoxes', 'predictedBoxes'], ['figures']]
      : [
          ['image', 'truth', 'prediction'],
          ['figures', 'truthBoxes', 'predictedBoxes'],
        ];
  const places: Partial<Record<ViewName, Place>> = {};
  const rowHeight = titleHeightOf(textScale) + image.height;
  const rows = layout.map((names, row) => {
    const panels = names.map((name, column): Panel => {
      if (name === 'figures') return figures;
      places[name] = {
        x: GAP + column * (image.width + GAP),
        y: GAP + row * (rowHeight + GAP) + titleHeightOf(textScale),
        width: image.width,
        height: image.height,
      };
      return { image: views[name] as RgbImage, title: titles[name] };
    });
    return panelRow(panels, textScale);
  });
  return { picture: panelGrid(rows, classes, textScale), places };
}

/** Counts by class, precision by IoU and thresholds, written on white; of the size of the views. */
function figuresOf(
  { counts, score, views }: ImageAnalysis,
  thresholds: Thresholds,
  classes: readonly string[],
): RgbImage {
  const { width, height } = views.image as RgbImage;
  const page: RgbImage = { width, height, data: new Uint8Array(3 * width * height).fill(255) };
  const size = textScaleOf(width);
  const line = textHeight(size) + 2 * size;
  let y = line;
  // Columns end at these shares of the width.
  const row = (name: string, cells: readonly string[]): void => {
    drawText(page, name, 1, y, INK, size);
    cells.forEach((cell, i) => {
      const right = Math.round(width * (0.55 + (0.43 * (i + 1)) / cells.length));
      drawText(page, cell, right - textWidth(cell, size), y, INK, size);
    });
    y += line;
  };
  const sum = (key: 'truth' | 'found' | 'detected'): string =>
    String(counts.reduce((total, count) => total + count[key], 0));
  const shown = counts.filter(({ truth, found, detected }) => truth + found + detected > 0);
  row('class', ['truth', 'found', 'raw']);
  for (const { label, truth, found, detected } of shown) {
    row(classes[label - 1], [String(truth), String(found), String(detected)]);
  }
  row('all', [sum('truth'), sum('found'), sum('detected')]);
  y += line;
  if (score !== null) {
    row('score of this image', [score.score.toFixed(3)]);
    COMPETITION_IOU_THRESHOLDS.forEach((iou, i) => {
      if (i % 2 === 0) row(`  TP/(TP+FP+FN) at IoU ${iou.toFixed(2).slice(1)}`, [score.perThreshold[i].toFixed(3)]);
    });
    y += line;
  }
  row('thresholds', score === null ? ['score >'] : ['score >', 'mask >']);
  for (const { label } of shown) {
    const values = [thresholds.minScore[label], ...(score === null ? [] : [thresholds.maskThreshold[label]])];
    row(
      `  ${classes[label - 1]}`,
      values.map((value) => value.toFixed(2)),
    );
  }
  return page;
}
