import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Table from 'cli-table3';
import { Command } from 'commander';
import { UserError } from '../src/cli/errors.ts';
import { parseCount, parsePositiveCount } from '../src/cli/numbers.ts';
import { runCommand } from '../src/cli/runCommand.ts';
import { say } from '../src/cli/session.ts';
import { writeFileAtomic } from '../src/data/files.ts';
import { COCO_STATS } from '../src/eval/cocoAccumulator.ts';
import { type CocoIouType, evaluateCoco } from '../src/eval/cocoEval.ts';
import type { CocoResult, CocoTruth } from '../src/eval/cocoFiles.ts';
import { COCO_DATA_SIZE, type CocoDataSize, cocoData } from './cocoData.ts';
import { median } from './comparison.ts';

/** Where pycocotools' numbers may differ, and how many times its time ours may take. */
const TOLERANCE = 1e-6;
const MOST_TIMES = 3;

const IOU_TYPES: readonly CocoIouType[] = ['segm', 'bbox'];

/** What one side gave: its twelve numbers, and the seconds of each round from parsed JSON to those. */
export interface CocoTiming {
  stats: number[];
  seconds: number[];
}
export type CocoTimings = Record<CocoIouType, CocoTiming>;

export interface CocoBench {
  seed: number;
  size: CocoDataSize;
  ours: CocoTimings;
  peer: CocoTimings & { python: string; numpy: string };
  /** Ours by the peer's: medians, and first rounds (ours not compiled yet). */
  ratio: Record<CocoIouType, { median: number; first: number }>;
  /** Largest difference between the twelve numbers. */
  difference: Record<CocoIouType, number>;
}

function timeOurs(truth: CocoTruth, results: CocoResult[], rounds: number): CocoTimings {
  const timing = (iouType: CocoIouType): CocoTiming => {
    let stats: number[] = [];
    const seconds = Array.from({ length: rounds }, () => {
      const started = performance.now();
      stats = evaluateCoco(truth, results, iouType).stats;
      return (performance.now() - started) / 1000;
    });
    return { stats, seconds };
  };
  return { segm: timing('segm'), bbox: timing('bbox') };
}

/** @throws UserError where that Python does not run, or lacks pycocotools */
function timePeer(python: string, truth: CocoTruth, results: CocoResult[], rounds: number): CocoBench['peer'] {
  const folder = mkdtempSync(join(tmpdir(), 'coco-bench-'));
  try {
    const [truthPath, resultsPath] = [join(folder, 'truth.json'), join(folder, 'results.json')];
    writeFileSync(truthPath, JSON.stringify(truth));
    writeFileSync(resultsPath, JSON.stringify(results));
    const script = join(import.meta.dirname, 'coco_peer.py');
    const { error, status, stdout, stderr } = spawnSync(python, [script, truthPath, resultsPath, String(rounds)], {
      encoding: 'utf8',
    });
    if (error || status !== 0) {
      const reason = error?.message ?? stderr.trim().split('\n').pop();
      throw new UserError(
        `${python} could not run pycocotools (${reason}), expected --python FILE of a Python after "pip install pycocotools"`,
      );
    }
    return JSON.parse(stdout) as CocoBench['peer'];
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Scores the same seeded data by both and compares numbers and times. */
export function benchCoco(python: string, seed: number, rounds: number, size: CocoDataSize): CocoBench {
  const { truth, results } = cocoData(seed, size);
  const ours = timeOurs(truth, results, rounds);
  const peer = timePeer(python, truth, results, rounds);
  const both = <T>(of: (iouType: CocoIouType) => T): Record<CocoIouType, T> => ({ segm: of('segm'), bbox: of('bbox') });
  return {
    seed,
    size,
    ours,
    peer,
    ratio: both((type) => ({
      median: median(ours[type].seconds) / median(peer[type].seconds),
      first: ours[type].seconds[0] / peer[type].seconds[0],
    })),
    difference: both((type) => Math.max(...ours[type].stats.map((value, i) => Math.abs(value - peer[type].stats[i])))),
  };
}

function show({ size, ours, peer, ratio, difference }: CocoBench): string {
  const style = { head: [], border: [] };
  const numbers = new Table({ head: ['', 'segm', 'pycocotools', 'bbox', 'pycocotools'], style });
  COCO_STATS.forEach(({ name }, i) => {
    const cells = IOU_TYPES.flatMap((type) => [ours[type].stats[i], peer[type].stats[i]]);
    numbers.push([name, ...cells.map((value) => value.toFixed(6))]);
  });
  const times = new Table({
    head: ['', 'ours, ms', 'pycocotools, ms', 'ratio', 'ratio of first rounds', 'difference'],
    style,
  });
  for (const type of IOU_TYPES) {
    times.push([
      type,
      (1000 * median(ours[type].seconds)).toFixed(0),
      (1000 * median(peer[type].seconds)).toFixed(0),
      ratio[type].median.toFixed(3),
      ratio[type].first.toFixed(3),
      difference[type].toExponential(1),
    ]);
  }
  const what = `${size.detections} detections on ${size.images} images of ${size.width} × ${size.height} pixels; medians of ${ours.segm.seconds.length} rounds, from parsed JSON to the twelve numbers`;
  return `${numbers}\n${what} (Node ${process.versions.node}, Python ${peer.python}, numpy ${peer.numpy})\n${times}`;
}

interface Flags {
  python: string;
  seed: number;
  rounds: number;
  images: number;
  detections: number;
  json?: string;
}

export function benchCocoCommand(): Command {
  return new Command('bench:coco')
    .description("Score the same seeded detections by this program's COCO AP and by pycocotools: numbers and times.")
    .option('--python <file>', 'a Python with pycocotools', process.env.PYTHON ?? 'python3')
    .option('--seed <n>', 'of the generated data', parseCount, 1)
    .option('--rounds <n>', 'rounds of each', parsePositiveCount, 5)
    .option('--images <n>', 'images', parsePositiveCount, COCO_DATA_SIZE.images)
    .option('--detections <n>', 'detections of all images together', parsePositiveCount, COCO_DATA_SIZE.detections)
    .option('--json <file>', 'write all results here')
    .action(({ python, seed, rounds, images, detections, json }: Flags) => {
      const result = benchCoco(python, seed, rounds, { ...COCO_DATA_SIZE, images, detections });
      console.log(show(result));
      if (json !== undefined) writeFileAtomic(json, `${JSON.stringify(result, null, 2)}\n`);
      for (const type of IOU_TYPES) {
        const wrong = result.difference[type] > TOLERANCE;
        const slow = result.ratio[type].median > MOST_TIMES;
        if (wrong) say(`${type}: the numbers differ by more than ${TOLERANCE}.`);
        if (slow) say(`${type}: takes more than ${MOST_TIMES} times pycocotools' time.`);
        if (wrong || slow) process.exitCode = 1;
      }
    });
}

if (process.argv[1] === import.meta.filename) process.exit(await runCommand(benchCocoCommand(), process.argv.slice(2)));
