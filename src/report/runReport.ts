import { z } from 'zod';
import type { RgbImage } from '../data/png.ts';
import { kernelRecordSchema } from '../tuner/tunedChoice.ts';
import type { PanelIndex } from './panelFolder.ts';

const losses = z.record(z.string(), z.number());
const epochSchema = z
  .object({
    epoch: z.int().positive(),
    steps: z.int().positive(),
    lr: z.number(),
    secondsPerStep: z.number(),
    train: losses,
    validation: losses,
  })
  .catchall(z.unknown());

/** One epoch as a line of `metrics.jsonl` has it. */
export interface EpochRow {
  epoch: number;
  steps: number;
  /** Learning rate of the epoch's last step. */
  lr: number;
  secondsPerStep: number;
  /** Mean losses by name, with their `total`. */
  train: Record<string, number>;
  validation: Record<string, number>;
  /** Every other number of the line by its key; null for one that the model does not have. */
  scores: Record<string, number | null>;
}

/** Reads a line of `metrics.jsonl`; null where it is none. */
export function parseEpochRow(line: string): EpochRow | null {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return null;
  }
  const parsed = epochSchema.safeParse(value);
  if (!parsed.success) return null;
  const { epoch, steps, lr, secondsPerStep, train, validation, ...rest } = parsed.data;
  const scores = Object.entries(rest).filter(
    (entry): entry is [string, number | null] => entry[1] === null || typeof entry[1] === 'number',
  );
  return { epoch, steps, lr, secondsPerStep, train, validation, scores: Object.fromEntries(scores) };
}

const count = z.int().min(0);
export const environmentSchema = z.object({
  /** One for the start of the run and for each time that it was gone on with. */
  sessions: z.array(
    z.object({
      /** Moments as ISO 8601 tells them; null for a session that was killed or still runs. */
      started: z.string(),
      ended: z.string().nullable(),
      machine: z.object({ processor: z.string(), cores: count, memoryGiB: z.number(), system: z.string() }),
      adapter: z.object({ kind: z.string(), name: z.string(), driver: z.string() }),
      versions: z.record(z.string(), z.string()),
      /** What chose the kernels; sessions of older versions took the built-in table. */
      kernels: kernelRecordSchema.optional(),
    }),
  ),
  /** The data set as the run saw it. */
  data: z.object({
    images: z.object({ train: count, validation: count }),
    /** Cells by class, in the order of the labels 1 …. */
    cells: z.array(z.object({ class: z.string(), train: count, validation: count })),
    /** Sizes of the files in pixels with how many images have them, the most frequent first. */
    sizes: z.array(z.object({ width: count, height: count, images: count })),
    /** Least, middle and most cells of an image. */
    cellsPerImage: z.object({ min: count, median: z.number(), max: count }),
  }),
  model: z.object({ parameters: count }),
});

/** `environment.json` of a run's folder: what it ran on. Nothing of it decides the run, and no checkpoint holds it. */
export type RunEnvironment = z.infer<typeof environmentSchema>;

/** Scores of the best weights, as `scores.json` has them: numbers by name, and those of each class. */
export interface FinalScores {
  scores: Record<string, number | null>;
  perClass: { label: number; instances: number; scores: Record<string, number | null> }[];
}

/** A file of the run's folder. */
export interface ReportFile {
  /** Relative to the report's folder. */
  href: string;
  name: string;
  bytes: number;
  what: string;
}

/** Pictures with what they show. */
export interface ReportPanels {
  index: PanelIndex;
  /** The pictures in the order of `index.panels`, each with its link. */
  pictures: { image: RgbImage; href: string }[];
}

/** All that a report tells of a run. What a folder does not have is null. */
export interface RunReport {
  name: string;
  /** Options by name, as `config.json` has them. */
  config: Record<string, unknown>;
  /** Epochs that the run was to have. */
  plannedEpochs: number;
  epochs: EpochRow[];
  /** The epoch whose weights are kept; null before the first epoch's end. */
  bestEpoch: number | null;
  /** [epochs, learning rate], the corners of its course over the steps done. */
  learningRate: [epochs: number, lr: number][];
  /** Names of the labels 1 … and what selects their cells, from the best weights. */
  classes: { name: string; minScore: number; maskThreshold: number }[];
  final: FinalScores | null;
  environment: RunEnvironment | null;
  panels: ReportPanels | null;
  files: ReportFile[];
}
