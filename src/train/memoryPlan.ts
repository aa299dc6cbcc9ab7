import { freemem, totalmem } from 'node:os';
import { resizedSide } from '../data/dataset.ts';
import { Random } from '../data/random.ts';
import type { LoadedImage, Sample } from '../data/types.ts';
import { countingDevice } from '../gpu/countingDevice.ts';
import { GradScaler } from '../kernels/gradScaler.ts';
import { kernelChoice, setKernelChoice } from '../kernels/kernelChoice.ts';
import type { MaskRCNNConfig } from '../model/config.ts';
import { MaskRCNN } from '../model/maskRcnn.ts';
import type { StateSource } from '../model/stateDict.ts';
import { networkSize } from '../model/transform.ts';
import { Device } from '../tensor/device.ts';
import type { Run } from './run.ts';
import { trainStep, validationLosses } from './step.ts';

/** What a model and its work take on the device, counted before anything is allocated there. */
export interface MemoryPlan {
  /** The most bytes that the device's pools hold at a time, free buffers among them. */
  bytes: number;
  /** The most that each purpose takes (`activations`, `parameters` …); these peaks need not fall together. */
  byTag: Record<string, number>;
}

/** What the adapter computes in, as far as that can be known. */
export interface AdapterMemory {
  /** Bytes free now; null where the adapter does not tell. */
  free: number | null;
  total: number | null;
}

/** What is known of a device's memory: software adapters compute in the system's, WebGPU tells nothing of a GPU's. */
export function adapterMemory(device: Device): AdapterMemory {
  const software = device.gpu.opened.info.kind !== 'gpu';
  return software ? { free: freemem(), total: totalmem() } : { free: null, total: null };
}

/** Bytes in GiB, as text. */
export function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(2)} GiB`;
}

/**
 * One sentence on a plan, and whether the adapter has too little.
 * @param what such as "A training step"
 */
export function describePlan(
  what: string,
  { bytes }: MemoryPlan,
  memory: AdapterMemory,
): { line: string; exceeds: boolean } {
  const needs = `${what} needs ${gibibytes(bytes)} of device memory`;
  if (memory.free === null) return { line: `${needs}; how much the adapter has, it does not tell.`, exceeds: false };
  const exceeds = bytes > memory.free;
  const has = `the adapter computes in this machine's memory, of which ${gibibytes(memory.free)} are free`;
  return { line: exceeds ? `Warning: ${needs}, but ${has}.` : `${needs}; ${has}.`, exceeds };
}

/** What the work of a plan looks like. */
export interface PlannedWork {
  /** [height, width] of each image of a batch as it enters the model. */
  sizes: readonly (readonly [number, number])[];
  /** Truths of each image; training only. */
  truths: number;
}

/** What a run does beside training. */
export interface PlannedValidation {
  /** Images of a batch whose losses are computed, as they enter the model. */
  losses: PlannedWork['sizes'];
  /** Images that are predicted at once. */
  predicted: PlannedWork['sizes'];
}

/** Zeros for every entry, made when they are asked for. */
function zeros(model: MaskRCNN): StateSource {
  const { entries } = model.state;
  const source = (name: string) => {
    const shape = entries.get(name)?.shape ?? [];
    return { shape, data: new Float32Array(shape.reduce((product, extent) => product * extent, 1)) };
  };
  return Object.assign(source, { has: (name: string) => entries.has(name) });
}

function blankSample([height, width]: readonly [number, number], truths: number): Sample {
  const image: LoadedImage = { id: 'planned', width, height, data: new Float32Array(width * height * 3) };
  const boxes = Float32Array.from({ length: truths * 4 }, (_, i) => (i % 4 < 2 ? 0 : Math.min(width, height) - 1));
  const labels = new Int32Array(truths).fill(1);
  const masks = new Uint8Array(truths * width * height);
  const target = { boxes, labels, masks, area: new Float32Array(truths), iscrowd: new Uint8Array(truths), imageId: 0 };
  return { image, target };
}

/** Runs `work` on a model like `like`, on a device that counts and holds nothing. */
async function counted(device: Device, like: MaskRCNN, work: (model: MaskRCNN) => Promise<void>): Promise<MemoryPlan> {
  const counting = new Device(countingDevice(device.gpu.opened));
  counting.gpu.bindingLimit = device.gpu.bindingLimit;
  setKernelChoice(counting, kernelChoice(device));
  const model = new MaskRCNN(like.config);
  model.checkpointActivations = like.checkpointActivations;
  model.precision = like.precision;
  for (const [name, { trainable }] of like.state.entries) {
    const entry = model.state.entries.get(name);
    if (!trainable && entry?.trainable) entry.freeze();
  }
  await model.allocate(counting, new Random(0), zeros(model));
  await work(model);
  const { peakHeld, peakByTag, staging } = counting.gpu.counters();
  return { bytes: peakHeld + staging, byTag: peakByTag };
}

/**
 * The memory of training: the parameters with their gradients and momenta, and a step of one batch. Nothing is allocated on the
 * device and nothing computed: two steps run on a device that only counts (the second may find buffers that the first left).
 * @param device where `like` will train; its adapter, limits and kernels decide what is allocated
 * @param validation counted too, where the run validates
 */
export function planTraining(
  device: Device,
  like: MaskRCNN,
  { sizes, truths }: PlannedWork,
  validation?: PlannedValidation,
): Promise<MemoryPlan> {
  const batch = sizes.map((size) => blankSample(size, truths));
  const options = { lr: 0, momentum: 0.9, weightDecay: 0, clipNorm: 1 };
  return counted(device, like, async (model) => {
    const scaler = model.precision === 'f16' ? new GradScaler(model.device) : undefined;
    for (let step = 0; step < 2; step++) {
      const { values } = await trainStep(model, batch, { kind: 'identity' }, { ...options, scaler });
      values.dispose();
    }
    if (!validation) return;
    const seen = validation.losses.map((size) => blankSample(size, truths));
    const { values } = await validationLosses(model, seen, { kind: 'identity' });
    values.dispose();
    await model.predict(validation.predicted.map((size) => blankSample(size, 0).image));
  });
}

/** The memory of predicting a batch of images with as many detections as the model gives at most. */
export function planPrediction(
  device: Device,
  like: MaskRCNN,
  { sizes }: Pick<PlannedWork, 'sizes'>,
): Promise<MemoryPlan> {
  const images = sizes.map((size) => blankSample(size, 0).image);
  return counted(device, like, async (model) => {
    await model.predict(images);
  });
}

/** The image size [height, width] that becomes largest in a network. @param loaded the size of a file's image once it is loaded */
function largestSize<T>(
  images: readonly T[],
  loaded: (image: T) => readonly [number, number],
  config: MaskRCNNConfig,
): readonly [number, number] {
  const padded = (extent: number): number => Math.ceil(extent / config.sizeDivisible) * config.sizeDivisible;
  let largest: readonly [number, number] = [1, 1];
  let area = 0;
  for (const image of images) {
    const size = loaded(image);
    const [height, width] = networkSize(size[0], size[1], config);
    const own = padded(height) * padded(width);
    if (own <= area) continue;
    area = own;
    largest = size;
  }
  return largest;
}

/** The most that a step of a run may have to do: all images of a batch are the one that becomes largest in the network. */
export function workOf({ dataset, options, model }: Run): PlannedWork {
  const jitter = options.scaleJitter?.[1] ?? 1;
  const most = (side: number, cut: 0 | 1): number =>
    Math.min(Math.floor(resizedSide(side, options.resize) * jitter), options.crop?.[cut] ?? Number.POSITIVE_INFINITY);
  const largest = largestSize(dataset.images, ({ width, height }) => [most(height, 1), most(width, 0)], model.config);
  const truths = Math.max(...dataset.images.map(({ annotations }) => annotations.length), 0);
  return { sizes: Array.from({ length: options.batchSize }, () => largest), truths };
}

/** The most that the validation of a run may have to do, with images as they are loaded. */
export function validationOf({ split, options, model }: Run): PlannedValidation {
  const { resize, batchSize, validationBatchSize } = options;
  const most = (size: number) => predictionWork(split.validation, { resize, batchSize: size }, model.config).sizes;
  return { losses: most(batchSize), predicted: most(validationBatchSize ?? batchSize) };
}

/** The most that predicting a batch of such image files may have to do. */
export function predictionWork(
  files: readonly { width: number; height: number }[],
  { resize, batchSize }: { resize: number; batchSize: number },
  config: MaskRCNNConfig,
): Pick<PlannedWork, 'sizes'> {
  const loaded = ({ width, height }: { width: number; height: number }) =>
    [resizedSide(height, resize), resizedSide(width, resize)] as const;
  const largest = largestSize(files, loaded, config);
  return { sizes: Array.from({ length: Math.min(batchSize, files.length) }, () => largest) };
}
