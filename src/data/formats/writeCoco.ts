import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { runsArea, runsBox } from '../runs.ts';
import { runsToCocoRle } from './cocoMask.ts';
import { annotationRuns, Losses, NO_PIXEL, type WritableFormat } from './writer.ts';

/**
 * COCO's instance format: `annotations/instances.json` and `images/<id>.png`. Masks are compressed run lengths; ids of images,
 * annotations and categories count from 1; areas are pixels, boxes x, y, width, height as pycocotools' `toBbox`.
 */
export const cocoFormat: WritableFormat = {
  check() {},
  start(dir, { classes, images }) {
    const file = join(dir, 'annotations', 'instances.json');
    mkdirSync(join(dir, 'annotations'));
    const imageIds = new Map(images.map((record, i) => [record, i + 1]));
    const head = {
      images: images.map(({ id, width, height }, i) => ({ id: i + 1, file_name: `${id}.png`, width, height })),
      categories: classes.map((name, i) => ({ id: i + 1, name })),
    };
    // The list of annotations may be long: it grows in the file.
    writeFileSync(file, `${JSON.stringify(head).slice(0, -1)},"annotations":[`);
    const losses = new Losses();
    let cells = 0;
    return {
      imagePath: ({ id }) => join('images', `${id}.png`),
      add(record) {
        const { width, height, annotations } = record;
        const texts: string[] = [];
        for (const annotation of annotations) {
          const runs = annotationRuns(annotation, record);
          const box = runsBox(runs, width);
          if (box === undefined) {
            losses.add(NO_PIXEL);
            continue;
          }
          const [xmin, ymin, xmax, ymax] = box;
          const text = JSON.stringify({
            id: ++cells,
            image_id: imageIds.get(record),
            category_id: annotation.label,
            segmentation: runsToCocoRle(runs, width, height),
            area: runsArea(runs),
            bbox: [xmin, ymin, xmax - xmin + 1, ymax - ymin + 1],
            iscrowd: annotation.iscrowd ? 1 : 0,
          });
          texts.push(`${cells === 1 ? '' : ','}\n${text}`);
        }
        appendFileSync(file, texts.join(''));
      },
      finish() {
        appendFileSync(file, '\n]}\n');
        return { cells, losses: losses.lines() };
      },
    };
  },
};
