import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../cli/errors.ts';
import { requireFolder } from '../data/table.ts';
import {
  JOURNAL,
  type JournalHeader,
  type JournalReader,
  predictionOf,
  readJournal,
  runDifferences,
} from './journal.ts';
import type { ImagePrediction } from './prediction.ts';
import { shardSize } from './shards.ts';

/** The parts of one folder's run, all of them. */
export interface Shards {
  /** The journals' files, part 1 first. */
  paths: string[];
  /** That of the first part. */
  header: JournalHeader;
}

interface Part {
  dir: string;
  path: string;
  header: JournalHeader;
}

/**
 * Opens the folders that `predict --shard` wrote and checks that together they are a whole: parts of one N, of one run (the same
 * weights, options and images), none missing, double or unfinished. Each journal is read to its end.
 *
 * @param dirs in any order
 * @throws UserError that names the folder and what is wrong
 */
export function openShards(dirs: readonly string[]): Shards {
  const parts = dirs.map(openPart);
  const first = parts[0];
  const { of } = first.header.shard;
  const byIndex = new Map<number, Part>();
  for (const part of parts) {
    const { shard } = part.header;
    if (shard.of !== of) {
      throw new UserError(
        `${part.dir} is a part of ${shard.of}, but ${first.dir} is one of ${of}: expected parts of one number.`,
      );
    }
    const different = runDifferences(part.header, first.header);
    if (different.length > 0) {
      throw new UserError(
        `${part.dir} was predicted with ${different.join(' and ')}, unlike ${first.dir}: expected parts of one run.`,
      );
    }
    const twin = byIndex.get(shard.index);
    if (twin !== undefined) {
      throw new UserError(
        `${twin.dir} and ${part.dir} both hold part ${shard.index} of ${of}, expected each part once.`,
      );
    }
    byIndex.set(shard.index, part);
  }
  const indices = Array.from({ length: of }, (_, i) => i + 1);
  const missing = indices.filter((index) => !byIndex.has(index));
  if (missing.length > 0) {
    const shown =
      missing.length > 5 ? `${missing.slice(0, 5).join(', ')} and ${missing.length - 5} more` : missing.join(', ');
    throw new UserError(
      `Of the ${of} parts ${shown} ${missing.length > 1 ? 'are' : 'is'} missing: expected all of them.`,
    );
  }
  const sorted = indices.map((index) => byIndex.get(index) as Part);
  for (const part of sorted) requireFinished(part);
  return { paths: sorted.map(({ path }) => path), header: first.header };
}

function openPart(dir: string): Part {
  requireFolder(dir);
  const path = join(dir, JOURNAL);
  if (!existsSync(path)) {
    throw new UserError(`There is no ${JOURNAL} in ${dir}: expected the folder of a predict command.`);
  }
  const reader = readJournal(path);
  reader.close();
  return { dir, path, header: reader.header };
}

function requireFinished({ dir, path, header: { shard, images } }: Part): void {
  let done = 0;
  for (const _ of readJournal(path).entries) done++;
  const expected = shardSize(images.count, shard);
  if (done < expected) {
    throw new UserError(
      `${dir} (part ${shard.index} of ${shard.of}) holds ${done} of its ${expected} images: run its predict command again to finish it.`,
    );
  }
}

/**
 * The predictions of all parts in the order of the whole folder, one image of each part in memory: the parts were dealt like cards,
 * so they are taken in turn.
 *
 * @throws UserError where a journal is damaged, or an image is in two parts
 */
export function* mergedPredictions({ paths }: Shards): Generator<ImagePrediction> {
  const readers: JournalReader[] = [];
  const seen = new Set<string>();
  try {
    for (const path of paths) readers.push(readJournal(path));
    for (let at = 0; ; at = (at + 1) % readers.length) {
      const next = readers[at].entries.next();
      // Parts that come earlier have as many images or one more, so the first to end is the end of all.
      if (next.done) return;
      const { entry, where } = next.value;
      if (seen.has(entry.id))
        throw new UserError(`${where}: image "${entry.id}" is there already, expected each once.`);
      seen.add(entry.id);
      yield predictionOf(entry, where);
    }
  } finally {
    for (const reader of readers) reader.close();
  }
}
