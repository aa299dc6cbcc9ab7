/** Reads a run's folder back, for its report. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, join, relative, resolve, sep } from 'node:path';
import { z } from 'zod';
import { UserError } from '../cli/errors.ts';
import { readPng } from '../data/png.ts';
import { requireFolder } from '../data/table.ts';
import { readPanelIndex } from '../report/panelFolder.ts';
import {
  type EpochRow,
  environmentSchema,
  type FinalScores,
  parseEpochRow,
  type ReportFile,
  type ReportPanels,
  type RunEnvironment,
  type RunReport,
} from '../report/runReport.ts';
import { openCheckpoint } from './checkpoint.ts';
import { completeTrainOptions, readTrainConfig, type TrainOptions } from './options.ts';
import { RUN_FILES } from './run.ts';
import { learningRate } from './schedule.ts';

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new UserError(`${path}: expected JSON as this program writes it (${(error as Error).message}).`);
  }
}

function parsed<T>(schema: z.ZodType<T>, path: string): T {
  const result = schema.safeParse(readJson(path));
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new UserError(`${path}: ${issue.path.join('.')} is not as this program writes it (${issue.message}).`);
}

/** Reads `environment.json`. @throws UserError naming the file and what is wrong */
export const readEnvironment = (path: string): RunEnvironment => parsed(environmentSchema, path);

/** Reads `metrics.jsonl`. A last line that a killed run left unfinished is no line. @throws UserError naming file and line */
function readMetrics(path: string): EpochRow[] {
  const text = readFileSync(path, 'utf8');
  const lines = text.split('\n');
  // What follows the last line's end: nothing, or a torn line.
  lines.pop();
  return lines.map((line, i) => {
    const row = parseEpochRow(line);
    if (row === null) throw new UserError(`${path}, line ${i + 1}: expected the metrics of an epoch.`);
    return row;
  });
}

const scoresSchema = z.object({ perClass: z.array(z.looseObject({ label: z.int(), instances: z.int() })) }).loose();

/** Numbers and nulls of an object by their keys. */
function numbersOf(values: Readonly<Record<string, unknown>>): Record<string, number | null> {
  const kept = Object.entries(values).filter(
    (entry): entry is [string, number | null] => entry[1] === null || typeof entry[1] === 'number',
  );
  return Object.fromEntries(kept);
}

/** Reads `scores.json`, which has what `evaluate --json` writes. */
function readScores(path: string): FinalScores {
  const { perClass, ...rest } = parsed(scoresSchema, path);
  return {
    scores: numbersOf(rest),
    perClass: perClass.map(({ label, instances, ...own }) => ({ label, instances, scores: numbersOf(own) })),
  };
}

/** The learning rate over the steps done: its corners, between which it runs straight. */
export function learningRateCorners(
  options: TrainOptions,
  stepsPerEpoch: number,
  epochs: number,
): [epochs: number, lr: number][] {
  const corners: [number, number][] = [];
  const total = stepsPerEpoch * epochs;
  const rate = (step: number): number => learningRate(step, stepsPerEpoch, options);
  for (let step = 0; step < total; step++) {
    const own = rate(step);
    const straight = step > 0 && step < total - 1 && Math.abs(rate(step - 1) + rate(step + 1) - 2 * own) <= 1e-9 * own;
    if (!straight) corners.push([step / stepsPerEpoch, own]);
  }
  // The last step ends with the last epoch.
  if (total > 0) corners.push([epochs, rate(total - 1)]);
  return corners;
}

/** What each file of a run's folder is; the first that fits. Those that fit none are not listed. */
const FILE_KINDS: readonly (readonly [name: RegExp, what: string])[] = [
  [/^best\.safetensors$/, 'weights of the best epoch, for evaluate and predict'],
  [/^overlay\.png$/, 'a few validation images: image, truth, prediction'],
  [/^submission\.csv$/, 'the cells found, a row each, run-length encoded'],
  [/^scores\.json$/, 'scores of the best weights on the validation images'],
  [/^metrics\.jsonl$/, 'a line an epoch: losses and scores'],
  [/^profile\.json$/, 'time by kernel and by part of the model'],
  [/^trace\.json$/, 'every kernel of a few steps (ui.perfetto.dev)'],
  [/^events\.out\.tfevents\./, 'scalars for TensorBoard (tensorboard --logdir)'],
  [/^config\.json$/, 'every option of the run'],
  [/^environment\.json$/, 'machine, adapter, versions and data of the run'],
  [/^panels$/, 'pictures of validation images with boxes and counts'],
  [/^checkpoints$/, 'weights of each epoch'],
  [/^state\.safetensors$/, 'where to go on after a stop'],
];

/** A link from the report's folder, for any system's paths. */
function linkTo(path: string, from: string): string {
  return relative(from, path).split(sep).map(encodeURIComponent).join('/') || '.';
}

function listFiles(dir: string, from: string): ReportFile[] {
  const names = readdirSync(dir);
  return FILE_KINDS.flatMap(([pattern, what]) =>
    names
      .filter((name) => pattern.test(name))
      .sort()
      .map((name) => {
        const path = join(dir, name);
        if (!statSync(path).isDirectory()) return { name, what, href: linkTo(path, from), bytes: statSync(path).size };
        const inside = readdirSync(path);
        const bytes = inside.reduce((sum, file) => sum + statSync(join(path, file)).size, 0);
        return { name: `${name}/`, what: `${what} (${inside.length} files)`, href: `${linkTo(path, from)}/`, bytes };
      }),
  );
}

function readPanels(dir: string, from: string): ReportPanels | null {
  const index = readPanelIndex(dir);
  if (index === null) return null;
  const pictures = index.panels.map(({ file, views }) => {
    const image = readPng(join(dir, file));
    for (const { x, y, width, height } of Object.values(views)) {
      if (x + width > image.width || y + height > image.height) {
        throw new UserError(
          `${join(dir, file)} is smaller than panels.json beside it says; expected the pictures that belong to it.`,
        );
      }
    }
    return { image, href: linkTo(join(dir, file), from) };
  });
  return { index, pictures };
}

/**
 * All that a run's folder tells, finished or not.
 *
 * @param from folder of the report, to which its links are relative
 * @throws UserError where there is no run, or a file of it cannot be read
 */
export function readRun(dir: string, from: string): RunReport {
  requireFolder(dir);
  const at = (name: string): string => join(dir, name);
  if (!existsSync(at(RUN_FILES.config))) {
    throw new UserError(
      `--run ${dir}: it holds no run (there is no ${RUN_FILES.config}), expected the folder of a run.`,
    );
  }
  const options = completeTrainOptions(readTrainConfig(at(RUN_FILES.config)));
  const optional = <T>(name: string, read: (path: string) => T): T | null =>
    existsSync(at(name)) ? read(at(name)) : null;
  const epochs = optional(RUN_FILES.metrics, readMetrics) ?? [];
  const best = optional(RUN_FILES.best, (path) => {
    const { info, file } = openCheckpoint(path);
    file.close();
    return info;
  });
  return {
    name: basename(resolve(dir)),
    config: options,
    plannedEpochs: options.epochs,
    epochs,
    bestEpoch: best?.epoch ?? null,
    learningRate: epochs.length === 0 ? [] : learningRateCorners(options, epochs[0].steps, epochs.length),
    classes: (best?.classes ?? []).map((name, i) => ({
      name,
      minScore: best?.thresholds.minScore[i + 1] ?? Number.NaN,
      maskThreshold: best?.thresholds.maskThreshold[i + 1] ?? Number.NaN,
    })),
    final: optional(RUN_FILES.scores, readScores),
    environment: optional(RUN_FILES.environment, readEnvironment),
    panels: readPanels(at(RUN_FILES.panels), from),
    files: listFiles(dir, from),
  };
}
