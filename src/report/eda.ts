import type { Dataset, ImageRecord } from '../data/dataset.ts';
import { cellsOf, countCells, type ImageCount } from '../data/imageCounts.ts';
import { rleRuns } from '../data/rle.ts';
import { runsExtent } from '../data/runs.ts';
import { type Description, describe, quantileBins, quantileEdges } from '../data/statistics.ts';

/** Groups of images by their number of cells, as the notebook's `qcut(…, 5)`. */
export const QUANTILES = 5;

/** Cells that a model can give back: torchvision's default, and the notebook's setting. */
const DETECTION_LIMITS = [100, 540];

/** What is worth knowing of one class before training. */
export interface ClassSummary {
  name: string;
  images: number;
  cells: number;
  /** Cells of this class in each image that has any, in the order of {@link DataSummary.rows}. */
  cellsPerImage: number[];
  description: Description;
  /** Edges between five groups of images, as equal as ties allow; empty for a class without images. */
  edges: number[];
  quantiles: { label: string; images: number; cells: number }[];
  /** Pixels of each cell. */
  areas: number[];
  /** Longer side of each cell's box in pixels. */
  boxSides: number[];
  /** The image whose number of cells is nearest to the median. */
  example: ImageRecord | undefined;
}

/** What is worth knowing of a data set before training. */
export interface DataSummary {
  dir: string;
  images: number;
  cells: number;
  imagesWithoutCells: number;
  /** The notebook's `df_images` with the group of each row: cells per image and class, most first. */
  rows: (ImageCount & { quantile: string })[];
  /** Of the column of `rows`, as the notebook describes it. */
  description: Description;
  /** Of the cells of every type in each image, images without cells included. */
  imageDescription: Description;
  classes: ClassSummary[];
  /** How many images have more cells than a model may find, and how many cells that leaves out at least. */
  limits: { detections: number; images: number; cells: number }[];
  /** Sizes of images in pixels, the most frequent first. */
  sizes: { width: number; height: number; images: number }[];
}

/**
 * The tables of the notebook's exploration cells (images and cells per type, `describe`, quantiles per type), and the sizes of
 * cells and images.
 */
export function summarizeData(dataset: Dataset): DataSummary {
  const { images, classes } = dataset;
  const counted = countCells(dataset);
  const shapes = measureCells(dataset);
  const byId = new Map(images.map((image) => [image.id, image]));
  const quantileOf = new Map<ImageCount, string>();
  const summaries = classes.map((name, i): ClassSummary => {
    const rows = counted.filter(({ cellType }) => cellType === name);
    const cellsPerImage = rows.map(({ cells }) => cells);
    const bins = rows.length === 0 ? [] : quantileBins(cellsPerImage, QUANTILES);
    for (const { label, members } of bins) for (const member of members) quantileOf.set(rows[member], label);
    const description = describe(cellsPerImage);
    return {
      name,
      images: rows.length,
      cells: sum(cellsPerImage),
      cellsPerImage,
      description,
      edges: rows.length === 0 ? [] : quantileEdges(cellsPerImage, QUANTILES),
      quantiles: bins.map(({ label, members }) => ({
        label,
        images: members.length,
        cells: sum(members.map((member) => cellsPerImage[member])),
      })),
      ...shapes[i],
      example: byId.get(nearest(rows, description['50%'])?.id ?? ''),
    };
  });
  const perImage = images.map((image) => cellsOf(image).length);
  return {
    dir: dataset.dir,
    images: images.length,
    cells: sum(perImage),
    imagesWithoutCells: perImage.filter((cells) => cells === 0).length,
    rows: counted.map((row) => ({ ...row, quantile: quantileOf.get(row) ?? '' })),
    description: describe(counted.map(({ cells }) => cells)),
    imageDescription: describe(perImage),
    classes: summaries,
    limits: DETECTION_LIMITS.map((detections) => {
      const above = perImage.filter((cells) => cells > detections);
      return { detections, images: above.length, cells: sum(above) - above.length * detections };
    }),
    sizes: sizesOf(images),
  };
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

function nearest(rows: readonly ImageCount[], cells: number): ImageCount | undefined {
  let best: ImageCount | undefined;
  for (const row of rows) {
    if (best === undefined || Math.abs(row.cells - cells) < Math.abs(best.cells - cells)) best = row;
  }
  return best;
}

/** Areas and longer box sides of the cells, class by class. */
function measureCells({ dir, images, classes }: Dataset): Pick<ClassSummary, 'areas' | 'boxSides'>[] {
  const shapes = classes.map(() => ({ areas: [] as number[], boxSides: [] as number[] }));
  for (const image of images) {
    for (const { rle, label, line } of cellsOf(image)) {
      const runs = rleRuns(rle, image.width, image.height, `${dir}, line ${line}`);
      const { area, width, height } = runsExtent(runs, image.width);
      shapes[label - 1].areas.push(area);
      shapes[label - 1].boxSides.push(Math.max(width, height));
    }
  }
  return shapes;
}

function sizesOf(images: readonly ImageRecord[]): DataSummary['sizes'] {
  const sizes = new Map<string, { width: number; height: number; images: number }>();
  for (const { width, height } of images) {
    const key = `${width} ${height}`;
    const size = sizes.get(key) ?? { width, height, images: 0 };
    size.images++;
    sizes.set(key, size);
  }
  return [...sizes.values()].sort((a, b) => b.images - a.images);
}
