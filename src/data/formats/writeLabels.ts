import { appendFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'csv-stringify/sync';
import { UserError } from '../../cli/errors.ts';
import type { Dataset } from '../dataset.ts';
import { writePng } from '../png.ts';
import { CELL_TYPES_FILE, ONLY_CLASS } from './labels.ts';
import { annotationRuns, IS_CROWD, Losses, NO_PIXEL, requireCells, type WritableFormat } from './writer.ts';

/** The highest label of 16 bits. */
const MOST_CELLS = 65535;
/** Endings that Cellpose's convention gives a meaning. */
const TAKEN = /_(masks|img|flows|cp_output)$/;

/**
 * Label images by Cellpose's convention: `<id>.png` with `<id>_masks.png` (16 bits; 0 is background, n the n-th cell). Where cells
 * overlap, a pixel stays with the first. Cell types other than "cell" go to `cell_types.csv`.
 */
export const labelsFormat: WritableFormat = {
  check(dataset: Dataset) {
    requireCells(dataset);
    for (const { id, annotations } of dataset.images) {
      if (annotations.length > MOST_CELLS) {
        throw new UserError(
          `image "${id}" has ${annotations.length} cells, but a label image of 16 bits holds ${MOST_CELLS}`,
        );
      }
      if (TAKEN.test(id)) {
        throw new UserError(`image "${id}" cannot have a label image: names of this ending mean something else there`);
      }
    }
  },
  start(dir, { classes }) {
    const table = join(dir, CELL_TYPES_FILE);
    const typed = classes.some((name) => name !== ONLY_CLASS);
    if (typed) writeFileSync(table, stringify([['id', 'label', 'cell_type']]));
    const losses = new Losses();
    let cells = 0;
    return {
      imagePath: ({ id }) => `${id}.png`,
      add(record) {
        const { id, width, height, annotations } = record;
        const labels = new Uint16Array(width * height);
        const types: (string | number)[][] = [];
        for (const annotation of annotations) {
          if (annotation.iscrowd) {
            losses.add(IS_CROWD);
            continue;
          }
          const runs = annotationRuns(annotation, record);
          const { own, taken } = claim(runs, labels, types.length + 1);
          if (own > 0) types.push([id, types.length + 1, classes[annotation.label - 1]]);
          if (own + taken === 0) losses.add(NO_PIXEL);
          else if (own === 0) losses.add('Cells wholly under others, left out');
          else if (taken > 0) losses.add('Cells that overlap others before them and keep only their free pixels');
        }
        cells += types.length;
        writePng(join(dir, `${id}_masks.png`), width, height, labels);
        if (typed) appendFileSync(table, stringify(types));
      },
      finish: () => ({ cells, losses: losses.lines() }),
    };
  },
};

/** Writes a label where none is yet. @returns pixels that it got, and that other cells have */
function claim(runs: Int32Array, labels: Uint16Array, label: number): { own: number; taken: number } {
  let own = 0;
  let taken = 0;
  for (let i = 0; i < runs.length; i += 2) {
    for (let pixel = runs[i]; pixel < runs[i] + runs[i + 1]; pixel++) {
      if (labels[pixel] === 0) {
        labels[pixel] = label;
        own++;
      } else if (labels[pixel] !== label) taken++;
    }
  }
  return { own, taken };
}
