import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { expect, it } from 'vitest';
import { benchCoco } from '../../bench/coco.ts';
import { cocoData } from '../../bench/cocoData.ts';

const python = process.env.PYTHON ?? 'python3';
const hasPycocotools = spawnSync(python, ['-c', 'import pycocotools.cocoeval']).status === 0;
const size = { images: 4, detections: 60, width: 160, height: 120 };

it('makes the same data of the same seed', () => {
  expect(cocoData(3, size)).toEqual(cocoData(3, size));
  expect(cocoData(4, size)).not.toEqual(cocoData(3, size));
  expect(cocoData(3, size).results).toHaveLength(60);
});

it('says in one sentence that a Python lacks pycocotools', () => {
  const args = ['--import', 'tsx', 'bench/coco.ts', '--python', 'no-such-python', '--images', '1', '--detections', '1'];
  const root = resolve(import.meta.dirname, '../..');
  const { status, stderr, stdout } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' });
  expect(stderr).toMatch(/^no-such-python could not run pycocotools \(.*\), expected --python FILE [^\n]*\n$/);
  expect(stdout).toBe('');
  expect(status).toBe(2);
});

it.skipIf(!hasPycocotools)(`equals pycocotools (skipped where ${python} has none; PYTHON names another)`, () => {
  const { difference, ours } = benchCoco(python, 3, 1, size);
  expect(ours.segm.stats[0]).toBeGreaterThan(0.05);
  expect(Math.max(difference.segm, difference.bbox)).toBeLessThan(1e-12);
});
