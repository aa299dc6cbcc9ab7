import { existsSync, readdirSync } from 'node:fs';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { z } from 'zod';
import { UserError } from '../../cli/errors.ts';
import type { Annotation, Dataset, DatasetOptions, ImageRecord } from '../dataset.ts';
import { inspectImage, isImageFile } from '../images.ts';
import { runsToText } from '../runs.ts';
import { chooseClasses, labelsOf } from './classes.ts';
import { segmentationRuns } from './cocoMask.ts';
import { imageIds, sortById } from './imageIds.ts';
import { readJsonElements } from './jsonElements.ts';

// The error of each is what the message says was expected.
const side = z.custom<number>((value) => isWhole(value) && value >= 1 && value <= 999_999, 'a whole number of pixels');
const text = z.custom<string>((value) => typeof value === 'string' && value !== '', 'a text');
const whole = z.custom<number>(isWhole, 'a whole number');
const key = z.custom<number | string>(
  (value) => isWhole(value) || typeof value === 'string',
  'a whole number or a text',
);
const digits = z.custom<number | string>((value) => isWhole(Number(value)) && value !== '', 'a whole number');
const flag = z.custom<unknown>((value) => [0, 1, true, false, undefined].includes(value as number), '0 or 1');

const imageSchema = z.object({ id: key, file_name: text, width: side, height: side }, 'an object');
const categorySchema = z.object({ id: whole, name: text }, 'an object');
const annotationSchema = z.object(
  { id: digits, image_id: key, category_id: whole, segmentation: z.unknown().optional(), iscrowd: flag },
  'an object',
);

function isWhole(value: unknown): value is number {
  return Number.isSafeInteger(value);
}

type Picture = z.infer<typeof imageSchema> & { annotations: Annotation[] };

/** What a COCO file says, before the image files are looked for. */
interface CocoFile {
  pictures: Picture[];
  /** In the order of their ids. */
  categories: z.infer<typeof categorySchema>[];
}

/**
 * Opens a COCO instance file (https://cocodataset.org/#format-data): polygons, run lengths, crowds. Classes are its categories in the
 * order of their ids. `annotations` may be an object of them by id, as in LIVECell's files. The file is streamed.
 *
 * Images are looked for under the file's folder and, if that lies in a folder `annotations`, under the folder above it: as
 * `images/FILE_NAME` or `FILE_NAME`, else anywhere below (four folders deep) where one file only ends with that name.
 *
 * @throws UserError that names the file and the image, category or annotation
 */
export function openCoco(file: string, options: DatasetOptions): Dataset {
  const { pictures, categories } = readCocoFile(file, options);
  const annotations = pictures.flatMap((picture) => picture.annotations);
  if (annotations.length === 0) throw new UserError(`${file} has no cells: its "annotations" are empty`);
  const names = new Map(categories.map(({ id, name }) => [id, name]));
  const typeOf = ({ label, line }: Annotation): string => {
    const name = names.get(label);
    if (name === undefined) {
      throw new UserError(
        `${file}, annotation ${line}: there is no category ${label}, expected ${listed(names.keys())}`,
      );
    }
    return name;
  };
  const classes = chooseClasses(annotations.map(typeOf), options, [...names.values()]);
  const labels = labelsOf(classes);
  for (const annotation of annotations) {
    const type = typeOf(annotation);
    const label = labels.get(type);
    if (label === undefined) {
      throw new UserError(
        `${file}, annotation ${annotation.line}: unknown cell type "${type}", expected one of ${classes.join(', ')}`,
      );
    }
    annotation.label = label;
  }
  const dir = rootOf(file);
  return { dir, classes, images: openImages(file, dir, pictures, options) };
}

const listed = (values: Iterable<unknown>): string => [...values].join(', ') || 'none';

/** Annotations carry their category's id as label until the categories are known. */
function readCocoFile(file: string, { maxRows = Number.POSITIVE_INFINITY, onProgress }: DatasetOptions): CocoFile {
  const pictures = new Map<number | string, Picture>();
  const categories: CocoFile['categories'] = [];
  const ids = new Set<number>();
  const takeAnnotation = (element: unknown, place: number | string): void => {
    if (ids.size >= maxRows) return;
    const annotation = parseElement(annotationSchema, element, file, 'annotation', place);
    const id = Number(annotation.id);
    const where = `${file}, annotation ${id}`;
    if (ids.has(id)) throw new UserError(`${where}: the id is there twice, expected each once`);
    ids.add(id);
    const picture = pictures.get(annotation.image_id);
    if (picture === undefined) {
      throw new UserError(`${where}: there is no image ${JSON.stringify(annotation.image_id)} among the "images"`);
    }
    const runs = segmentationRuns(annotation.segmentation, picture.width, picture.height, where);
    const cell: Annotation = { rle: runsToText(runs), label: annotation.category_id, line: id };
    if (annotation.iscrowd === 1 || annotation.iscrowd === true) cell.iscrowd = true;
    picture.annotations.push(cell);
  };
  let early = false;
  const readers = {
    images(element: unknown, place: number | string) {
      const picture = parseElement(imageSchema, element, file, 'image', place);
      const other = pictures.get(picture.id);
      if (other !== undefined) {
        throw new UserError(
          `${file}: two images have the id ${JSON.stringify(picture.id)} (${other.file_name} and ${picture.file_name})`,
        );
      }
      pictures.set(picture.id, { ...picture, annotations: [] });
    },
    categories(element: unknown, place: number | string) {
      const category = parseElement(categorySchema, element, file, 'category', place);
      const other = categories.find(({ id, name }) => id === category.id || name === category.name);
      if (other !== undefined) {
        const both = `${other.id} "${other.name}" and ${category.id} "${category.name}"`;
        throw new UserError(`${file}: two categories have the same id or name (${both})`);
      }
      categories.push(category);
    },
    annotations(element: unknown, place: number | string) {
      // Outlines can be drawn only when the images' sizes are known: annotations that stand before them wait for a second reading.
      if (pictures.size === 0) early = true;
      else takeAnnotation(element, place);
    },
  };
  const stage = `Reading ${basename(file)}`;
  const seen = readJsonElements(file, readers, (done, total) => onProgress?.(stage, done, total));
  for (const member of Object.keys(readers)) {
    if (!seen.has(member)) throw new UserError(`${file} has no "${member}", expected a COCO instance file`);
  }
  if (early) {
    readJsonElements(file, { annotations: takeAnnotation }, (done, total) => onProgress?.(stage, done, total));
  }
  categories.sort((a, b) => a.id - b.id);
  const read = [...pictures.values()];
  return {
    pictures: maxRows === Number.POSITIVE_INFINITY ? read : read.filter(({ annotations }) => annotations.length > 0),
    categories,
  };
}

/** The element if it has the form of the schema, else its first fault in a sentence. @param what it is, at which place of its list */
function parseElement<T>(
  schema: z.ZodType<T>,
  element: unknown,
  file: string,
  what: string,
  place: number | string,
): T {
  const parsed = schema.safeParse(element);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const value = issue.path.reduce<unknown>((at, key) => (at as Record<PropertyKey, unknown>)?.[key], element);
  const shown = value === undefined ? 'missing' : JSON.stringify(value).slice(0, 40);
  const member = issue.path.length > 0 ? `"${issue.path.join('.')}"` : 'it';
  const which = typeof place === 'number' ? `number ${place + 1}` : place;
  throw new UserError(`${file}, ${what} ${which}: ${member} is ${shown}, expected ${issue.message}`);
}

/** The folder of the data set: the file's, or the one above the `annotations` it lies in. */
function rootOf(file: string): string {
  let dir = dirname(file);
  for (let up = 0; up < 3 && basename(resolve(dir)) !== ''; up++, dir = join(dir, '..')) {
    if (basename(resolve(dir)) === 'annotations') return join(dir, '..');
  }
  return dirname(file);
}

function openImages(
  file: string,
  dir: string,
  pictures: readonly Picture[],
  { onProgress }: DatasetOptions,
): ImageRecord[] {
  // Windows' separators turn up in files made there.
  const names = pictures.map(({ file_name }) => file_name.replaceAll('\\', '/').replace(/^\.\//, ''));
  const ids = imageIds(names, file);
  const find = imageFinder(dir, file);
  const source = { file, item: 'annotation' };
  const images = pictures.map(({ id, width, height, annotations }, i): ImageRecord => {
    const path = find(names[i]);
    const size = inspectImage(path);
    if (size.width !== width || size.height !== height) {
      throw new UserError(
        `${file}, image ${id}: it is ${width} × ${height} there, but ${path} is ${size.width} × ${size.height}`,
      );
    }
    onProgress?.('Checking images', i + 1, pictures.length);
    return { id: ids[i], path, width, height, annotations, source };
  });
  return sortById(images);
}

/** How deep image files are looked for below the data set's folder. */
const DEPTH = 4;

/** Finds an image by the name that the file has for it. @throws UserError where there is none, or several */
function imageFinder(dir: string, file: string): (name: string) => string {
  // COCO keeps the images of instances_train2017.json in train2017/.
  const subset = basename(file, '.json').replace(/^instances_/, '');
  const own = dirname(file);
  const bases = [join(dir, 'images'), dir, join(dir, subset), join(dir, 'images', subset), join(own, 'images'), own];
  let below: Map<string, string[]> | undefined;
  return (name) => {
    for (const base of bases) {
      const path = resolve(name) === name ? name : join(base, name);
      if (existsSync(path)) return path;
    }
    below ??= filesBelow(dir);
    const same = (below.get(basename(name)) ?? []).filter((path) => `/${path}`.endsWith(`/${name}`));
    const found = same.length > 0 ? same : (below.get(basename(name)) ?? []);
    if (found.length === 1) return join(dir, found[0]);
    throw new UserError(
      found.length === 0
        ? `${file}: there is no image "${name}" in ${dir} or below (looked for ${bases[0]}/${name} first)`
        : `${file}: the image "${name}" may be ${found.slice(0, 3).join(' or ')} in ${dir}, expected one`,
    );
  };
}

/** All image files below a folder, as paths relative to it, by their names without folders. */
function filesBelow(dir: string): Map<string, string[]> {
  const files = new Map<string, string[]>();
  const walk = (folder: string, depth: number): void => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (entry.name.startsWith('.')) continue;
      const path = join(folder, entry.name);
      if (entry.isDirectory() && depth < DEPTH) walk(path, depth + 1);
      else if (!entry.isDirectory() && isImageFile(entry.name)) {
        const short = relative(dir, path).split(sep).join('/');
        files.set(entry.name, [...(files.get(entry.name) ?? []), short]);
      }
    }
  };
  walk(dir, 0);
  return files;
}
