import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { CocoResult, CocoTruth } from '../../src/eval/cocoFiles.ts';
import { type GoldenTensor, readGoldenTensors } from '../support/goldens.ts';

const shared = resolve(import.meta.dirname, '../../../shared');

/** Folders of real images in the competition's format. */
export const realData = { dsb2018: join(shared, 'data/dsb2018'), usiigaci: join(shared, 'data/usiigaci') };
export const hasRealData = existsSync(realData.dsb2018);
export const hasGoldens = existsSync(join(shared, 'goldens/data/data.json'));

export interface DataGoldens {
  rle: { shape: [number, number]; masks: { rle: string; area: number }[] };
  rleSmall: { mask: number[][]; rle: string }[];
  removeOverlaps: { shape: [number, number]; in: string[]; out: string[] };
  resizeMask: { in: string[] };
  boxes: number[][];
  split: { testSize: number; randomState: number; train: number[]; test: number[] }[];
  splitTypes: string[];
  describe: {
    counts: number[];
    byType: Record<string, Record<string, number>>;
    qcut5Edges: Record<string, number[]>;
  };
  coco: { truth: CocoTruth; detections: CocoResult[]; stats: { segm: number[]; bbox: number[] } }[];
}

export function dataGoldens(): DataGoldens {
  return JSON.parse(readFileSync(join(shared, 'goldens/data/data.json'), 'utf8')) as DataGoldens;
}

let tensors: Map<string, GoldenTensor> | undefined;

/** A U8 tensor of data.safetensors. */
export function byteGolden(name: string): { shape: number[]; data: Uint8Array } {
  tensors ??= readGoldenTensors('data/data.safetensors');
  const { shape, data } = tensors.get(name) as GoldenTensor;
  return { shape, data: data as Uint8Array };
}
