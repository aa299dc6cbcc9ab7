import { copyFileSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { pickAugmentation } from '../data/augmentations.ts';
import { writeFileAtomic } from '../data/files.ts';
import { Loader, type SampleThreads, startSampleThreads } from '../data/loader.ts';
import { Random, type RandomState } from '../data/random.ts';
import { writeSplitFile } from '../data/splitFile.ts';
import { GradScaler, type GradScalerState } from '../kernels/gradScaler.ts';
import type { SampleOrder } from '../kernels/sampler.ts';
import { type EpochScore, epochScore, isBetter } from './best.ts';
import { openCheckpoint, rewriteCheckpoint, saveCheckpoint, stateSource } from './checkpoint.ts';
import { splitOrigin } from './chooseSplit.ts';
import { LossMeter, NonFiniteGradientError, readLosses } from './losses.ts';
import { startProgress } from './progress.ts';
import { loadRunState, saveRunState } from './resume.ts';
import { checkpointInfo, RUN_FILES, type Run } from './run.ts';
import { type EpochMetrics, RunLog } from './runLog.ts';
import { learningRate } from './schedule.ts';
import { type StepLosses, trainStep } from './step.ts';
import { type Profile, TrainingProfile } from './stepProfile.ts';
import { tunedThresholds, type Validation, validate } from './validate.ts';

type TrainedEpoch = Pick<EpochMetrics, 'epoch' | 'steps' | 'lr' | 'secondsPerStep' | 'train'>;

export interface TrainHooks {
  /** One line for the user. */
  say(line: string): void;
  /** True once the user has asked to stop: the step under way is finished, then the run saved. */
  stopping(): boolean;
  /** Where given, a few steps are profiled, and training waits for it to take the profile. */
  profiled?(profile: Profile): Promise<void>;
}

/** How a run ended: after all its epochs, or on request. */
export type TrainOutcome = { stopped: true } | { stopped: false; best: EpochScore; final: Validation };

/**
 * Trains a prepared run epoch by epoch: steps, validation, a checkpoint and a line of metrics each; the best epoch's weights are
 * kept. A stopped run goes on exactly where it stood.
 */
export class Trainer {
  readonly #run: Run;
  readonly #hooks: TrainHooks;
  /** Epochs finished, and steps done in the one under way. */
  #epoch = 0;
  #step = 0;
  #losses = new LossMeter();
  #profile: TrainingProfile | null = null;
  /** Load the images of all epochs and validations. */
  #threads: SampleThreads | undefined;
  #best: EpochScore | null = null;
  /** Of a run in float16, from `start` or `resume` on. */
  #scaler: GradScaler | null = null;
  /** From `start` or `resume`, one of which comes before `train`. */
  #log!: RunLog;
  // Loader and sampler draw from generators of their own, so that neither's use moves the other.
  #loaderRandom: Random;
  #samplerRandom: Random;

  constructor(run: Run, hooks: TrainHooks) {
    this.#run = run;
    this.#hooks = hooks;
    this.#loaderRandom = new Random(run.options.seed);
    this.#samplerRandom = new Random(run.options.seed + 1);
  }

  #path(file: string): string {
    return join(this.#run.out, file);
  }

  /** One number a step, so that a resumed run draws what the whole one would have. */
  #nextOrder(): SampleOrder {
    return { kind: 'random', seed: this.#samplerRandom.uint32() };
  }

  /** Steps since the run began: those of the finished epochs and of the one under way. */
  #stepsDone(epochs: number): number {
    return epochs * Math.ceil(this.#run.split.train.length / this.#run.options.batchSize) + this.#step;
  }

  #makeScaler(state?: GradScalerState): GradScaler | null {
    const { model, options } = this.#run;
    return options.precision === 'f16' ? new GradScaler(model.device, {}, state) : null;
  }

  /** Starts a new run's folder. */
  start(): void {
    this.#scaler = this.#makeScaler();
    mkdirSync(this.#path(RUN_FILES.checkpoints), { recursive: true });
    writeFileAtomic(this.#path(RUN_FILES.config), `${JSON.stringify(this.#run.options, null, 2)}\n`);
    writeSplitFile(this.#path(RUN_FILES.split), this.#run.split, splitOrigin(this.#run.options));
    this.#log = RunLog.start(this.#run.out);
  }

  /** Takes up a stopped run. @throws UserError if its state cannot be read */
  async resume(): Promise<void> {
    const position = await loadRunState(this.#path(RUN_FILES.state), this.#run.model);
    this.#epoch = position.epoch;
    this.#step = position.step;
    this.#losses = new LossMeter(position.sums, position.step);
    this.#best = position.best;
    this.#scaler = this.#makeScaler(position.scaler ?? undefined);
    this.#loaderRandom = Random.restore(position.loader);
    this.#samplerRandom = Random.restore(position.sampler);
    this.#log = RunLog.resume(this.#run.out, this.#epoch, this.#stepsDone(this.#epoch));
  }

  /** @throws NonFiniteLossError when a loss is no number; checkpoints written before stay. */
  async train(): Promise<TrainOutcome> {
    const { options, model } = this.#run;
    if (this.#hooks.profiled) {
      const session = this.#stepsDone(options.epochs) - this.#stepsDone(this.#epoch) - this.#step;
      this.#profile = new TrainingProfile(model.device.gpu, session);
    }
    if (options.workers > 0) this.#threads = startSampleThreads(options.workers);
    try {
      while (this.#epoch < options.epochs) {
        const trained = await this.#trainEpoch(this.#epoch + 1);
        if (!trained) return { stopped: true };
        await this.#finishEpoch(trained);
      }
      if (!this.#best) throw new Error('A finished run has a best epoch.');
      return { stopped: false, best: this.#best, final: await this.#finish(this.#best.epoch) };
    } finally {
      this.#profile?.end();
      this.#scaler?.dispose();
      await this.#threads?.close();
    }
  }

  /** Steps through one epoch, from the step where a stopped run stood. Null if the user stopped it. */
  async #trainEpoch(epoch: number): Promise<TrainedEpoch | null> {
    const { options, model, dataset, split } = this.#run;
    const epochStart = this.#loaderRandom.save();
    const loader = new Loader({
      dataset,
      records: split.train,
      batchSize: options.batchSize,
      shuffle: true,
      random: this.#loaderRandom,
      augmentation: pickAugmentation(options),
      resize: options.resize,
      workers: this.#threads ?? 0,
    });
    const steps = loader.length;
    const first = this.#step;
    const startBar = () => startProgress(`Epoch ${epoch}/${options.epochs}`, steps, this.#step);
    let bar = startBar();
    // A step's losses are read while the next is being computed, so that no step waits for them.
    let unread: { losses: StepLosses; ids: string[]; lr: number } | null = null;
    const readPending = async (): Promise<void> => {
      if (!unread) return;
      const { losses, ids, lr } = unread;
      unread = null;
      const values = await readLosses(losses, ids);
      this.#losses.add(values);
      this.#log.step(this.#stepsDone(epoch - 1), values, lr);
      bar.update(this.#step, describeLosses(values));
    };
    let lr = options.lr;
    let batches = 0;
    const started = performance.now();
    try {
      for await (const batch of loader) {
        if (batches++ < first) continue;
        lr = learningRate((epoch - 1) * steps + this.#step, steps, options);
        await this.#profile?.stepBegins();
        const losses = await trainStep(model, batch, this.#nextOrder(), {
          ...options,
          lr,
          scaler: this.#scaler ?? undefined,
        });
        await readPending();
        this.#step++;
        unread = { losses, ids: batch.map(({ image }) => image.id), lr };
        const stops = this.#hooks.stopping() && this.#step < steps;
        const profile = await this.#profile?.stepEnds(stops || this.#step === steps);
        if (profile) {
          bar.stop();
          await this.#hooks.profiled?.(profile);
          bar = startBar();
        }
        if (stops) {
          await readPending();
          await this.#saveState(epochStart);
          return null;
        }
      }
      await readPending();
    } finally {
      bar.stop();
      await loader.close();
    }
    if (epoch === 1 && loader.droppedCells > 0) {
      this.#hooks.say(`Cells that vanish at --resize ${options.resize} and are left out: ${loader.droppedCells}`);
    }
    const secondsPerStep = (performance.now() - started) / 1000 / Math.max(steps - first, 1);
    return { epoch, steps, lr, secondsPerStep, train: this.#losses.means() };
  }

  /** Validation, checkpoint, metrics, best epoch and the state to resume from. */
  async #finishEpoch(trained: TrainedEpoch): Promise<void> {
    const { options, model, split } = this.#run;
    const { epoch } = trained;
    const scaling = await this.#lossScaling();
    const { losses, scores } = await this.#validate(`Epoch ${epoch}/${options.epochs} validation`);
    const name = `epoch-${String(epoch).padStart(3, '0')}.safetensors`;
    const checkpoint = join(this.#path(RUN_FILES.checkpoints), name);
    await saveCheckpoint(checkpoint, model, checkpointInfo(this.#run, epoch));
    const { iouMap, boxMap30, maskAP50, boxAP50 } = scores;
    const metrics: EpochMetrics = {
      ...trained,
      validation: losses,
      iouMap,
      boxMap30,
      maskAP50,
      boxAP50,
      ...(scaling && { lossScale: scaling.scale, skippedSteps: scaling.skippedSteps }),
    };
    this.#log.epoch(this.#stepsDone(epoch - 1), metrics);
    this.#hooks.say(describeEpoch(metrics, options.epochs));
    const score = epochScore(epoch, scores, losses.total);
    if (split.validation.length > 0 && isBetter(score, this.#best)) {
      this.#best = score;
      const temporary = this.#path(`.${RUN_FILES.best}.tmp`);
      copyFileSync(checkpoint, temporary);
      renameSync(temporary, this.#path(RUN_FILES.best));
    }
    this.#epoch = epoch;
    this.#step = 0;
    this.#losses = new LossMeter();
    await this.#saveState(this.#loaderRandom.save());
  }

  /** Where the loss scale stands; null in float32. @throws NonFiniteGradientError where no scale will help */
  async #lossScaling(): Promise<GradScalerState | null> {
    const state = (await this.#scaler?.state()) ?? null;
    if (state && state.scale < LEAST_LOSS_SCALE) throw new NonFiniteGradientError(state.scale);
    return state;
  }

  async #validate(label: string): Promise<Validation> {
    const { model, dataset, split, options, thresholds } = this.#run;
    const progress = startProgress(label, split.validation.length);
    try {
      const records = split.validation;
      return await validate({ model, dataset, records, options, thresholds, progress, threads: this.#threads });
    } finally {
      progress.stop();
    }
  }

  async #saveState(loader: RandomState): Promise<void> {
    return saveRunState(this.#path(RUN_FILES.state), this.#run.model, {
      epoch: this.#epoch,
      step: this.#step,
      loader,
      sampler: this.#samplerRandom.save(),
      sums: this.#losses.sums,
      best: this.#best,
      scaler: (await this.#scaler?.state()) ?? null,
    });
  }

  /**
   * The best epoch's weights go back into the model, and into its checkpoint the thresholds that score best on validation, or
   * those before any tuning where the options say so.
   */
  async #finish(epoch: number): Promise<Validation> {
    const { model, options } = this.#run;
    const path = this.#path(RUN_FILES.best);
    const { file } = openCheckpoint(path);
    try {
      await model.state.load(stateSource(file, model.state));
    } finally {
      file.close();
    }
    const validation = await this.#validate(`${options.tune ? 'Thresholds for' : 'Scores of'} epoch ${epoch}`);
    if (!options.tune) return validation;
    const thresholds = tunedThresholds(validation.evaluator, model.config.numClasses, this.#run.thresholds);
    this.#run.thresholds = thresholds;
    rewriteCheckpoint(path, path, checkpointInfo(this.#run, epoch));
    return { ...validation, scores: validation.evaluator.compute(thresholds) };
  }
}

/** Gradients that overflow below it come from no rounding: weights or activations have run away. */
const LEAST_LOSS_SCALE = 2 ** -10;

/** A loss's name without torchvision's prefix. */
const short = (name: string): string => name.replace('loss_', '');

function describeLosses(losses: Record<string, number>): string {
  const total = Object.values(losses).reduce((sum, value) => sum + value, 0);
  const parts = Object.entries(losses).map(([name, value]) => `${short(name)} ${value.toFixed(3)}`);
  return `loss ${total.toFixed(3)} = ${parts.join(' + ')}`;
}

function describeEpoch(metrics: EpochMetrics, epochs: number): string {
  const score = (value: number | null): string => (value === null ? '–' : value.toFixed(3));
  const all = (losses: Record<string, number>): string =>
    Object.entries(losses)
      .filter(([name]) => name !== 'total')
      .map(([name, value]) => `${short(name)} ${value.toFixed(3)}`)
      .join(', ');
  return [
    `Epoch ${metrics.epoch}/${epochs}: ${metrics.steps} steps of ${metrics.secondsPerStep.toFixed(2)} s, lr ${metrics.lr.toPrecision(3)}`,
    `  train loss ${metrics.train.total.toFixed(3)} (${all(metrics.train)})`,
    `  validation loss ${metrics.validation.total.toFixed(3)} (${all(metrics.validation)})`,
    `  competition score ${score(metrics.iouMap)}, box mAP30 ${score(metrics.boxMap30)}, mask AP50 ${score(metrics.maskAP50)}`,
    ...(metrics.lossScale === undefined
      ? []
      : [
          `  loss scale ${metrics.lossScale}, ${metrics.skippedSteps} steps left out so far because a gradient overflowed`,
        ]),
  ].join('\n');
}
