import { appendFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'csv-stringify/sync';
import { IS_CROWD, Losses, NO_PIXEL, requireCells, type WritableFormat } from './writer.ts';

/** The competition's format: `train.csv` (an image without cells has one row with an empty annotation) and `train/<id>.png`. */
export const competitionFormat: WritableFormat = {
  check: requireCells,
  start(dir, { classes }) {
    const table = join(dir, 'train.csv');
    writeFileSync(table, stringify([['id', 'annotation', 'width', 'height', 'cell_type']]));
    const losses = new Losses();
    let cells = 0;
    return {
      imagePath: ({ id }) => join('train', `${id}.png`),
      add({ id, width, height, annotations }) {
        const rows: (string | number)[][] = [];
        for (const { rle, label, iscrowd } of annotations) {
          if (iscrowd) losses.add(IS_CROWD);
          else if (rle === '') losses.add(NO_PIXEL);
          else rows.push([id, rle, width, height, classes[label - 1]]);
        }
        cells += rows.length;
        appendFileSync(table, stringify(rows.length > 0 ? rows : [[id, '', width, height, '']]));
      },
      finish: () => ({ cells, losses: losses.lines() }),
    };
  },
};
