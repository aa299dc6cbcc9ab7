import { createReadStream, existsSync } from 'node:fs';
import { basename } from 'node:path';
import Assembler from 'stream-json/assembler.js';
import { ignore } from 'stream-json/filters/ignore.js';
import * as z from 'zod';
import { UserError } from '../cli/errors.ts';
import type { CocoIds } from './outputs/cocoResults.ts';

const schema = z.object({
  images: z.array(z.object({ id: z.int(), file_name: z.string() })),
  categories: z.array(z.object({ id: z.int(), name: z.string() })),
});

/**
 * The numbers that a COCO file of annotations gives to images (by the names of their files without folder and ending) and classes (by their
 * names), so that results can be scored against it. Annotations are skipped as they stream by.
 *
 * @param classes names of the labels 1 …
 * @throws UserError for a file that is no such JSON, two images of one name, or a class it does not have
 */
export async function readCocoIds(path: string, classes: readonly string[]): Promise<CocoIds> {
  const { images, categories } = await readTables(path);
  const imageIds = new Map<string, number>();
  for (const { id, file_name } of images) {
    const name = basename(file_name).replace(/\.[^.]*$/, '');
    if (imageIds.has(name))
      throw new UserError(`${path}: two of its images are called "${name}", expected each name once.`);
    imageIds.set(name, id);
  }
  const categoryIds = classes.map((name) => {
    const category = categories.find((candidate) => candidate.name === name);
    if (category === undefined) {
      const names = categories.map((candidate) => candidate.name).join(', ');
      throw new UserError(`${path}: it has no category "${name}", a class of the weights (it has ${names || 'none'}).`);
    }
    return category.id;
  });
  return {
    imageId({ id }) {
      const found = imageIds.get(id);
      if (found === undefined)
        throw new UserError(`${path}: it has no image "${id}", expected all that are predicted.`);
      return found;
    },
    categoryId: (label) => categoryIds[label - 1],
  };
}

async function readTables(path: string): Promise<z.output<typeof schema>> {
  if (!existsSync(path)) throw new UserError(`no such file: ${path}`);
  const assembler = new Assembler();
  try {
    const tokens = createReadStream(path).pipe(ignore.withParserAsStream({ filter: /^annotations\b/ }));
    for await (const token of tokens) assembler.consume(token);
  } catch (error) {
    throw new UserError(`${path} is no JSON: ${(error as Error).message}`);
  }
  const parsed = schema.safeParse(assembler.current);
  if (parsed.success) return parsed.data;
  const { path: at, message } = parsed.error.issues[0];
  throw new UserError(`${path} is no COCO file of annotations: its "${at.join('.')}" is wrong (${message}).`);
}
