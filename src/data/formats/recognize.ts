import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../../cli/errors.ts';
import { findLabelImages } from './labelLayouts.ts';
import type { LabelledImage } from './labels.ts';

export type Recognized =
  | { format: 'competition' }
  | { format: 'coco'; file: string }
  | { format: 'labels'; images: LabelledImage[] };

/**
 * Tells by the names in a folder in which format its data set is.
 *
 * @param path a folder, or a COCO file
 * @throws UserError for no folder, one that fits no format (what was looked for is told), or one that fits several
 */
export function recognizeDataset(path: string): Recognized {
  if (!existsSync(path)) throw new UserError(`no such ${/\.json$/i.test(path) ? 'file' : 'folder'}: ${path}`);
  if (!statSync(path).isDirectory()) {
    if (/\.json$/i.test(path)) return { format: 'coco', file: path };
    throw new UserError(`${path} is not a folder, nor a COCO file (.json)`);
  }
  if (existsSync(join(path, 'train.csv'))) return { format: 'competition' };
  const files = cocoFiles(path);
  const layouts = findLabelImages(path);
  const found = [...files.map((file) => `the COCO file ${file}`), ...layouts.map(({ what }) => what)];
  if (found.length > 1) {
    const shown = found.length > 6 ? [...found.slice(0, 5), `${found.length - 5} more`] : found;
    throw new UserError(`${path} holds several data sets (${shown.join('; ')}), expected one: name the file or folder`);
  }
  if (files.length === 1) return { format: 'coco', file: join(path, files[0]) };
  if (layouts.length === 1) return { format: 'labels', images: layouts[0].images() };
  throw new UserError(
    `no train.csv in ${path}, no COCO file (instances*.json, *coco*.json or annotations/*.json) and no label images (x.png with x_masks.png, images/ with masks/, or a folder with both for each image): expected one of them`,
  );
}

/** COCO files of a folder by their names, relative to it. */
function cocoFiles(dir: string): string[] {
  const jsons = (folder: string): string[] =>
    readdirSync(join(dir, folder), { withFileTypes: true }).flatMap((entry) => {
      const path = join(folder, entry.name);
      if (entry.name.startsWith('.')) return [];
      if (entry.isDirectory()) return folder === '' ? [] : jsons(path);
      return /\.json$/i.test(entry.name) ? [path] : [];
    });
  const own = jsons('').filter((name) => /^instances|coco|^annotations?\.json$/i.test(name));
  const annotations = join(dir, 'annotations');
  const below = existsSync(annotations) && statSync(annotations).isDirectory() ? jsons('annotations') : [];
  return [...own, ...below].sort();
}
