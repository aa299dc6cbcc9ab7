import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { UserError } from '../cli/errors.ts';
import { type PresetName, presetNames, trainingDefaults } from '../model/presets.ts';

const count = z.int().positive();

/**
 * Everything that decides a training run, as `config.json` in its folder keeps it: the same file on the same adapter gives the
 * same run. Names are those of the command's options.
 */
const trainOptionsSchema = z.strictObject({
  /** Folder with train.csv and train/; null for the synthetic cells. */
  data: z.string().nullable(),
  preset: z.enum(presetNames),
  /** Factor by which images and masks are resized when loaded, as the notebook's `resize_factor`. */
  resize: z.number().positive().max(4),
  epochs: count,
  batchSize: count,
  lr: z.number().positive(),
  momentum: z.number().min(0).lt(1),
  weightDecay: z.number().min(0),
  /** Steps over which the learning rate rises linearly from 1/1000 of its value. */
  warmupSteps: z.int().min(0),
  /** The learning rate is multiplied by `gamma` every `size` epochs (torch's StepLR). */
  stepLr: z.strictObject({ size: count, gamma: z.number().positive() }).nullable(),
  /** For the last `share` of all steps the learning rate is multiplied by `factor`. */
  finalDecay: z.strictObject({ share: z.number().min(0).max(1), factor: z.number().positive() }).nullable(),
  clipNorm: z.number().positive().nullable(),
  seed: z.int().min(0),
  /** Share of the images that are kept for validation. */
  validation: z.number().gt(0).lt(1),
  anchors: z.array(z.number().positive()).length(5).nullable(),
  /** Weights to start from. */
  weights: z.string().nullable(),
  /** Added to the variance by the batch norms; null: what the weights need (see `chooseBatchNormEps`). */
  batchNormEps: z.number().min(0).nullable(),
  competitionClasses: z.boolean(),
  workers: z.int().min(0),
});

export type TrainOptions = z.infer<typeof trainOptionsSchema>;

/** Options that a user gave, on the command line or in a file. */
export type GivenTrainOptions = Partial<TrainOptions>;

/** The first fault in one sentence, as in "--batch-size 0: expected number to be >0." */
function explain({ issues: [issue] }: z.ZodError, options: object, optionName: (key: string) => string): string {
  const message = issue.message.replace(/^(Too (small|big)|Invalid (input|option)): /, '');
  const [key] = issue.path;
  if (typeof key !== 'string') return `${optionName('')}${message}.`;
  const value = (options as Record<string, unknown>)[key];
  const shown = Array.isArray(value) || typeof value !== 'object' ? String(value) : JSON.stringify(value);
  return `${optionName(key)} ${shown}: ${message}.`;
}

/** `batchSize` → `--batch-size`. */
const flagName = (key: string): string => `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** Reads `--config FILE`. @throws UserError naming the file and the option that is wrong */
export function readTrainConfig(path: string): GivenTrainOptions {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new UserError(`${path}: expected a JSON file of training options (${(error as Error).message}).`);
  }
  const parsed = trainOptionsSchema.partial().safeParse(value);
  if (!parsed.success) {
    const given = typeof value === 'object' && value !== null ? value : {};
    throw new UserError(explain(parsed.error, given, (key) => `${path}: ${key}`));
  }
  return parsed.data;
}

/** Epochs of a run whose options do not say: enough for the synthetic cells, the notebook's for a user's own data. */
const EPOCHS = { synthetic: 10, own: { tiny: 12, resnet50: 8 } } as const;

/**
 * Fills in what was not given: the preset's training settings, `resize` .5 as the notebook, validation 1/6 of the synthetic
 * images (12 of 72) and 15 % of a user's.
 */
export function completeTrainOptions(given: GivenTrainOptions): TrainOptions {
  const preset = given.preset ?? 'tiny';
  if (!presetNames.includes(preset as PresetName)) {
    throw new UserError(`There is no preset '${preset}', expected one of ${presetNames.join(', ')}.`);
  }
  const defaults = trainingDefaults(preset);
  const data = given.data ?? null;
  const value = {
    data,
    preset,
    resize: 0.5,
    epochs: data === null ? EPOCHS.synthetic : EPOCHS.own[preset],
    batchSize: defaults.batchSize,
    lr: defaults.learningRate,
    momentum: defaults.momentum,
    weightDecay: defaults.weightDecay,
    warmupSteps: defaults.warmupSteps,
    stepLr: null,
    // A schedule by epochs replaces the preset's own.
    finalDecay: given.stepLr ? null : defaults.finalDecay,
    clipNorm: defaults.clipNorm,
    seed: 2021,
    validation: data === null ? 1 / 6 : 0.15,
    anchors: null,
    weights: null,
    batchNormEps: null,
    competitionClasses: false,
    workers: 2,
    ...Object.fromEntries(Object.entries(given).filter(([, option]) => option !== undefined)),
  };
  const parsed = trainOptionsSchema.safeParse(value);
  if (!parsed.success) throw new UserError(explain(parsed.error, value, flagName));
  return parsed.data;
}
