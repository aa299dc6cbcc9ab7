import type { RgbImage } from '../data/png.ts';
import type { LoadedImage, MaskCrop, Target } from '../data/types.ts';
import { type Colour, drawText, fillRect, textHeight, textWidth } from './bitmapFont.ts';

/** An instance to draw; `SelectedInstance` of the submission is one. */
export interface DrawnInstance {
  /** A crop (pixels above .5 are drawn) or a full-size mask [height, width] of 0 and 1. */
  mask: MaskCrop | Uint8Array;
  /** Class label, 1 …; chooses the colour. */
  label: number;
  /** 0…1; written into the instance where there is room. */
  score?: number;
}

export interface DrawOptions {
  /** Whole number of pixels for a pixel of the image; default 1. */
  scale?: number;
  /** How much of the class's colour covers the instance, 0…1; default .28. */
  opacity?: number;
  /** Draw the outline of each instance; default true. */
  contours?: boolean;
  /** Dots of the outline, 1 … scale, inwards from the instance's edge; default 1. */
  outline?: number;
  /** Write scores; default true. */
  scores?: boolean;
  /** Size of the scores' letters, 1, 2, …; where they do not fit, smaller ones are tried. Default 1. */
  textScale?: number;
}

/** A box to draw. */
export interface DrawnBox {
  /** xmin, ymin, xmax, ymax in pixels of the image. */
  box: ArrayLike<number>;
  /** Class label, 1 …; chooses the colour. */
  label: number;
  /** 0…1; written above the box, or inside where there is no room above. */
  score?: number;
}

/** One panel of a row. */
export interface Panel {
  image: RgbImage;
  title: string;
}

/** What `comparisonPicture` shows in a row. */
export interface Comparison {
  id: string;
  image: RgbImage;
  truth: DrawnInstance[];
  predicted: DrawnInstance[];
}

// Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), told apart with every kind of colour vision; the order puts those
// that stand out from mid grey first.
const PALETTE: readonly Colour[] = [
  [230, 159, 0],
  [86, 180, 233],
  [0, 190, 135],
  [240, 228, 66],
  [213, 94, 0],
  [204, 121, 167],
  [0, 114, 178],
];
const PAPER: Colour = [255, 255, 255];
export const INK: Colour = [40, 40, 40];
/** Pixels between panels, and around a grid of them. */
export const GAP = 6;

/** The colour of a class label, 1 …; labels beyond the palette start it again. */
export function classColour(label: number): Colour {
  return PALETTE[(Math.max(1, label) - 1) % PALETTE.length];
}

/** An image as loaded (float 0…1, channels last), in 8 bits. */
export function toRgb(image: LoadedImage): RgbImage {
  const data = Uint8Array.from(image.data, (value) => Math.round(255 * Math.min(1, Math.max(0, value))));
  return { width: image.width, height: image.height, data };
}

/** The truth of an image as instances to draw. */
export function targetInstances(target: Target, width: number, height: number): DrawnInstance[] {
  const size = width * height;
  return Array.from(target.labels, (label, i) => ({ mask: target.masks.subarray(i * size, (i + 1) * size), label }));
}

/** An image with each pixel repeated `factor` times in both directions. */
export function enlarge(image: RgbImage, factor: number): RgbImage {
  if (!Number.isInteger(factor) || factor < 1)
    throw new RangeError(`enlarge: the factor must be 1, 2, …, got ${factor}`);
  const [width, height] = [image.width * factor, image.height * factor];
  const data = new Uint8Array(3 * width * height);
  for (let y = 0, i = 0; y < height; y++) {
    const row = Math.floor(y / factor) * image.width;
    for (let x = 0; x < width; x++, i += 3) {
      const from = 3 * (row + Math.floor(x / factor));
      data[i] = image.data[from];
      data[i + 1] = image.data[from + 1];
      data[i + 2] = image.data[from + 2];
    }
  }
  return { width, height, data };
}

/**
 * Draws instances over an image: translucent fill and full outline in the class's colour, scores where they fit.
 *
 * @param image left as it is
 * @param instances masks at the image's size; later ones are drawn over earlier ones
 * @returns a new image, `scale` times as large
 */
export function drawInstances(
  image: RgbImage,
  instances: readonly DrawnInstance[],
  options: DrawOptions = {},
): RgbImage {
  const { scale = 1, opacity = 0.28, contours = true, outline = 1, scores = true, textScale = 1 } = options;
  const drawn = enlarge(image, scale);
  const windows = instances.map((instance) => windowOf(instance.mask, image.width, image.height));
  instances.forEach((instance, i) => {
    paint(drawn, windows[i], scale, classColour(instance.label), opacity, contours ? outline : 0);
  });
  // Scores last, so that no later instance covers them.
  if (scores) {
    instances.forEach((instance, i) => {
      if (instance.score !== undefined) writeScore(drawn, windows[i], scale, instance.score, textScale);
    });
  }
  return drawn;
}

/** The box of a mask's pixels, and which of them are set. */
interface Window {
  x: number;
  y: number;
  width: number;
  height: number;
  /** For column and row of the image; false outside the mask. */
  has: (x: number, y: number) => boolean;
}

function windowOf(mask: MaskCrop | Uint8Array, width: number, height: number): Window {
  if (mask instanceof Uint8Array) {
    if (mask.length !== width * height) {
      throw new Error(`drawInstances: a mask has ${mask.length} pixels, the image ${width} × ${height}`);
    }
    const has = (x: number, y: number) => x >= 0 && y >= 0 && x < width && y < height && mask[y * width + x] !== 0;
    return tighten({ x: 0, y: 0, width, height, has });
  }
  const inside = (x: number, y: number) =>
    x >= Math.max(0, mask.x) &&
    y >= Math.max(0, mask.y) &&
    x < Math.min(width, mask.x + mask.width) &&
    y < Math.min(height, mask.y + mask.height);
  const has = (x: number, y: number) => inside(x, y) && mask.data[(y - mask.y) * mask.width + x - mask.x] > 0.5;
  return tighten({ x: mask.x, y: mask.y, width: mask.width, height: mask.height, has });
}

/** The same window cut to the pixels that are set; of size 0 if none is. */
function tighten(window: Window): Window {
  let [left, right, top, bottom] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let y = window.y; y < window.y + window.height; y++) {
    for (let x = window.x; x < window.x + window.width; x++) {
      if (!window.has(x, y)) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = y;
    }
  }
  if (right < left) return { ...window, width: 0, height: 0 };
  return { x: left, y: top, width: right - left + 1, height: bottom - top + 1, has: window.has };
}

function paint(drawn: RgbImage, window: Window, scale: number, colour: Colour, opacity: number, outline: number) {
  const { x: left, y: top, has } = window;
  for (let y = top; y < top + window.height; y++) {
    for (let x = left; x < left + window.width; x++) {
      if (!has(x, y)) continue;
      const open = outline > 0 ? [!has(x - 1, y), !has(x + 1, y), !has(x, y - 1), !has(x, y + 1)] : [];
      // Of an enlarged pixel only the side that looks outwards is outline, so that outlines stay thin.
      for (let v = 0; v < scale; v++) {
        for (let u = 0; u < scale; u++) {
          const edge =
            (open[0] && u < outline) ||
            (open[1] && u >= scale - outline) ||
            (open[2] && v < outline) ||
            (open[3] && v >= scale - outline);
          const at = 3 * ((y * scale + v) * drawn.width + x * scale + u);
          const share = edge ? 1 : opacity;
          for (let c = 0; c < 3; c++) drawn.data[at + c] += Math.round(share * (colour[c] - drawn.data[at + c]));
        }
      }
    }
  }
}

/** Two decimals without the leading zero. */
const scoreText = (score: number): string => score.toFixed(2).replace(/^0/, '');

/** Two decimals in the middle of the instance's box, if the box is wide and high enough. */
function writeScore(drawn: RgbImage, window: Window, scale: number, score: number, textScale: number): void {
  const text = scoreText(score);
  for (let size = textScale; size >= 1; size--) {
    const [width, height] = [textWidth(text, size), textHeight(size)];
    if (window.width * scale < width + 4 || window.height * scale < height + 2) continue;
    const x = Math.round((window.x + window.width / 2) * scale - width / 2);
    const y = Math.round((window.y + window.height / 2) * scale - height / 2);
    drawShadowed(drawn, text, x, y, size);
    return;
  }
}

/** White letters on a dark shadow, legible on any image. */
function drawShadowed(drawn: RgbImage, text: string, x: number, y: number, size: number): void {
  for (const [dx, dy] of [
    [-1, 0],
    [1, 0],
    [0, -1],
    [0, 1],
  ]) {
    drawText(drawn, text, x + dx * size, y + dy * size, INK, size);
  }
  drawText(drawn, text, x, y, PAPER, size);
}

/**
 * Draws boxes over an image in their class's colour, with their scores.
 *
 * @param image left as it is
 * @param boxes later ones are drawn over earlier ones; parts outside the image are cut off
 * @returns a new image, `scale` times as large
 */
export function drawBoxes(
  image: RgbImage,
  boxes: readonly DrawnBox[],
  { scale = 1, outline = 1, scores = true, textScale = 1 }: Omit<DrawOptions, 'opacity' | 'contours'> = {},
): RgbImage {
  const drawn = enlarge(image, scale);
  for (const { box, label } of boxes) {
    const [left, top, right, bottom] = Array.from(box, (side) => Math.round(side * scale));
    const [width, height] = [right - left + 1, bottom - top + 1];
    const colour = classColour(label);
    fillRect(drawn, left, top, width, outline, colour);
    fillRect(drawn, left, bottom + 1 - outline, width, outline, colour);
    fillRect(drawn, left, top, outline, height, colour);
    fillRect(drawn, right + 1 - outline, top, outline, height, colour);
  }
  if (scores) {
    for (const { box, score } of boxes) {
      if (score === undefined) continue;
      const above = Math.round(box[1] * scale) - textHeight(textScale);
      drawShadowed(drawn, scoreText(score), Math.round(box[0] * scale) + 1, Math.max(above, 1), textScale);
    }
  }
  return drawn;
}

function blank(width: number, height: number): RgbImage {
  return { width, height, data: new Uint8Array(3 * width * height).fill(255) };
}

function place(page: RgbImage, image: RgbImage, x: number, y: number): void {
  for (let row = 0; row < image.height; row++) {
    const source = image.data.subarray(3 * row * image.width, 3 * (row + 1) * image.width);
    page.data.set(source, 3 * ((y + row) * page.width + x));
  }
}

/** Rows of pixels that a row's titles take above its panels. */
export const titleHeightOf = (textScale: number): number => textHeight(textScale) + 4;

/** Panels side by side on white, each below its title in letters of `textScale`; a title too long for its panel is cut. */
export function panelRow(panels: readonly Panel[], textScale = 1): RgbImage {
  const titleHeight = titleHeightOf(textScale);
  const width = panels.reduce((sum, panel) => sum + panel.image.width, 0) + GAP * Math.max(0, panels.length - 1);
  const height = titleHeight + Math.max(0, ...panels.map((panel) => panel.image.height));
  const page = blank(width, height);
  let x = 0;
  for (const { image, title } of panels) {
    let text = title;
    while (text.length > 0 && textWidth(text, textScale) > image.width - 2) text = text.slice(0, -1);
    drawText(page, text, x + 1, 2, INK, textScale);
    place(page, image, x, titleHeight);
    x += image.width + GAP;
  }
  return page;
}

/**
 * Rows of panels below each other on white, with a margin and a legend of the classes at the foot.
 *
 * @param rows of any widths
 * @param classes names of the labels 1 …; none for no legend
 * @param textScale size of the legend's letters
 */
export function panelGrid(rows: readonly RgbImage[], classes: readonly string[] = [], textScale = 1): RgbImage {
  const swatch = textHeight(textScale);
  const entryWidth = (name: string) => swatch + 4 + textWidth(name, textScale) + 14;
  const inner = Math.max(1, ...rows.map((row) => row.width));
  // The legend breaks into as many lines as the page's width asks for.
  const entries: { name: string; label: number; x: number; line: number }[] = [];
  let [x, line] = [0, 0];
  classes.forEach((name, i) => {
    if (x > 0 && x + entryWidth(name) > inner) [x, line] = [0, line + 1];
    entries.push({ name, label: i + 1, x, line });
    x += entryWidth(name);
  });
  const legendHeight = entries.length === 0 ? 0 : (line + 1) * (swatch + 4);
  const height = rows.reduce((sum, row) => sum + row.height + GAP, 0) + legendHeight + GAP;
  const page = blank(inner + 2 * GAP, height);
  let y = GAP;
  for (const row of rows) {
    place(page, row, GAP, y);
    y += row.height + GAP;
  }
  for (const entry of entries) {
    const top = y + entry.line * (swatch + 4);
    fillRect(page, GAP + entry.x, top, swatch, swatch, classColour(entry.label));
    drawText(page, entry.name, GAP + entry.x + swatch + 4, top, INK, textScale);
  }
  return page;
}

/** The whole factor that brings an image's width to 340 pixels or more. */
export const panelScale = (width: number): number => Math.max(1, Math.ceil(340 / width));

/**
 * The picture of a run's end: a row `image | truth | prediction` for each comparison, and a legend of the classes.
 *
 * @param classes names of the labels 1 …
 */
export function comparisonPicture(comparisons: readonly Comparison[], classes: readonly string[]): RgbImage {
  const count = (instances: readonly DrawnInstance[]) =>
    `${instances.length} ${instances.length === 1 ? 'cell' : 'cells'}`;
  const rows = comparisons.map(({ id, image, truth, predicted }) => {
    const scale = panelScale(image.width);
    return panelRow([
      { image: enlarge(image, scale), title: id },
      { image: drawInstances(image, truth, { scale, scores: false }), title: `truth, ${count(truth)}` },
      { image: drawInstances(image, predicted, { scale }), title: `prediction, ${count(predicted)}` },
    ]);
  });
  return panelGrid(rows, classes);
}
