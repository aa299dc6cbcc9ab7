import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Random } from '../../src/data/random.ts';
import { entryOf, JOURNAL, type JournalHeader, JournalWriter, journalHeader } from '../../src/predict/journal.ts';
import type { ImagePrediction, PredictedCell } from '../../src/predict/prediction.ts';
import { inShard, type Shard, WHOLE } from '../../src/predict/shards.ts';

/** A crop from rows of text; # is covered. */
export function crop(rows: string[], x: number, y: number) {
  const data = Float32Array.from(rows.join(''), (character) => Number(character === '#'));
  return { x, y, width: rows[0].length, height: rows.length, data };
}

/** A ring with a hole, and below it a cell in two parts, in an image of 12 × 10. */
export const TWO_CELLS: ImagePrediction = {
  id: 'plate-1',
  position: 4,
  width: 12,
  height: 10,
  cells: [
    { label: 2, score: 0.9375, box: [1.5, 1, 5.25, 4], mask: crop(['####', '#..#', '####'], 2, 1) },
    { label: 1, score: 0.5, box: [0, 5, 4, 9], mask: crop(['##..', '##.#'], 0, 6) },
  ],
};

/** A cell of one part, a box-like one beside it, and no cell. */
export function randomPrediction(position: number): ImagePrediction {
  const random = new Random(position);
  const cells = Array.from({ length: random.int(4) }, (_, i): PredictedCell => {
    const [x, y] = [3 * i, random.int(5)];
    return {
      label: 1 + random.int(2),
      score: 0.9 - 0.1 * i,
      box: [x, y, x + 2, y + 3],
      mask: crop(['##', '#.', '##'], x, y),
    };
  });
  return { id: `image-${String(position).padStart(3, '0')}`, position, width: 12, height: 10, cells };
}

export function header(count: number, given: Partial<JournalHeader> = {}): JournalHeader {
  const { formats = [], ...facts } = given;
  return journalHeader(
    {
      weights: 'w',
      classes: ['round', 'long'],
      masks: true,
      resize: 1,
      batchSize: 1,
      shard: WHOLE,
      images: { count, sha256: 'names' },
      ...facts,
    },
    formats,
  );
}

/** Writes the journal of a part of `count` images into a folder, of which `done` are done. */
export function writeJournal(
  dir: string,
  count: number,
  shard: Shard,
  { done = count, ...given }: Partial<JournalHeader> & { done?: number } = {},
): string {
  mkdirSync(dir, { recursive: true });
  const path = join(dir, JOURNAL);
  const journal = JournalWriter.create(path, header(count, { ...given, shard }));
  const positions = Array.from({ length: count }, (_, i) => i).filter((position) => inShard(position, shard));
  for (const position of positions.slice(0, done)) {
    journal.append(entryOf(randomPrediction(position), `${position}`));
  }
  journal.close();
  return path;
}
