import { Uint8ArrayReader, Uint8ArrayWriter, ZipWriter } from '@zip.js/zip.js';
import { maskPolygons } from '../../eval/contours.ts';
import { classColour } from '../../eval/overlay.ts';
import type { ImagePrediction } from '../prediction.ts';
import { encodeRoi } from './imagejRoi.ts';

// Of no importance, but the same at each run and in each time zone.
const DATE = new Date(1980, 0, 1);

/**
 * An image's cells as a zip of ImageJ regions, which Fiji's ROI Manager opens: `0001-astro.roi` is the best-scored cell, with class
 * and score among its properties. Each region's position is the image's place in its folder, from 1, so that regions fall on their slices
 * when the folder is opened as an image sequence; on a single image ImageJ does not look at it.
 *
 * @param classes names of the labels 1 …
 * @returns the bytes of the zip
 * @throws Error for cells without masks
 */
export async function imagejZip({ cells, position }: ImagePrediction, classes: readonly string[]): Promise<Uint8Array> {
  const zip = new ZipWriter(new Uint8ArrayWriter(), {
    lastModDate: DATE,
    extendedTimestamp: false,
    useWebWorkers: false,
  });
  for (const [i, { label, score, mask }] of cells.entries()) {
    if (mask === undefined) throw new Error('imagejZip: a box-only model has no masks');
    const className = classes[label - 1];
    const name = `${String(i + 1).padStart(4, '0')}-${className.replace(/[^\p{L}\p{N}._ -]/gu, '_')}`;
    const roi = encodeRoi(maskPolygons(mask), {
      name,
      position: position + 1,
      colour: classColour(label),
      properties: { class: className, score: score.toFixed(4) },
    });
    await zip.add(`${name}.roi`, new Uint8ArrayReader(roi));
  }
  return zip.close();
}
