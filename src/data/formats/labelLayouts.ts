/** Which image belongs to which label image, by the names in a folder. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../../cli/errors.ts';
import { imageStem, isImageFile } from '../images.ts';
import type { LabelledImage } from './labels.ts';

/** Label images in one arrangement. */
export interface LabelLayout {
  /** What was found, for messages. */
  what: string;
  /** Pairs them. @throws UserError for an image without masks, masks without an image, or two of either */
  images(): LabelledImage[];
}

/** Folders that hold a part of a data set, not a cell type and not an image. */
const PARTS = /^(train|training|test|testing|val|valid|validation|stage1_\w+|images|masks)$/i;

/**
 * Looks for label images in `dir`, `dir/train` and `dir/stage1_train`, in these arrangements:
 * - Cellpose: `x.png` or `x_img.png` with `x_masks.png` or `x_cp_masks.png` (`_flows` and `_cp_output` files are passed over), in the
 *   folder itself;
 * - StarDist and others: `images/x.png` with `masks/x.png`, `x_mask` or `x_masks`;
 * - either of these in a folder for each cell type, named after it;
 * - Data Science Bowl 2018: for each image a folder with one file in `images/` and a file for each cell in `masks/`.
 * Files may be PNG or TIFF.
 *
 * @returns the arrangements that are there
 */
export function findLabelImages(dir: string): LabelLayout[] {
  return ['', 'train', 'stage1_train'].flatMap((part) => {
    const root = join(dir, part);
    return isFolder(root) ? layoutsOf(root) : [];
  });
}

function layoutsOf(root: string): LabelLayout[] {
  const layouts: LabelLayout[] = [];
  if (holdsPairs(root)) layouts.push({ what: `label images in ${root}`, images: () => pairs(root) });
  if (holdsImagesAndMasks(root)) {
    layouts.push({ what: `label images in ${join(root, 'masks')}`, images: () => imagesAndMasks(root) });
  }
  const folders = readdirSync(root, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.') && !PARTS.test(entry.name))
    .map(({ name }) => name)
    .sort();
  const byType = folders.flatMap((type): LabelLayout[] => {
    const prefixed = (images: LabelledImage[]) =>
      images.map((image) => ({ ...image, name: `${type}/${image.name}`, type }));
    const folder = join(root, type);
    if (holdsPairs(folder)) return [{ what: type, images: () => prefixed(pairs(folder)) }];
    return holdsImagesAndMasks(folder) && imageNames(join(folder, 'images')).length > 1
      ? [{ what: type, images: () => prefixed(imagesAndMasks(folder)) }]
      : [];
  });
  if (byType.length > 0) {
    const types = byType.map(({ what }) => what).join(', ');
    layouts.push({
      what: `label images in ${root}, a folder for each cell type (${types})`,
      images: () => byType.flatMap(({ images }) => images()),
    });
  } else if (folders.some((name) => holdsImagesAndMasks(join(root, name)))) {
    layouts.push({
      what: `a folder with images/ and masks/ for each image in ${root}`,
      images: () => folders.filter((name) => isFolder(join(root, name, 'images'))).map((name) => bowlImage(root, name)),
    });
  }
  return layouts;
}

function isFolder(path: string): boolean {
  return existsSync(path) && statSync(path).isDirectory();
}

/** Image files in the order of their names. */
function imageNames(dir: string): string[] {
  return readdirSync(dir).filter(isImageFile).sort();
}

const MASKS = /_masks$/;
const OTHER_OUTPUT = /_(flows|cp_output)$/;

function holdsPairs(dir: string): boolean {
  return imageNames(dir).some((name) => MASKS.test(imageStem(name)));
}

function holdsImagesAndMasks(dir: string): boolean {
  return ['images', 'masks'].every((part) => {
    const folder = join(dir, part);
    return isFolder(folder) && imageNames(folder).length > 0;
  });
}

/** Cellpose's pairs. */
function pairs(dir: string): LabelledImage[] {
  const names = imageNames(dir).filter((name) => !OTHER_OUTPUT.test(imageStem(name)));
  const images = names.filter((name) => !MASKS.test(imageStem(name)));
  const base = (name: string): string => imageStem(name).replace(/_img$/, '');
  const bases = new Set(images.map(base));
  const masks = names.filter((name) => MASKS.test(imageStem(name)));
  const paired = pair(dir, images, masks, base, (name) => {
    const own = imageStem(name).replace(MASKS, '');
    return bases.has(own) ? own : own.replace(/_cp$/, '');
  });
  return paired.map(({ id, image, mask }) => ({
    name: id,
    path: join(dir, image),
    masks: { labels: join(dir, mask) },
  }));
}

function imagesAndMasks(root: string): LabelledImage[] {
  const images = imageNames(join(root, 'images')).map((name) => join('images', name));
  const masks = imageNames(join(root, 'masks')).map((name) => join('masks', name));
  const bases = new Set(images.map(imageStem));
  const paired = pair(root, images, masks, imageStem, (name) => {
    const own = imageStem(name);
    return bases.has(own) ? own : own.replace(/_masks?$/, '');
  });
  return paired.map(({ id, image, mask }) => ({
    name: id,
    path: join(root, image),
    masks: { labels: join(root, mask) },
  }));
}

/** Joins images and masks that have the same base name: one of each. */
function pair(
  dir: string,
  images: readonly string[],
  masks: readonly string[],
  imageBase: (name: string) => string,
  maskBase: (name: string) => string,
): { id: string; image: string; mask: string }[] {
  const byBase = (names: readonly string[], base: (name: string) => string, what: string): Map<string, string> => {
    const found = new Map<string, string>();
    for (const name of names) {
      const other = found.get(base(name));
      if (other !== undefined) {
        throw new UserError(`${dir}: ${other} and ${name} are both the ${what} "${base(name)}", expected one of them`);
      }
      found.set(base(name), name);
    }
    return found;
  };
  const imageOf = byBase(images, imageBase, 'image');
  const maskOf = byBase(masks, maskBase, 'label image of');
  for (const [base, mask] of maskOf) {
    if (!imageOf.has(base))
      throw new UserError(`${join(dir, mask)} belongs to no image: there is no "${base}" in ${dir}`);
  }
  return [...imageOf].map(([id, image]) => {
    const mask = maskOf.get(id);
    if (mask === undefined) {
      throw new UserError(
        `${join(dir, image)} has no label image, expected one for each (all 0 where there is no cell)`,
      );
    }
    return { id, image, mask };
  });
}

function bowlImage(root: string, name: string): LabelledImage {
  const images = imageNames(join(root, name, 'images'));
  if (images.length !== 1) {
    throw new UserError(`${join(root, name, 'images')} holds ${images.length} images, expected one`);
  }
  const masks = join(root, name, 'masks');
  if (!isFolder(masks)) throw new UserError(`no such folder: ${masks}, expected the masks of ${images[0]}`);
  return {
    name,
    path: join(root, name, 'images', images[0]),
    masks: { cells: imageNames(masks).map((mask) => join(masks, mask)) },
  };
}
