import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';
import { stringify } from 'csv-stringify/sync';
import { UserError } from '../cli/errors.ts';
import { writePng } from './png.ts';
import { Random } from './random.ts';
import { rleEncode } from './rle.ts';
import { paintSyntheticImage, type SyntheticImage } from './syntheticImage.ts';
import { type SyntheticCellType, syntheticCellTypes, uniform } from './syntheticShapes.ts';

export interface SyntheticOptions {
  /** A safe integer; the same parameters give the same bytes. Default 1. */
  seed?: number;
  /** Number of images; default 72 (60 for training and 12 for validation, which the training command splits). */
  images?: number;
  /** Size of the images in pixels; default 384 × 256, whose half fills the network's strides exactly. Cells keep their size, whatever the image's. */
  width?: number;
  height?: number;
  /** Fewest and most cells of an image; default 8 and 14. On a small image some find no place and are left out. */
  cells?: [fewest: number, most: number];
}

export interface SyntheticDatasetOptions extends SyntheticOptions {
  /** The folder to make; by default one in the cache whose name tells the parameters. */
  dir?: string;
  /** Called after each image that was painted and written; never when the folder is already there. */
  progress?: (done: number, total: number) => void;
}

/** Part of the folder's name and of its parameters' hash: raise it when the painting changes. */
const VERSION = 3;
const COLUMNS = [
  'id',
  'annotation',
  'width',
  'height',
  'cell_type',
  'plate_time',
  'sample_date',
  'sample_id',
  'elapsed_timedelta',
] as const;

function parameters(options: SyntheticOptions): Required<SyntheticOptions> {
  const { seed = 1, images = 72, width = 384, height = 256, cells = [8, 14] } = options;
  return { seed, images, width, height, cells: [cells[0], cells[1]] };
}

/**
 * Paints image `index` of the set that the options describe. Images are independent of each other: each has its own generator,
 * seeded from the set's seed and the index. Two of three images show one type of cell, as the competition's; the third shows
 * a leading type and some cells of the others, so that a type has to be told by the cell and not by its surroundings.
 */
export function syntheticImage(index: number, options: SyntheticOptions = {}): SyntheticImage & { id: string } {
  const { seed, width, height, cells } = parameters(options);
  const hash = createHash('sha256').update(`synthetic ${VERSION} ${seed} ${index}`).digest();
  const random = new Random(hash.readUIntBE(0, 6));
  const kinds = syntheticCellTypes.length;
  const leading = syntheticCellTypes[index % kinds];
  const mixed = Math.floor(index / kinds) % 3 === 2;
  const count = cells[0] + random.int(cells[1] - cells[0] + 1);
  const types = Array.from({ length: count }, (): SyntheticCellType => {
    return mixed && uniform(random, 0, 1) < 0.5 ? syntheticCellTypes[random.int(kinds)] : leading;
  });
  return { id: hash.toString('hex', 6, 12), ...paintSyntheticImage(types, width, height, random) };
}

/** The default cache folder of a set: `$XDG_CACHE_HOME` or `~/.cache`, then `webgpu-mask-rcnn/synthetic-v<version>-<hash of parameters>`. */
export function syntheticCacheDir(options: SyntheticOptions = {}): string {
  const configured = process.env.XDG_CACHE_HOME;
  // The XDG specification: a relative path is to be ignored.
  const cache = configured !== undefined && isAbsolute(configured) ? configured : join(homedir(), '.cache');
  const hash = createHash('sha256')
    .update(JSON.stringify(parameters(options)))
    .digest('hex')
    .slice(0, 12);
  return join(cache, 'webgpu-mask-rcnn', `synthetic-v${VERSION}-${hash}`);
}

/**
 * Makes sure that the synthetic data set is there, in the competition's format (`train.csv` and `train/<id>.png`, 8-bit grey),
 * and returns its folder. It is written to a temporary folder beside it, which is then renamed: an interrupted run leaves no
 * half of a set, and two runs at once both end with a whole one.
 *
 * @throws UserError if `dir` is there but is no data set, or the folder cannot be written
 */
export function ensureSyntheticDataset(options: SyntheticDatasetOptions = {}): string {
  const dir = options.dir ?? syntheticCacheDir(options);
  if (existsSync(join(dir, 'train.csv'))) return dir;
  if (existsSync(dir)) {
    throw new UserError(`${dir} is there but has no train.csv: expected a data set, or no such folder yet`);
  }
  const { images: total } = parameters(options);
  const temporary = `${dir}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`;
  try {
    try {
      mkdirSync(join(temporary, 'train'), { recursive: true });
    } catch (error) {
      throw new UserError(`the folder ${dirname(dir)} cannot be written: ${(error as Error).message}`);
    }
    const rows: string[][] = [];
    for (let index = 0; index < total; index++) {
      const image = syntheticImage(index, options);
      writePng(join(temporary, 'train', `${image.id}.png`), image.width, image.height, image.pixels);
      for (const cell of image.cells) rows.push(tableRow(image, cell.type, cell.mask));
      options.progress?.(index + 1, total);
    }
    writeFileSync(join(temporary, 'train.csv'), stringify(rows, { header: true, columns: [...COLUMNS] }));
    renameOrYield(temporary, dir);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
  return dir;
}

function tableRow(image: { id: string; width: number; height: number }, type: SyntheticCellType, mask: Uint8Array) {
  // The plate and date columns belong to the format; a painted cell was never on a plate.
  const placeholders = ['0h00m00s', '2000-01-01', `synthetic[${image.id}]`, '0 days 00:00:00'];
  return [image.id, rleEncode(mask), `${image.width}`, `${image.height}`, type, ...placeholders];
}

/** Moves the finished set to its place, unless another run has put the same set there meanwhile. */
function renameOrYield(temporary: string, dir: string): void {
  try {
    renameSync(temporary, dir);
  } catch (error) {
    if (!existsSync(join(dir, 'train.csv'))) throw error;
  }
}
