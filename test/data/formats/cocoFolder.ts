import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { writePng } from '../../../src/data/png.ts';
import { noise, temporaryFolder } from '../folders.ts';

/** The parts of a COCO file; any value, so that tests can spoil them. */
export interface CocoParts {
  images: Record<string, unknown>[];
  annotations: Record<string, unknown>[];
  categories: Record<string, unknown>[];
}

/** A square's polygon. */
export function square(x: number, y: number, side: number): number[] {
  return [x, y, x + side, y, x + side, y + side, x, y + side];
}

/** Two images, 12 × 10 and 8 × 6; the first has two cells (a polygon, and plain run lengths) and a crowd (compressed). */
export function cocoParts(): CocoParts {
  return {
    images: [
      { id: 70, file_name: 'a.png', width: 12, height: 10 },
      { id: 71, file_name: 'b.png', width: 8, height: 6 },
    ],
    annotations: [
      { id: 31, image_id: 70, category_id: 7, iscrowd: 0, segmentation: [square(1, 2, 3)] },
      // Columns 5 and 6, rows 5 and 6.
      { id: 5, image_id: 70, category_id: 3, iscrowd: 0, segmentation: { size: [10, 12], counts: [55, 2, 8, 2, 53] } },
      // Rows 0 and 1.
      { id: 33, image_id: 70, category_id: 3, iscrowd: 1, segmentation: { size: [10, 12], counts: crowdCounts } },
    ],
    categories: [
      { id: 7, name: 'round', supercategory: 'cell' },
      { id: 3, name: 'spindle', supercategory: 'cell' },
      { id: 9, name: 'never', supercategory: 'cell' },
    ],
  };
}

/** pycocotools' `encode` of rows 0 and 1 of 12 × 10 pixels. */
const crowdCounts = '0280000000000000000000000';

/** Writes the parts as a file, and its images into `images/`. @returns the folder */
export function writeCocoDataset(parts: Partial<CocoParts> = {}, name = 'cells.json'): string {
  const dir = temporaryFolder();
  mkdirSync(dirname(join(dir, name)), { recursive: true });
  writeFileSync(join(dir, name), JSON.stringify({ info: {}, ...cocoParts(), ...parts }));
  mkdirSync(join(dir, 'images'));
  writePng(join(dir, 'images/a.png'), 12, 10, noise(12, 10, 1));
  writePng(join(dir, 'images/b.png'), 8, 6, noise(8, 6, 2));
  return dir;
}
