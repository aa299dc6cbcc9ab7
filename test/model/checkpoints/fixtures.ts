import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { bytesSource } from '../../../src/model/checkpoints/byteSource.ts';
import { openWeights, type WeightsFile } from '../../../src/model/checkpoints/weightsFile.ts';

/** Files that test/python/make_checkpoint_fixtures.py wrote with torch. */
export const fixtureFolder = resolve(import.meta.dirname, '../../fixtures/checkpoints');

export const fixturePath = (name: string): string => resolve(fixtureFolder, name);

export function fixtureBytes(name: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(readFileSync(fixturePath(name)));
}

export function openFixture(name: string): Promise<WeightsFile> {
  return openWeights(bytesSource(fixtureBytes(name), name));
}

/** Shape and values of each tensor of zip.pth and its kin, as torch says. */
export function expectedTensors(): Map<string, { shape: number[]; values: number[] }> {
  const json = JSON.parse(readFileSync(fixturePath('expected.json'), 'utf8')) as Record<
    string,
    { shape: number[]; values: (number | string)[] }
  >;
  const number = (value: number | string): number => (value === 'inf' ? Number.POSITIVE_INFINITY : Number(value));
  return new Map(
    Object.entries(json).map(([name, { shape, values }]) => [name, { shape, values: values.map(number) }]),
  );
}
