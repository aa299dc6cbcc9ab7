/** Picture files of either kind that is read: PNG and TIFF. */
import { copyFileSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { UserError } from '../cli/errors.ts';
import { inspectPng, type RgbImage, readPng, readPngValues, writePng } from './png.ts';
import { requireFolder } from './table.ts';
import { inspectTiff, readTiff, readTiffSamples, readTiffValues } from './tiff.ts';

/** The endings that are read, for messages. */
export const IMAGE_ENDINGS = '.png, .tif or .tiff';

const ENDING = /\.(png|tiff?)$/i;

/** Whether a file is one of the kinds that are read, by its ending. Hidden files are not. */
export function isImageFile(name: string): boolean {
  return ENDING.test(name) && !basename(name).startsWith('.');
}

/** A file's name without folder and image ending. */
export function imageStem(path: string): string {
  return basename(path).replace(ENDING, '');
}

function isTiff(path: string): boolean {
  const ending = ENDING.exec(path)?.[1].toLowerCase();
  if (ending === undefined) throw new UserError(`${path} is no image that is read, expected ${IMAGE_ENDINGS}`);
  return ending !== 'png';
}

/**
 * The size of an image file in pixels, without decoding it where that can be avoided; finds files that {@link readImage} could not
 * read: PNG by its check sums, TIFF by what its header says (see `inspectTiff`).
 *
 * @throws UserError that names the file
 */
export function inspectImage(path: string): { width: number; height: number } {
  return isTiff(path) ? inspectTiff(path) : inspectPng(path);
}

/**
 * Reads an image file as 8-bit RGB by OpenCV's rules (see `readPng`): 16 bits lose their low byte, alpha is dropped, grey becomes
 * three equal channels.
 *
 * @throws UserError that names the file
 */
export function readImage(path: string): RgbImage {
  return isTiff(path) ? readTiff(path) : readPng(path);
}

/** The numbers of a grey image file, unscaled (label images). @returns values [height, width] @throws UserError that names the file */
export function readImageValues(path: string): { width: number; height: number; values: ArrayLike<number> } {
  return isTiff(path) ? readTiffValues(path) : readPngValues(path);
}

/** Writes an image file as a PNG without loss: a PNG is copied as it is, a TIFF keeps its depth and its grey. */
export function saveAsPng(from: string, to: string): void {
  if (!isTiff(from)) {
    copyFileSync(from, to);
    return;
  }
  const { width, height, data } = readTiffSamples(from);
  writePng(to, width, height, data);
}

const COMPANION = /^(.+?)(_cp)?_(masks|flows|cp_output)$/;

/**
 * The image files of a folder in the order of their names. What Cellpose writes beside an image (`x_masks`, `x_flows`, …) is passed over.
 *
 * @throws UserError where there is no folder
 */
export function findImages(dir: string): string[] {
  requireFolder(dir);
  const names = readdirSync(dir).filter(isImageFile);
  const stems = new Set(names.map(imageStem));
  const images = names.filter((name) => {
    const base = COMPANION.exec(imageStem(name))?.[1];
    return base === undefined || !(stems.has(base) || stems.has(`${base}_img`));
  });
  return images.sort().map((name) => join(dir, name));
}

/** As {@link findImages}. @throws UserError where there is no folder or no image in it */
export function listImages(dir: string): string[] {
  const images = findImages(dir);
  if (images.length === 0) throw new UserError(`no image files in ${dir}, expected ${IMAGE_ENDINGS}`);
  return images;
}
