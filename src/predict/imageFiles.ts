import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import { UserError } from '../cli/errors.ts';
import { sha256OfFile } from '../data/files.ts';
import { glancePng, type PngGlance } from '../data/glancePng.ts';
import { imageStem, inspectImage, listImages } from '../data/images.ts';
import { inShard, type Shard } from './shards.ts';

/** An image to predict. */
export interface ImageFile {
  /** The file's name without its ending. */
  id: string;
  path: string;
  /** Its place among all images of the folder, from 0. */
  position: number;
  width: number;
  height: number;
  /** Tells the file's contents from others, see `glancePng`. */
  fingerprint: string;
}

/** The images of a folder, or of one part of it. */
export interface ImageFolder {
  files: ImageFile[];
  /** All images of the folder, whatever the part. */
  count: number;
  /** Changes with the names of all images of the folder. */
  sha256: string;
}

/**
 * Lists a folder's images in the order of their names and looks at those of the part: their sizes, and that none is truncated.
 * What else may be wrong with a file is found when it is decoded.
 *
 * @throws UserError for a folder without images, two files of one id, or a file that is no image
 */
export function openImageFolder(dir: string, shard: Shard): ImageFolder {
  const paths = listImages(dir);
  const names = createHash('sha256');
  const seen = new Map<string, string>();
  const files: ImageFile[] = [];
  for (const [position, path] of paths.entries()) {
    const name = basename(path);
    const id = imageStem(path);
    const other = seen.get(id);
    if (other !== undefined) {
      throw new UserError(
        `${dir}: ${other} and ${name} would both be the image "${id}", expected a name of its own each.`,
      );
    }
    seen.set(id, name);
    names.update(`${name}\n`);
    if (inShard(position, shard)) files.push({ id, path, position, ...glance(path) });
  }
  return { files, count: paths.length, sha256: names.digest('hex') };
}

/** A PNG's two ends tell enough; a TIFF may keep its directory anywhere, so it is read whole. */
function glance(path: string): PngGlance {
  return /\.png$/i.test(path) ? glancePng(path) : { ...inspectImage(path), fingerprint: sha256OfFile(path) };
}

/**
 * Cuts a list into steps of up to `size` neighbours of equal size in pixels, so that no image is padded for another: what the model
 * finds in one does not depend on its neighbours.
 */
export function batchesOf<T extends { width: number; height: number }>(files: readonly T[], size: number): T[][] {
  const batches: T[][] = [];
  for (const file of files) {
    const last = batches.at(-1);
    if (last && last.length < size && last[0].width === file.width && last[0].height === file.height) last.push(file);
    else batches.push([file]);
  }
  return batches;
}
