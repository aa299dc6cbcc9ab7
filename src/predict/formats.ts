import leven from 'leven';
import { UserError } from '../cli/errors.ts';

/** Formats of one file for all images, made of the journal when all images are done. */
export const folderFormats = ['submission', 'coco'] as const;
/** Formats of one file per image, in a folder of the format's name. */
export const imageFormats = ['labels', 'imagej', 'geojson', 'overlays'] as const;
export type FolderFormat = (typeof folderFormats)[number];
export type ImageFormat = (typeof imageFormats)[number];
export type OutputFormat = FolderFormat | ImageFormat;

const all: readonly OutputFormat[] = [...folderFormats, ...imageFormats];
/** What boxes are enough for. */
const boxFormats: readonly OutputFormat[] = ['coco', 'overlays'];

/** File names of the formats for all images. */
export const folderFiles: Readonly<Record<FolderFormat, string>> = {
  submission: 'submission.csv',
  coco: 'coco-results.json',
};

/**
 * Reads a list such as `submission,geojson`.
 *
 * @returns each format once, in a fixed order
 * @throws UserError for an unknown format, naming the nearest one, or an empty list
 */
export function parseFormats(text: string): OutputFormat[] {
  const names = text
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
  if (names.length === 0) throw new UserError(`--formats: expected one or more of ${all.join(', ')}.`);
  for (const name of names) {
    if (all.some((format) => format === name)) continue;
    const nearest = [...all].sort((a, b) => leven(a, name) - leven(b, name))[0];
    throw new UserError(
      `--formats: there is no '${name}', did you mean ${nearest}? Expected some of ${all.join(', ')}.`,
    );
  }
  return all.filter((format) => names.includes(format));
}

/**
 * The formats of a run.
 *
 * @param given undefined for the usual ones: `submission,overlays`, of a box-only model `coco,overlays`
 * @param masks false for a box-only model
 * @throws UserError for a format that needs masks of a model without
 */
export function chooseFormats(given: readonly OutputFormat[] | undefined, masks: boolean): readonly OutputFormat[] {
  if (given === undefined) return masks ? ['submission', 'overlays'] : boxFormats;
  const impossible = masks ? undefined : given.find((format) => !boxFormats.includes(format));
  if (impossible !== undefined) {
    throw new UserError(
      `--formats ${impossible} needs masks, but these weights are of a model that finds boxes only: expected ${boxFormats.join(' or ')}.`,
    );
  }
  return given;
}
