import { existsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { Command } from 'commander';
import { requireOutputFolder, writePartsAtomic } from '../data/files.ts';
import { readCocoIds } from '../predict/cocoIds.ts';
import { folderOutput } from '../predict/folderRun.ts';
import type { FolderFormat } from '../predict/formats.ts';
import { mergedPredictions, openShards } from '../predict/merge.ts';
import { plainCocoIds } from '../predict/outputs/cocoResults.ts';
import { UserError } from './errors.ts';
import { say } from './session.ts';

interface Flags {
  out?: string;
  coco?: string;
  cocoImages?: string;
}

export function mergeCommand(): Command {
  return new Command('merge')
    .description(
      'Join what predict --shard wrote: the same submission.csv as without parts, no image missing or double.',
    )
    .argument('<dir...>', 'the --out folders of all parts, in any order')
    .option('--out <file>', 'the joined submission.csv')
    .option('--coco <file>', 'the joined COCO results')
    .option('--coco-images <file>', 'COCO annotations whose ids of images and categories are taken (default: 1, 2, …)')
    .action(merge);
}

async function merge(dirs: string[], { out, coco, cocoImages }: Flags): Promise<void> {
  const outputs: [FolderFormat, string, string][] = [];
  // Ids that COCO's annotations lack are found before anything is written.
  if (coco !== undefined) outputs.push(['coco', coco, '--coco']);
  if (out !== undefined) outputs.push(['submission', out, '--out']);
  if (outputs.length === 0) throw new UserError('There is nothing to write: expected --out FILE or --coco FILE.');
  for (const [, path, option] of outputs) {
    requireOutputFolder(dirname(path), option);
    if (existsSync(path) && statSync(path).isDirectory()) {
      throw new UserError(`${option} ${path}: it is a folder, expected a file.`);
    }
  }
  const shards = openShards(dirs);
  const { classes, masks, images } = shards.header;
  if (out !== undefined && !masks) {
    throw new UserError(
      `--out ${out} needs masks, but ${dirs[0]} is of a model that finds boxes only: expected --coco.`,
    );
  }
  const cocoIds = cocoImages === undefined ? plainCocoIds : await readCocoIds(cocoImages, classes);
  for (const [format, path] of outputs) {
    writePartsAtomic(path, folderOutput(format, mergedPredictions(shards), cocoIds));
  }
  say(`${images.count} images of ${dirs.length} parts: ${outputs.map(([, path]) => path).join(', ')}`);
}
