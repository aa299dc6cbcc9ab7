import { UserError } from '../../cli/errors.ts';
import type { ImageRecord } from '../dataset.ts';
import { imageStem } from '../images.ts';

/**
 * A name for each image of a data set: its file's without ending or, where two in different folders would share one, all files'
 * with their folders in front (`a/1.png` becomes `a_1`).
 *
 * @param paths of the image files, relative to the data set, parts separated by `/`
 * @param where the data set, for messages
 * @throws UserError where two images still share a name
 */
export function imageIds(paths: readonly string[], where: string): string[] {
  const stems = paths.map(imageStem);
  if (new Set(stems).size === stems.length) return stems;
  const ids = paths.map((path) => {
    const folders = path.split('/').slice(0, -1);
    return [...folders, imageStem(path)].join('_');
  });
  const seen = new Map<string, string>();
  for (const [i, id] of ids.entries()) {
    const other = seen.get(id);
    if (other !== undefined) {
      const both = other === paths[i] ? `${other} twice` : `${other} and ${paths[i]}`;
      throw new UserError(`${where}: two images have the id "${id}" (${both}), expected a name of its own for each`);
    }
    seen.set(id, paths[i]);
  }
  return ids;
}

/** Images in the order of their ids, as pandas' `groupby` sorts them in the notebook. */
export function sortById(images: ImageRecord[]): ImageRecord[] {
  return images.sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
}
