import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { requireOutputFolder } from '../data/files.ts';
import { ensureSyntheticDataset } from '../data/synthetic.ts';
import { requireFolder } from '../data/table.ts';
import type { KernelFamily } from '../kernels/kernelChoice.ts';
import { presetNames } from '../model/presets.ts';
import type { Device } from '../tensor/device.ts';
import { completeTrainOptions, type GivenTrainOptions, readTrainConfig, type TrainOptions } from '../train/options.ts';
import { startProgress } from '../train/progress.ts';
import { allocateRun, planRun, RUN_FILES, type Run } from '../train/run.ts';
import { Trainer } from '../train/trainer.ts';
import { UserError } from './errors.ts';
import { parseCount, parseList, parseNumber } from './numbers.ts';
import { writePictures, writeRunSubmission } from './runResults.ts';
import { adapterOption, interruptible, kernelsOption, say, withDevice } from './session.ts';

interface Flags extends Omit<GivenTrainOptions, 'stepLr'> {
  stepLr?: TrainOptions['stepLr'];
  out?: string;
  config?: string;
  resume?: string;
  adapter: string;
  kernels: KernelFamily;
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
    .option('--data <dir>', 'folder with train.csv (id, annotation, width, height, cell_type) and train/<id>.png')
    .option('--preset <name>', `model: ${presetNames.join(' or ')} (default: tiny)`)
    .option('--resize <factor>', 'scale images and masks when loading (default: 0.5)', parseNumber)
    .option('--epochs <n>', 'passes over the training images', parseCount)
    .option('--batch-size <n>', 'images per step (default: 2)', parseCount)
    .option('--lr <x>', 'learning rate of SGD (default: by preset)', parseNumber)
    .option('--momentum <x>', 'momentum of SGD (default: 0.9)', parseNumber)
    .option('--weight-decay <x>', 'weight decay of SGD (default: by preset)', parseNumber)
    .option('--warmup-steps <n>', 'steps of linear warm-up (default: by preset)', parseCount)
    .option('--step-lr <n,gamma>', 'multiply the learning rate by gamma every n epochs', parseStepLr)
    .option('--clip-norm <x>', 'scale gradients down to this norm (default: by preset)', parseNumber)
    .option('--seed <n>', 'seed of everything random (default: 2021)', parseCount)
    .option('--validation <share>', 'share of the images kept for validation (default: 0.15)', parseNumber)
    .option('--anchors <a,b,c,d,e>', 'anchor sizes in pixels of the resized image, one per level', parseList)
    .option('--weights <file>', 'start from these weights')
    .option('--competition-classes', 'label astro 1, cort 2, shsy5y 3, whatever types the file holds')
    .option('--workers <n>', 'threads that load images (default: 2)', parseCount)
    .option('--out <dir>', 'folder of the run (default: the next free runs/NNN)')
    .option('--config <file>', "options from a file, such as a run's config.json; options given here win")
    .option('--resume <dir>', 'go on with a stopped run')
    .addOption(adapterOption())
    .addOption(kernelsOption())
    .action(async ({ out, config, resume, adapter, kernels, ...given }: Flags) => {
      if (resume !== undefined) {
        if (out !== undefined || config !== undefined || Object.keys(given).length > 0) {
          throw new UserError(
            '--resume takes all options from the run; only --adapter and --kernels may stand beside it.',
          );
        }
        await run(readRunOptions(resume), resume, true, { adapter, kernels });
        return;
      }
      const options = completeTrainOptions({ ...(config === undefined ? {} : readTrainConfig(config)), ...given });
      const folder = out ?? nextRunFolder();
      if (existsSync(join(folder, RUN_FILES.config))) {
        throw new UserError(`--out ${folder}: it holds a run already; expected another folder, or --resume ${folder}.`);
      }
      requireOutputFolder(folder, '--out');
      await run(options, folder, false, { adapter, kernels });
    });
}

/** runs/001, runs/002, …: the first number above all that are there. */
function nextRunFolder(): string {
  const taken = existsSync('runs') ? readdirSync('runs').map((name) => (/^\d+$/.test(name) ? Number(name) : 0)) : [];
  return join('runs', String(Math.max(0, ...taken) + 1).padStart(3, '0'));
}

function dataFolder({ data }: TrainOptions): string {
  if (data !== null) return data;
  let bar: ReturnType<typeof startProgress> | null = null;
  const dir = ensureSyntheticDataset({
    progress: (done, total) => {
      bar ??= startProgress('Painting synthetic cells', total);
      bar.update(done);
    },
  });
  (bar as ReturnType<typeof startProgress> | null)?.stop();
  return dir;
}

/** The options of a run to go on with. Its weights to start from are in its state. @throws UserError where no run stopped */
function readRunOptions(folder: string): TrainOptions {
  requireFolder(folder);
  for (const [file, what] of [
    [RUN_FILES.config, 'no run'],
    [RUN_FILES.state, 'a run that saved no state before it ended'],
  ] as const) {
    if (existsSync(join(folder, file))) continue;
    throw new UserError(
      `--resume ${folder}: it holds ${what} (there is no ${file}), expected the folder of a stopped run.`,
    );
  }
  return { ...completeTrainOptions(readTrainConfig(join(folder, RUN_FILES.config))), weights: null };
}

async function run(
  options: TrainOptions,
  out: string,
  resume: boolean,
  { adapter, kernels }: Pick<Flags, 'adapter' | 'kernels'>,
): Promise<void> {
  const dir = dataFolder(options);
  const planned = planRun(options, dir, out);
  const body = async (device: Device): Promise<void> => {
    describe(planned, dir);
    await train(planned, resume, device);
  };
  await withDevice(adapter, body, kernels);
}

/** Trains a planned run, or goes on with it, and writes its pictures and submission. */
export async function train(planned: Run, resume: boolean, device: Device): Promise<void> {
  const { model, out } = planned;
  await allocateRun(planned, device);
  const interrupt = interruptible();
  try {
    const trainer = new Trainer(planned, { say, stopping: interrupt.stopping });
    if (resume) await trainer.resume();
    else trainer.start();
    const outcome = await trainer.train();
    if (outcome.stopped) {
      say(`Stopped and saved. Go on with: npm run train -- --resume ${out}`);
      process.exitCode = 130;
      return;
    }
    const { best, final } = outcome;
    const pictures = await writePictures(planned);
    const submission = await writeRunSubmission(planned);
    const { iouMap, maskAP50 } = final.scores;
    say(
      `Best epoch ${best.epoch}: competition score ${(iouMap ?? 0).toFixed(3)} with thresholds chosen on validation, mask AP50 ${(maskAP50 ?? 0).toFixed(3)}.`,
    );
    say(`Weights   ${join(out, RUN_FILES.best)}`);
    say(`Pictures  ${pictures}`);
    say(`Predicted ${submission.rows} rows for ${submission.images} images: ${submission.path}`);
  } finally {
    interrupt.done();
    model.dispose();
  }
}

function describe({ dataset, split, model, options, out }: Run, dir: string): void {
  const cells = dataset.images.reduce((sum, { annotations }) => sum + annotations.length, 0);
  say(`Data      ${dir}: ${dataset.images.length} images, ${cells} cells of ${dataset.classes.join(', ')}`);
  say(`Split     ${split.train.length} images to train, ${split.validation.length} to validate`);
  say(
    `Model     ${options.preset}, ${(model.state.parameterCount() / 1e6).toFixed(2)} M parameters, anchors ${model.config.anchorSizes.join(', ')}`,
  );
  say(
    `Run       ${out}: ${options.epochs} epochs of ${Math.ceil(split.train.length / options.batchSize)} steps, lr ${options.lr}`,
  );
}
