import { UserError } from '../cli/errors.ts';
import { openCoco } from './formats/coco.ts';
import { openCompetition } from './formats/competition.ts';
import { openLabelImages } from './formats/labels.ts';
import { recognizeDataset } from './formats/recognize.ts';
import { imageStem, readImage } from './images.ts';
import { maskBox } from './maskBox.ts';
import { maskResizer } from './resize.ts';
import { rleRuns } from './rle.ts';
import { type ScaledImage, scaleImage } from './scaledImage.ts';
import { makeTarget } from './target.ts';
import type { Sample } from './types.ts';

export { COMPETITION_CLASSES } from './formats/classes.ts';
export { maskBox } from './maskBox.ts';
export { resizedSide, type ScaledImage } from './scaledImage.ts';

/** One cell. */
export interface Annotation {
  /** Run-length text at the file's size (see `rleRuns`), checked when the data set was opened; empty for a cell without a pixel. */
  rle: string;
  /** 1 … classes.length. */
  label: number;
  /** Its place in its source, for messages: the line of `train.csv`, the id in a COCO file, the number in a label image. */
  line: number;
  /** Set for a region that holds many cells and no single one (COCO's crowd). */
  iscrowd?: true;
}

/** Where an image's annotations come from, for messages as in "annotation 7 of cells.json". */
export interface AnnotationSource {
  file: string;
  /** What an annotation's `line` counts. */
  item: string;
}

const COMPETITION_TABLE: AnnotationSource = { file: 'the table', item: 'line' };

/** One image and its cells; plain data, fit to be sent to a worker. */
export interface ImageRecord {
  id: string;
  /** The image file, PNG or TIFF. */
  path: string;
  /** Size of the file in pixels. */
  width: number;
  height: number;
  /** In the source's order, crowds among them; empty for an image without cells. */
  annotations: Annotation[];
  /** By default the competition's table. */
  source?: AnnotationSource;
}

export interface Dataset {
  dir: string;
  /** Class names; the label of `classes[i]` is i + 1 (0 is background). */
  classes: string[];
  /** Sorted by id, as pandas' `groupby` sorts them in the notebook. */
  images: ImageRecord[];
}

export interface DatasetOptions {
  /** Use the competition's map of classes where all types of the file belong to it (a file without one of them keeps the labels). */
  competitionClasses?: boolean;
  /** The classes of a checkpoint: labels follow this list, and a cell type outside it is an error. */
  classes?: readonly string[];
  /** Read the first cells only: rows of the table, annotations of a COCO file, images until there are so many cells (the notebook's test mode: 5000). */
  maxRows?: number;
  /** Called while the data set is being read and checked. `total` is in units of the stage. */
  onProgress?: (stage: string, done: number, total: number) => void;
}

/**
 * Opens a data set by what it is: a folder with the competition's `train.csv` (see `openCompetition`), a COCO instance file or a
 * folder with one (`openCoco`), or a folder of label images (`openLabelImages`). A `train.csv` is taken whatever lies beside it.
 *
 * Everything that can be wrong with the input is found here, before a run writes anything: each mask is checked against its image,
 * each image file for its size, its check sums and its end.
 *
 * @param path a folder, or a COCO file (.json)
 * @throws UserError that names the file, line, annotation or image, or says what was looked for
 */
export function openDataset(path: string, options: DatasetOptions = {}): Dataset {
  const found = recognizeDataset(path);
  if (found.format === 'coco') return openCoco(found.file, options);
  return found.format === 'labels' ? openLabelImages(path, found.images, options) : openCompetition(path, options);
}

/**
 * Reads an image file and resizes it as the notebook (`cv2.imread`, `cv2.resize`), then scales it to 0…1 (`to_tensor`).
 *
 * @param resize factor on both sides; undefined for the file's size
 * @param id the image's name, by default the file's without its ending
 * @throws UserError for a file that cannot be read, or a factor that leaves no pixel
 */
export function loadImage(path: string, resize?: number, id = imageStem(path)): ScaledImage {
  return scaleImage(readImage(path), { resize, id, where: path });
}

/** A sample, and how many of its cells could not be kept. */
export interface LoadedSample extends Sample {
  /** Cells that have no extent left at this size. */
  dropped: number;
}

/**
 * Loads an image with its cells (the notebook's `CellDataset.__getitem__`): masks are resized bilinearly as floats and
 * compared with 0, boxes are the inclusive corners of the resized masks (`get_box`).
 *
 * A cell that vanishes, or whose box has no width or height (one column or row: torchvision refuses such a box), is dropped
 * and counted.
 *
 * @param resize factor on both sides; undefined for the file's size
 * @param imageId position of the image in its data set
 * @param crowds include crowds, with `iscrowd` 1 (for evaluation); by default they are left out (for training)
 * @throws UserError for an image file that cannot be read or has changed its size, or a run-length text that does not fit
 */
export function loadSample(
  record: ImageRecord,
  { resize, imageId = 0, crowds = false }: { resize?: number; imageId?: number; crowds?: boolean } = {},
): LoadedSample {
  const image = loadImage(record.path, resize, record.id);
  const { source = COMPETITION_TABLE } = record;
  const { fileWidth, fileHeight, width, height } = image;
  if (fileWidth !== record.width || fileHeight !== record.height) {
    throw new UserError(
      `${record.path} is ${fileWidth} × ${fileHeight}, but ${source.file} says ${record.width} × ${record.height}`,
    );
  }
  const annotations = crowds ? record.annotations : record.annotations.filter((annotation) => !annotation.iscrowd);
  const count = annotations.length;
  const pixels = width * height;
  const masks = new Uint8Array(count * pixels);
  const boxes = new Float32Array(count * 4);
  const labels = new Int32Array(count);
  const iscrowd = new Uint8Array(count);
  const resizer = maskResizer(fileWidth, fileHeight, width, height);
  const scratch = new Uint8Array(fileWidth * fileHeight);
  let kept = 0;
  for (const annotation of annotations) {
    const where = `${source.item} ${annotation.line} of ${source.file} (image ${record.id})`;
    const runs = rleRuns(annotation.rle, fileWidth, fileHeight, where);
    const mask = masks.subarray(kept * pixels, (kept + 1) * pixels);
    drawResized(runs, fileWidth, scratch, resizer.resize, mask);
    const box = maskBox(mask, width, height);
    if (box === undefined || box[0] === box[2] || box[1] === box[3]) {
      mask.fill(0);
      continue;
    }
    boxes.set(box, kept * 4);
    iscrowd[kept] = annotation.iscrowd ? 1 : 0;
    labels[kept++] = annotation.label;
  }
  const target =
    kept === count
      ? makeTarget(boxes, labels, masks, { iscrowd, imageId })
      : makeTarget(boxes.slice(0, kept * 4), labels.slice(0, kept), masks.slice(0, kept * pixels), {
          iscrowd: iscrowd.slice(0, kept),
          imageId,
        });
  const { id, data } = image;
  return { image: { id, width, height, data }, target, dropped: count - kept };
}

/** Decodes `runs` into the empty `scratch`, resizes the rows they touch into `out`, and empties `scratch` again. */
function drawResized(
  runs: Int32Array,
  width: number,
  scratch: Uint8Array,
  resize: ReturnType<typeof maskResizer>['resize'],
  out: Uint8Array,
): void {
  if (runs.length === 0) return;
  let first = scratch.length;
  let end = 0;
  for (let i = 0; i < runs.length; i += 2) {
    scratch.fill(1, runs[i], runs[i] + runs[i + 1]);
    first = Math.min(first, runs[i]);
    end = Math.max(end, runs[i] + runs[i + 1]);
  }
  resize(scratch, Math.floor(first / width), Math.ceil(end / width), out);
  scratch.fill(0, first, end);
}
