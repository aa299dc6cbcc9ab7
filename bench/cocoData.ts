import { cocoPolygonCounts } from '../src/data/cocoPolygon.ts';
import { cocoCountsToString } from '../src/data/cocoRle.ts';
import { Random } from '../src/data/random.ts';
import type { CocoResult, CocoTruth } from '../src/eval/cocoFiles.ts';
import { regionOfCounts } from '../src/eval/cocoRegions.ts';

export interface CocoDataSize {
  images: number;
  /** Detections of all images together. */
  detections: number;
  /** Pixels. */
  width: number;
  height: number;
}

/** The size: 5,000 detections on 200 images of the competition's 704 × 520 pixels. */
export const COCO_DATA_SIZE: CocoDataSize = { images: 200, detections: 5000, width: 704, height: 520 };

const CATEGORIES = ['astro', 'cort', 'shsy5y'];

interface Blob {
  x: number;
  y: number;
  radius: number;
  category: number;
}

/**
 * Seeded truths and results in COCO's form: wobbly cells of all three area ranges, a few of them crowds; results are truths that
 * were moved, grown or shrunk, some under another category, and strays. Scores are multiples of 1/500, so that some are tied.
 * Truths come as polygons, results as compressed run lengths.
 */
export function cocoData(
  seed: number,
  { images, detections, width, height }: CocoDataSize = COCO_DATA_SIZE,
): { truth: CocoTruth; results: CocoResult[] } {
  const random = new Random(seed);
  const uniform = (low: number, high: number): number => low + (high - low) * random.next();
  const truth: CocoTruth = {
    images: Array.from({ length: images }, (_, i) => ({ id: i + 1, width, height })),
    categories: CATEGORIES.map((name, i) => ({ id: i + 1, name })),
    annotations: [],
  };
  const results: CocoResult[] = [];
  const blob = (): Blob => ({
    x: uniform(0, width),
    y: uniform(0, height),
    // From well below 32² square pixels to above 96².
    radius: 4 * 2 ** uniform(0, 4.2),
    category: 1 + random.int(CATEGORIES.length),
  });
  for (let i = 0; i < images; i++) {
    const count = Math.floor(((i + 1) * detections) / images) - results.length;
    const cells = Array.from({ length: Math.max(1, Math.round(count * uniform(0.7, 1.1))) }, blob);
    for (const cell of cells) {
      const polygon = outline(cell, random);
      const region = regionOfCounts(cocoPolygonCounts([polygon], width, height, 'cell'), height);
      truth.annotations.push({
        id: truth.annotations.length + 1,
        image_id: i + 1,
        category_id: cell.category,
        iscrowd: random.next() < 0.03 ? 1 : 0,
        area: region.area,
        bbox: [...region.box],
        segmentation: [polygon],
      });
    }
    for (let d = 0; d < count; d++) {
      const near = random.next() < 0.85 ? cells[random.int(cells.length)] : blob();
      const moved: Blob = {
        x: near.x + near.radius * uniform(-0.15, 0.15),
        y: near.y + near.radius * uniform(-0.15, 0.15),
        radius: near.radius * uniform(0.85, 1.15),
        category: random.next() < 0.9 ? near.category : 1 + random.int(CATEGORIES.length),
      };
      const counts = cocoPolygonCounts([outline(moved, random)], width, height, 'detection');
      results.push({
        image_id: i + 1,
        category_id: moved.category,
        score: random.int(501) / 500,
        segmentation: { size: [height, width], counts: cocoCountsToString(counts) },
      });
    }
  }
  return { truth, results };
}

/** A closed outline of 24 points, in hundredths of a pixel as annotation files have them. */
function outline({ x, y, radius }: Blob, random: Random): number[] {
  const polygon: number[] = [];
  for (let k = 0; k < 24; k++) {
    const angle = (2 * Math.PI * k) / 24;
    const r = radius * (0.9 + 0.2 * random.next());
    polygon.push(Math.round(100 * (x + r * Math.cos(angle))) / 100, Math.round(100 * (y + r * Math.sin(angle))) / 100);
  }
  return polygon;
}
