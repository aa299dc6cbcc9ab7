import type { Detections } from '../data/types.ts';
import { denseMasks, pasteMasks } from '../kernels/masks.ts';
import type { Device } from '../tensor/device.ts';
import type { ModelGolden } from './golden.ts';
import { matchRows, reorderRows } from './matching.ts';
import { type Comparison, compareValues, failedRow, type HostTensor, measuredRow, type Row } from './rows.ts';

/** Of 255. */
const MASK_TOLERANCE = 2;
/** Pixels. */
const BOX_TOLERANCE = 0.05;
const SCORE_TOLERANCE = 1e-3;

/** Names of one image's expected detections. */
export function detectionNames(golden: ModelGolden, image: number): string[] {
  const leaves = ['boxes', 'labels', 'scores', ...(golden.config.masks ? ['masks'] : [])];
  return leaves.map((leaf) => `detections.${image}.${leaf}`);
}

/** What a detection is recognised by: its box, its class before all else, and its score in hundredths. */
function features(
  boxes: ArrayLike<number>,
  labels: ArrayLike<number>,
  scores: ArrayLike<number>,
): Float32Array<ArrayBuffer> {
  const rows = new Float32Array(labels.length * 6);
  for (let i = 0; i < labels.length; i++) {
    for (let k = 0; k < 4; k++) rows[i * 6 + k] = boxes[i * 4 + k];
    rows[i * 6 + 4] = labels[i] * 1e4;
    rows[i * 6 + 5] = scores[i] * 100;
  }
  return rows;
}

/** How our detections are paired with the golden's, image by image; null where their numbers differ. */
export function matchDetections(golden: ModelGolden, found: readonly Detections[]): (Int32Array | null)[] {
  return found.map((ours, image) => {
    const [boxes, labels, scores] = detectionNames(golden, image).map((name) => golden.tensors.get(name).data);
    return matchRows(features(ours.boxes, ours.labels, ours.scores), features(boxes, labels, scores), 6);
  });
}

/**
 * The whole pixels that a mask is pasted into (torchvision's `expand_boxes` by 30 / 28 in float32, then truncated).
 * [xmin, ymin, xmax, ymax]
 */
export function pastedBox(box: ArrayLike<number>): number[] {
  const { fround } = Math;
  const scale = fround(30 / 28);
  const side = (low: number, high: number): [number, number] => {
    const half = fround(fround(fround(high - low) * 0.5) * scale);
    const centre = fround(fround(high + low) * 0.5);
    // Plus 0, so that a zero has no sign.
    return [Math.trunc(fround(centre - half)) + 0, Math.trunc(fround(centre + half)) + 0];
  };
  const [xmin, xmax] = side(box[0], box[2]);
  const [ymin, ymax] = side(box[1], box[3]);
  return [xmin, ymin, xmax, ymax];
}

export interface MaskSource {
  /** [rows, numClasses, 28, 28] of all images, ours. */
  logits: HostTensor;
  /** The first row of each image. */
  first: readonly number[];
}

/** The mask of one detection pasted with another box than its own: [height, width] probabilities. */
async function pasteAt(
  device: Device,
  source: MaskSource,
  row: number,
  label: number,
  box: Float32Array,
  size: readonly [number, number],
): Promise<Float32Array> {
  const [, classes, side] = source.logits.shape;
  const from = (row * classes + label) * side * side;
  const mask = Float32Array.from(source.logits.data.subarray(from, from + side * side), (x) => 1 / (1 + Math.exp(-x)));
  return device.scope(async () => {
    return denseMasks(await pasteMasks(device.tensor(mask, [1, side, side]), box, size), size);
  });
}

/**
 * Compares one image's detections: labels equal, scores relative to the best, boxes in pixels, masks in 255ths.
 *
 * Two boxes that agree to a rounding can be truncated to different whole pixels; all pixels of the mask then differ, as it is
 * stretched over one more or fewer. Such a mask is pasted once more at the golden's box.
 */
export async function detectionRows(
  device: Device,
  golden: ModelGolden,
  image: number,
  ours: Detections,
  order: Int32Array | null,
  source: MaskSource | undefined,
): Promise<Row[]> {
  const names = detectionNames(golden, image);
  const stage = 'detections';
  const tolerances = [BOX_TOLERANCE, 0, SCORE_TOLERANCE, MASK_TOLERANCE];
  const comparisons = names.map((name, i): Comparison => ({ name, stage, tolerance: tolerances[i] }));
  const [boxes, labels, scores, masks] = names.map((name) => golden.tensors.get(name));
  if (!order)
    return comparisons.map((comparison) =>
      failedRow(comparison, `${ours.labels.length} detections, expected ${labels.shape[0]}`),
    );
  const ownBoxes = reorderRows(ours.boxes, 4, order);
  const rows = [
    compareValues(ownBoxes, boxes.data, { ...comparisons[0], scale: 1 }),
    compareValues(reorderRows(ours.labels, 1, order), labels.data, comparisons[1]),
    compareValues(reorderRows(ours.scores, 1, order), scores.data, comparisons[2]),
  ];
  if (!masks) return rows;
  const comparison = comparisons[3];
  if (!ours.masks || !source) return [...rows, failedRow(comparison, 'the model gave no masks')];
  const [, height, width] = masks.shape;
  let worst = 0;
  let note = '';
  for (const [i, from] of order.entries()) {
    const goldenBox = Float32Array.from(boxes.data.subarray(i * 4, i * 4 + 4));
    const whole = pastedBox(ownBoxes.subarray(i * 4, i * 4 + 4));
    const same = pastedBox(goldenBox).every((corner, k) => corner === whole[k]);
    const mask = same
      ? denseMasks([ours.masks[from]], [height, width])
      : await pasteAt(device, source, source.first[image] + from, ours.labels[from], goldenBox, [height, width]);
    for (let p = 0; p < mask.length; p++) {
      const off = Math.abs(Math.round(mask[p] * 255) - masks.data[i * mask.length + p]);
      if (off <= worst) continue;
      worst = Number.isNaN(off) ? Number.POSITIVE_INFINITY : off;
      const at = `detection ${i}, row ${Math.floor(p / width)}, column ${p % width}`;
      note = `${at}: ${mask[p] * 255}, expected ${masks.data[i * mask.length + p]}`;
    }
  }
  return [...rows, measuredRow(comparison, worst, note)];
}
