import type { ImagePrediction } from '../prediction.ts';

/** The most instances that 16 bits tell apart. */
const MOST = 65535;

/**
 * An image's cells by number, as Cellpose and Fiji keep them: 0 is background, n the n-th cell, best score first.
 *
 * @returns [height, width]
 * @throws Error for cells without masks, or more cells than 16 bits can number
 */
export function labelImage({ id, width, height, cells }: ImagePrediction): Uint16Array {
  if (cells.length > MOST) throw new Error(`labelImage: ${id} has ${cells.length} cells, a label image holds ${MOST}`);
  const labels = new Uint16Array(width * height);
  for (const [i, { mask }] of cells.entries()) {
    if (mask === undefined) throw new Error('labelImage: a box-only model has no masks');
    for (let row = 0, at = 0; row < mask.height; row++) {
      const start = (mask.y + row) * width + mask.x;
      for (let column = 0; column < mask.width; column++, at++) {
        if (mask.data[at] > 0) labels[start + column] = i + 1;
      }
    }
  }
  return labels;
}
