import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writePng } from '../../src/data/png.ts';
import { seeded } from '../support/random.ts';

const made: string[] = [];

/** A fresh folder, removed by {@link removeFolders}. */
export function temporaryFolder(): string {
  const dir = mkdtempSync(join(tmpdir(), 'data-test-'));
  made.push(dir);
  return dir;
}

export function removeFolders(): void {
  for (const dir of made.splice(0)) rmSync(dir, { recursive: true, force: true });
}

/** Bytes of a [height, width, 3] image of noise. */
export function noise(width: number, height: number, seed: number): Uint8Array {
  const next = seeded(seed);
  return Uint8Array.from({ length: width * height * 3 }, () => Math.floor(next() * 256));
}

export const HEADER = 'id,annotation,width,height,cell_type';

/** Writes train.csv with `lines` and, for each id, train/<id>.png of noise. */
export function writeDataset(lines: string[], ids: string[], width = 12, height = 10, header = HEADER): string {
  const dir = temporaryFolder();
  mkdirSync(join(dir, 'train'));
  writeFileSync(join(dir, 'train.csv'), [header, ...lines, ''].join('\n'));
  ids.forEach((id, i) => {
    writePng(join(dir, 'train', `${id}.png`), width, height, noise(width, height, i + 1));
  });
  return dir;
}
