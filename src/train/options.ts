import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { UserError } from '../cli/errors.ts';
import { suggestion } from '../cli/nearest.ts';
import { NO_AUGMENTATION } from '../data/augmentations.ts';
import { type ModelOverrides, parseModelOverrides } from '../model/config.ts';
import { precisions } from '../model/precision.ts';
import { checkPreset, presetDefaults, presetNames } from '../model/presets.ts';

const count = z.int().positive();
const probability = z.number().min(0).max(1);

export const splitMethods = ['balanced', 'notebook'] as const;

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
  /** The same for images to predict, kept in the checkpoints; null: as `resize`. */
  predictResize: z.number().positive().max(4).nullable(),
  epochs: count,
  batchSize: count,
  /** Images that are predicted at once in validation, at least; null: as `batchSize`. */
  validationBatchSize: count.nullable(),
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
  /**
   * How validation images are chosen: `balanced` keeps every cell type on both sides and takes any data; `notebook` is scikit-learn's
   * `train_test_split` over the notebook's table, image for image.
   */
  split: z.enum(splitMethods),
  /** Seed of the split; null: the run's for `balanced`, the notebook's 1234 for `notebook`. */
  splitSeed: z.int().min(0).nullable(),
  /** A file that names the images of both sides, such as another run's `split.json`; where given, it decides alone. */
  splitFile: z.string().nullable(),
  /** Read the first 5000 rows of train.csv only, as the notebook's TEST. */
  testMode: z.boolean(),
  anchors: z.array(z.number().positive()).length(5).nullable(),
  /** Layers of the backbone that are trained, from the last: torchvision's `trainable_backbone_layers`; 5 is all of it. */
  trainableLayers: z.int().min(0).max(5),
  /** Compute the activations of the backbone's layers again in the backward pass, instead of keeping them: less memory, more time. */
  checkpointActivations: z.boolean(),
  /** Options of the model that win over the preset's, by the names of `MaskRCNNConfig`; `parseModelOverrides` looks at each. */
  model: z.custom<ModelOverrides>((value) => typeof value === 'object' && value !== null, 'expected an object'),
  /** The notebook's NORMALIZE: images are normalised by ImageNet's mean and deviation before the model does so. */
  normalize: z.boolean(),
  /** Weights to start from. */
  weights: z.string().nullable(),
  /** Added to the variance by the batch norms; null: what the weights need (see `chooseBatchNormEps`). */
  batchNormEps: z.number().min(0).nullable(),
  /** Changes of the training samples, see `Augmentation`. */
  hflip: probability,
  vflip: probability,
  rotate90: probability,
  scaleJitter: z
    .tuple([z.number().positive(), z.number().positive()])
    .refine(([least, most]) => least <= most, 'expected the smaller factor first')
    .nullable(),
  crop: z.tuple([count, count]).nullable(),
  brightness: probability,
  contrast: probability,
  competitionClasses: z.boolean(),
  /** Choose thresholds on the validation images at the end, instead of keeping those of `initialThresholds`. */
  tune: z.boolean(),
  workers: z.int().min(0),
  /** What maps are stored as, see `precisions`; with `f16` the loss is scaled, see `GradScaler`. Parameters are `f32` always. */
  precision: z.enum(precisions),
});

export type TrainOptions = z.infer<typeof trainOptionsSchema>;

/** Options that a user gave, on the command line or in a file. */
export type GivenTrainOptions = Partial<TrainOptions>;

/** The first fault in one sentence, as in "--batch-size 0: expected number to be >0."; unknown names before missing ones. */
function explain({ issues }: z.ZodError, options: object, optionName: (key: string) => string): string {
  const issue = issues.find(({ code }) => code === 'unrecognized_keys') ?? issues[0];
  const message = issue.message.replace(/^(Too (small|big)|Invalid (input|option)): /, '');
  const [key] = issue.path;
  if (issue.code === 'unrecognized_keys') {
    const prefix = issue.path.map((part) => `${String(part)}.`).join('');
    const unknown = prefix + issue.keys[0];
    const known = knownKeys(issue.path).map((name) => prefix + name);
    return `${optionName('')}unknown option '${unknown}'${suggestion(unknown, known)}`;
  }
  if (typeof key !== 'string') return `${optionName('')}${message}.`;
  const value = (options as Record<string, unknown>)[key];
  const shown = Array.isArray(value) || typeof value !== 'object' ? String(value) : JSON.stringify(value);
  return `${optionName(key)} ${shown}: ${message}.`;
}

/** The keys of the whole schema, or of the object within it that a path names (`stepLr`). */
function knownKeys([key]: readonly PropertyKey[]): string[] {
  const { stepLr, finalDecay } = trainOptionsSchema.shape;
  if (key === 'stepLr') return Object.keys(stepLr.unwrap().shape);
  if (key === 'finalDecay') return Object.keys(finalDecay.unwrap().shape);
  return Object.keys(trainOptionsSchema.shape);
}

/** `batchSize` → `--batch-size`. */
const flagName = (key: string): string => `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/**
 * Reads `--config FILE`, a JSON object of some or all training options.
 * @throws UserError naming the file and the option that is wrong or unknown, then with the nearest name that there is
 */
export function readTrainConfig(path: string): GivenTrainOptions {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new UserError(`${path}: expected a JSON file of training options (${(error as Error).message}).`);
  }
  const given: Record<string, unknown> = typeof value === 'object' && value !== null ? { ...value } : {};
  if (typeof given.preset === 'string') checkPreset(given.preset, path);
  const parsed = trainOptionsSchema.partial().safeParse(value);
  if (!parsed.success) throw new UserError(explain(parsed.error, given, (key) => `${path}: ${key}`));
  if (parsed.data.model !== undefined) parsed.data.model = parseModelOverrides(parsed.data.model, path);
  return parsed.data;
}

/** The synthetic cells' own: enough epochs to learn them, and 12 of the 72 images for validation. */
const SYNTHETIC = { epochs: 10, validation: 1 / 6 };

/**
 * Fills in what was not given: from the preset, and for the synthetic cells (no `data`) epochs and validation share that suit
 * them. The command line's options are laid over a file's before: flags override the file, the file overrides the preset.
 *
 * @throws UserError naming the option of the command line that is wrong
 */
export function completeTrainOptions(given: GivenTrainOptions): TrainOptions {
  const preset = checkPreset(given.preset ?? 'tiny');
  const { training, data: reading, untrained } = presetDefaults(preset);
  const data = given.data ?? null;
  const weights = given.weights ?? null;
  const { learningRate, epochs, ...optimizer } = training;
  const { competitionData, validation, ...images } = reading;
  const value = {
    data,
    preset,
    ...images,
    ...optimizer,
    epochs,
    lr: learningRate,
    validationBatchSize: null,
    stepLr: null,
    // A schedule by epochs replaces the preset's own.
    finalDecay: given.stepLr ? null : training.finalDecay,
    seed: 2021,
    validation,
    ...(data === null && SYNTHETIC),
    splitSeed: null,
    splitFile: null,
    testMode: false,
    anchors: null,
    trainableLayers: 5,
    ...NO_AUGMENTATION,
    // The notebook's.
    hflip: 0.5,
    vflip: 0.5,
    normalize: false,
    weights,
    batchNormEps: null,
    workers: 2,
    precision: 'f32',
    ...Object.fromEntries(Object.entries(given).filter(([, option]) => option !== undefined)),
    model: { ...(weights === null && untrained), ...given.model },
  };
  const parsed = trainOptionsSchema.safeParse(value);
  if (!parsed.success) throw new UserError(explain(parsed.error, value, flagName));
  return parsed.data;
}
