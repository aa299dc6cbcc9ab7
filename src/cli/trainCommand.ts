import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { requireOutputFolder, writeFileAtomic } from '../data/files.ts';
import type { EvaluationResult } from '../eval/evaluator.ts';
import { chromeTrace } from '../gpu/profiler.ts';
import type { KernelFamily } from '../kernels/kernelChoice.ts';
import { openWeightsFile } from '../model/checkpoints/openWeightsFile.ts';
import { presetDefaults, presetNames } from '../model/presets.ts';
import type { Device } from '../tensor/device.ts';
import { recordedKernels, recordSession } from '../train/environment.ts';
import {
  completeTrainOptions,
  type GivenTrainOptions,
  readTrainConfig,
  splitMethods,
  type TrainOptions,
} from '../train/options.ts';
import { allocateRun, planRun, RUN_FILES, type Run } from '../train/run.ts';
import type { Profile } from '../train/stepProfile.ts';
import { Trainer } from '../train/trainer.ts';
import { dataFolder, findCompetitionData } from './dataFolder.ts';
import { UserError } from './errors.ts';
import { sayPlan } from './memoryLines.ts';
import { parseCount, parseList, parseNumber } from './numbers.ts';
import { measurePeak, requireTimestamps, showProfile, summarizeProfile } from './profileTables.ts';
import { writePictures, writeReport, writeRunSubmission } from './runResults.ts';
import {
  adapterOption,
  interruptible,
  kernelsOption,
  precisionOption,
  say,
  tunerOption,
  withDevice,
} from './session.ts';
import { readRunOptions } from './storedRun.ts';
import { batchNormEpsOption } from './weightsOptions.ts';

interface Flags extends Omit<GivenTrainOptions, 'stepLr'> {
  stepLr?: TrainOptions['stepLr'];
  out?: string;
  config?: string;
  resume?: string;
  adapter: string;
  tuner?: boolean;
  kernels: KernelFamily;
  profile?: boolean;
}

function parseStepLr(text: string): TrainOptions['stepLr'] {
  const [size, gamma, ...rest] = text.split(',');
  if (gamma === undefined || rest.length > 0)
    throw new InvalidArgumentError('expected EPOCHS,GAMMA, for example 5,0.1.');
  return { size: parseCount(size), gamma: parseNumber(gamma) };
}

export function trainCommand(): Command {
  return new Command('train')
    .description('Train Mask R-CNN on a folder of cell images, or on synthetic cells when none is given.')
    .option('--data <dir>', "folder with the competition's train.csv, a COCO file, or label images")
    .option('--preset <name>', `model and settings: ${presetNames.join(', ')} (default: tiny)`)
    .option('--resize <factor>', 'scale images and masks when loading (default: 0.5)', parseNumber)
    .option(
      '--predict-resize <factor>',
      'the same for images to predict (default: as --resize, or by preset)',
      parseNumber,
    )
    .option('--epochs <n>', 'passes over the training images', parseCount)
    .option('--batch-size <n>', 'images per step (default: 2)', parseCount)
    .option(
      '--validation-batch-size <n>',
      'images predicted at once in validation (default: as --batch-size; more may pay on a real GPU)',
      parseCount,
    )
    .option('--lr <x>', 'learning rate of SGD (default: by preset)', parseNumber)
    .option('--momentum <x>', 'momentum of SGD (default: 0.9)', parseNumber)
    .option('--weight-decay <x>', 'weight decay of SGD (default: by preset)', parseNumber)
    .option('--warmup-steps <n>', 'steps of linear warm-up (default: by preset)', parseCount)
    .option('--step-lr <n,gamma>', 'multiply the learning rate by gamma every n epochs', parseStepLr)
    .option('--clip-norm <x>', 'scale gradients down to this norm (default: by preset)', parseNumber)
    .option('--seed <n>', 'seed of everything random (default: 2021)', parseCount)
    .option('--validation <share>', 'share of the images kept for validation (default: by preset)', parseNumber)
    .addOption(
      new Option('--split <method>', "how validation images are chosen; 'notebook' as the Kaggle notebook did")
        .choices(splitMethods)
        .default(undefined, 'balanced'),
    )
    .option('--split-seed <n>', 'seed of the split (default: --seed; of the notebook split: 1234)', parseCount)
    .option('--split-file <file>', "images of both sides: a run's split.json, or a CSV with the columns id and part")
    .option('--test-mode', 'read only the first 5000 rows of train.csv')
    .option('--anchors <a,b,c,d,e>', 'anchor sizes in pixels of the resized image, one per level', parseList)
    .option(
      '--trainable-layers <n>',
      'train the last n of the five layers of the backbone (default: 5, all)',
      parseCount,
    )
    .option(
      '--checkpoint-activations',
      "compute the backbone's activations again in the backward pass: less memory, more time, the same numbers",
    )
    .option('--hflip <p>', 'probability of mirroring left to right (default: 0.5)', parseNumber)
    .option('--vflip <p>', 'probability of mirroring top to bottom (default: 0.5)', parseNumber)
    .option('--rotate90 <p>', 'probability of quarter turns (default: 0)', parseNumber)
    .option('--scale-jitter <least,most>', 'resize by a random factor of this range', parseList)
    .option('--crop <width,height>', 'train on random windows of this size', parseList)
    .option('--brightness <x>', 'change brightness by a factor within 1 ± x (default: 0)', parseNumber)
    .option('--contrast <x>', 'change contrast by a factor within 1 ± x (default: 0)', parseNumber)
    .option(
      '--weights <file>',
      "start from these weights: this program's, or torchvision's (.safetensors, .pth, .pt, .bin)",
    )
    .addOption(batchNormEpsOption())
    .option('--competition-classes', 'label astro 1, cort 2, shsy5y 3, whatever types the file holds')
    .option('--no-competition-classes', 'labels by the types of the file')
    .option('--normalize', "the notebook's NORMALIZE: normalise images before the model does")
    .option('--no-normalize', 'let the model alone normalise images (default)')
    .option('--tune', 'choose thresholds on the validation images at the end (default: by preset)')
    .option('--no-tune', "keep the notebook's thresholds (.6, .8, .7; .5 for other cell types)")
    .option('--workers <n>', 'threads that load images (default: 2)', parseCount)
    .option('--out <dir>', 'folder of the run (default: the next free runs/NNN)')
    .option('--config <file>', "options from a file, such as a run's config.json; options given here win")
    .option('--resume <dir>', 'go on with a stopped run')
    .option(
      '--profile',
      'time every kernel of a few steps; tables and a trace for Perfetto go to the folder of the run',
    )
    .addOption(precisionOption())
    .addOption(adapterOption())
    .addOption(kernelsOption())
    .addOption(tunerOption())
    .action(async ({ out, config, resume, adapter, kernels, tuner, profile, ...given }: Flags) => {
      if (resume !== undefined) {
        if (out !== undefined || config !== undefined || Object.keys(given).length > 0) {
          throw new UserError(
            '--resume takes all options from the run; only --adapter, --kernels, --no-tuner and --profile may stand beside it.',
          );
        }
        await run(resumeOptions(resume), resume, true, { adapter, kernels, tuner, profile });
        return;
      }
      const options = gatherOptions(config === undefined ? {} : readTrainConfig(config), given);
      const folder = out ?? nextRunFolder();
      if (existsSync(join(folder, RUN_FILES.config))) {
        throw new UserError(`--out ${folder}: it holds a run already; expected another folder, or --resume ${folder}.`);
      }
      requireOutputFolder(folder, '--out');
      await run(options, folder, false, { adapter, kernels, tuner, profile });
    });
}

/**
 * A file's options with the command line's over them, completed by the preset. Where neither names the data, a preset of the
 * competition looks for its folder.
 */
function gatherOptions(file: GivenTrainOptions, flags: GivenTrainOptions): TrainOptions {
  const given = { ...file, ...flags };
  if (given.data === undefined && presetDefaults(given.preset ?? 'tiny').data.competitionData) {
    given.data = findCompetitionData();
  }
  return completeTrainOptions(given);
}

/** runs/001, runs/002, …: the first number above all that are there. */
function nextRunFolder(): string {
  const taken = existsSync('runs') ? readdirSync('runs').map((name) => (/^\d+$/.test(name) ? Number(name) : 0)) : [];
  return join('runs', String(Math.max(0, ...taken) + 1).padStart(3, '0'));
}

/** The options of a run to go on with. Its weights to start from are in its state. @throws UserError where no run stopped */
function resumeOptions(folder: string): TrainOptions {
  const options = readRunOptions(folder, '--resume');
  if (!existsSync(join(folder, RUN_FILES.state))) {
    throw new UserError(
      `--resume ${folder}: it holds a run that saved no state before it ended (there is no ${RUN_FILES.state}), expected the folder of a stopped run.`,
    );
  }
  return { ...options, weights: null };
}

async function run(
  options: TrainOptions,
  out: string,
  resume: boolean,
  { adapter, kernels, tuner, profile = false }: Pick<Flags, 'adapter' | 'kernels' | 'tuner' | 'profile'>,
): Promise<void> {
  const dir = dataFolder(options);
  const weights = options.weights === null ? null : await openWeightsFile(options.weights);
  try {
    const planned = planRun(options, dir, out, weights);
    const body = async (device: Device): Promise<void> => {
      if (profile) requireTimestamps(device);
      describe(planned, dir);
      if (!resume && weights === null && presetDefaults(options.preset).data.competitionData) {
        say("Weights   random; the notebook starts from torchvision's COCO weights, as --weights FILE does");
      }
      await train(planned, resume, device, { profile });
    };
    const recorded = resume ? recordedKernels(out) : undefined;
    await withDevice(adapter, body, {
      kernels,
      tuner,
      recorded,
      precision: options.precision,
      work: `train ${options.preset}`,
    });
  } finally {
    weights?.close();
  }
}

/** Trains a planned run, or goes on with it, and writes its pictures and submission; with `profile` also where the time goes. */
export async function train(
  planned: Run,
  resume: boolean,
  device: Device,
  { profile = false }: { profile?: boolean } = {},
): Promise<void> {
  const { model, out } = planned;
  await sayPlan(device, planned);
  await allocateRun(planned, device);
  const interrupt = interruptible();
  try {
    const trainer = new Trainer(planned, {
      say,
      stopping: interrupt.stopping,
      ...(profile && { profiled: (steps: Profile) => writeProfile(steps, device, out) }),
    });
    if (resume) await trainer.resume();
    else trainer.start();
    const endSession = recordSession(planned, device);
    const outcome = await trainer.train();
    endSession();
    if (outcome.stopped) {
      writeReport(out);
      say(`Stopped and saved. Go on with: npm run train -- --resume ${out}`);
      process.exitCode = 130;
      return;
    }
    const { best, final } = outcome;
    writeFileAtomic(join(out, RUN_FILES.scores), `${JSON.stringify(final.scores, null, 2)}\n`);
    const pictures = await writePictures(planned, best.epoch);
    const submission = await writeRunSubmission(planned);
    const report = writeReport(out);
    say(`Best epoch ${best.epoch}: ${describeScores(final.scores, planned.options.tune)}.`);
    say(`Weights   ${join(out, RUN_FILES.best)}`);
    say(`Pictures  ${pictures}`);
    say(`Report    ${report}`);
    say(
      submission
        ? `Predicted ${submission.rows} rows for ${submission.images} images: ${submission.path}`
        : 'No submission.csv: a box-only model finds no masks.',
    );
  } finally {
    interrupt.done();
    model.dispose();
  }
}

/** Shows a profile and keeps it in the run's folder. */
async function writeProfile(profile: Profile, device: Device, out: string): Promise<void> {
  const peak = await measurePeak(device);
  // What measuring took is not the training's.
  await device.gpu.trim();
  showProfile(profile, peak);
  writeFileAtomic(
    join(out, RUN_FILES.profile),
    `${JSON.stringify(summarizeProfile(profile, device, peak), null, 2)}\n`,
  );
  writeFileAtomic(join(out, RUN_FILES.trace), chromeTrace(profile.spans));
  say(`Trace     ${join(out, RUN_FILES.trace)}, for https://ui.perfetto.dev; training goes on`);
}

function describeScores({ iouMap, maskAP50, boxMap30, boxAP50 }: EvaluationResult, tuned: boolean): string {
  if (iouMap === null || maskAP50 === null) return `box mAP30 ${boxMap30.toFixed(3)}, box AP50 ${boxAP50.toFixed(3)}`;
  const thresholds = tuned ? 'thresholds chosen on validation' : 'the thresholds before any tuning';
  return `competition score ${iouMap.toFixed(3)} with ${thresholds}, mask AP50 ${maskAP50.toFixed(3)}`;
}

function describe({ dataset, split, model, options, out, start, notes }: Run, dir: string): void {
  const cells = dataset.images.reduce(
    (sum, { annotations }) => sum + annotations.filter(({ iscrowd }) => !iscrowd).length,
    0,
  );
  say(`Data      ${dir}: ${dataset.images.length} images, ${cells} cells of ${dataset.classes.join(', ')}`);
  say(`Split     ${split.train.length} images to train, ${split.validation.length} to validate`);
  say(
    `Model     ${options.preset}, ${(model.state.parameterCount() / 1e6).toFixed(2)} M parameters, anchors ${model.config.anchorSizes.join(', ')}`,
  );
  if (start) say(`Weights   ${start.file.path}, ${start.file.form}`);
  for (const note of notes) say(note);
  say(
    `Run       ${out}: ${options.epochs} epochs of ${Math.ceil(split.train.length / options.batchSize)} steps, lr ${options.lr}`,
  );
}
