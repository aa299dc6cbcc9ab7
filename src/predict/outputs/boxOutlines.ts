import type { DrawnInstance } from '../../eval/overlay.ts';
import type { ImagePrediction } from '../prediction.ts';

/** The boxes of a box-only model's cells, cut to the image, as filled masks: drawn without opacity, their outlines are left. */
export function boxOutlines({ cells, width, height }: ImagePrediction): DrawnInstance[] {
  return cells.map(({ label, score, box }) => {
    const [left, top] = [Math.floor(box[0]), Math.floor(box[1])].map((side) => Math.max(0, side));
    const right = Math.min(width, Math.max(left + 1, Math.ceil(box[2])));
    const bottom = Math.min(height, Math.max(top + 1, Math.ceil(box[3])));
    const [w, h] = [Math.max(0, right - left), Math.max(0, bottom - top)];
    return { label, score, mask: { x: left, y: top, width: w, height: h, data: new Float32Array(w * h).fill(1) } };
  });
}
