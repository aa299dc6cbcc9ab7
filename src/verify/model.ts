import { UserError } from '../cli/errors.ts';
import { Random } from '../data/random.ts';
import { makeTarget } from '../data/target.ts';
import type { LoadedImage, Target } from '../data/types.ts';
import { add } from '../kernels/arithmetic.ts';
import { kernelChoice } from '../kernels/kernelChoice.ts';
import { sgdStep } from '../kernels/sgd.ts';
import { formulaWeight, goldenSampleOrder } from '../model/formulaWeights.ts';
import { MaskRCNN } from '../model/maskRcnn.ts';
import type { StateValues } from '../model/stateDict.ts';
import type { Device } from '../tensor/device.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { detectionNames, detectionRows, type MaskSource, matchDetections } from './detections.ts';
import type { ModelGolden } from './golden.ts';
import { type Progress, toDevice } from './ops.ts';
import { compareLengths, compareValues, type HostTensor, largestAbsolute, measuredRow, type Row } from './rows.ts';
import { type Form, StageComparison, StageRecorder, stageNames } from './stages.ts';

/** The optimizer of the goldens. */
const MOMENTUM = 0.9;
const LOSS_TOLERANCE = 1e-4;
const GRADIENT_TOLERANCE = 2e-3;
/** Of gradients by their relative length, where kernels round coarsely by design and flip decisions of ReLU; the median keeps the other. */
const COARSE_GRADIENT_TOLERANCE = 5e-2;
/** Of trained minus initial values. */
const UPDATE_TOLERANCE = 1e-2;
/** Entries of a gradient that `gradsample` holds, at most. */
const SAMPLES = 64;

/** Every tensor that the case must have. */
function tensorNames(golden: ModelGolden, model: MaskRCNN): string[] {
  const entries = [...model.state.entries.values()];
  const trainable = entries.filter((entry) => entry.trainable).map(({ name }) => name);
  const each = Array.from({ length: golden.images }, (_, image) => image);
  const inputs = ['image', 'boxes', 'labels', ...(golden.config.masks ? ['masks'] : [])];
  const forms: Form[] = ['train', 'eval'];
  return [
    ...each.flatMap((image) => inputs.map((leaf) => `input.${image}.${leaf}`)),
    ...forms.flatMap((form) => stageNames(golden, form).map((name) => `${form}.${name}`)),
    'losses',
    ...(golden.full
      ? [...trainable.map((name) => `grad.${name}`), ...entries.map(({ name }) => `trained.${name}`)]
      : trainable.flatMap((name) => [`gradnorm.${name}`, `gradmax.${name}`, `gradsample.${name}`])),
    ...each.flatMap((image) => detectionNames(golden, image)),
  ];
}

/** One input, of a shape in which -1 stands for any number. @throws UserError naming the tensor, when it has another. */
function readInput({ tensors }: ModelGolden, name: string, expected: readonly number[]): HostTensor {
  const tensor = tensors.get(name);
  const { shape } = tensor;
  if (shape.length !== expected.length || expected.some((extent, axis) => extent >= 0 && extent !== shape[axis]))
    throw new UserError(
      `${tensors.path}: tensor '${name}' has the shape [${shape}], expected [${expected.map((n) => (n < 0 ? 'any' : n))}].`,
    );
  return tensor;
}

/** The images and targets of a case. @throws UserError when one has another shape than the format says */
export function readInputs(golden: ModelGolden): { images: LoadedImage[]; targets: Target[] } {
  const images: LoadedImage[] = [];
  const targets: Target[] = [];
  for (let image = 0; image < golden.images; image++) {
    const name = `input.${image}`;
    const pixels = toDevice(readInput(golden, `${name}.image`, [3, -1, -1]), [1, 2, 0]);
    const [height, width] = pixels.shape;
    const boxes = readInput(golden, `${name}.boxes`, [-1, 4]);
    const [n] = boxes.shape;
    const labels = readInput(golden, `${name}.labels`, [n]);
    images.push({ id: `${image}`, height, width, data: Float32Array.from(pixels.data) });
    const masks = golden.config.masks
      ? Uint8Array.from(readInput(golden, `${name}.masks`, [n, height, width]).data)
      : new Uint8Array(0);
    targets.push(makeTarget(Float32Array.from(boxes.data), Int32Array.from(labels.data), masks, { imageId: image }));
  }
  return { images, targets };
}

type FormulaSource = (name: string) => StateValues;

/** The weights that the format's formula gives every entry of the state_dict. */
function formulaSource(golden: ModelGolden, model: MaskRCNN): FormulaSource {
  const options = { basicBlocks: golden.config.block === 'basic' };
  return (name) => {
    const entry = model.state.entries.get(name);
    if (!entry) return undefined;
    return { shape: entry.shape, data: formulaWeight(name, entry.shape, golden.seed, options) };
  };
}

/** One step's losses in the order of the golden's columns, their gradients computed. */
async function lossesOfStep(
  golden: ModelGolden,
  model: MaskRCNN,
  inputs: ReturnType<typeof readInputs>,
  recorder?: StageRecorder,
): Promise<number[]> {
  const { device } = model;
  return device.scope(async () => {
    const losses: Partial<Record<string, Tensor>> = await model.trainingLosses(inputs.images, inputs.targets, {
      order: goldenSampleOrder(golden.permutation, golden.seed),
      observe: recorder?.observe,
    });
    const named = golden.lossNames.map((name) => {
      const loss = losses[name];
      if (!loss)
        throw new UserError(
          `The golden case ${golden.name} names the loss '${name}', the model has ${Object.keys(losses).join(', ')}.`,
        );
      return loss;
    });
    model.state.parameters.zeroGrad();
    device.backward(named.reduce((total, loss) => add(total, loss)));
    return (await device.readAll(named)).map(([value]) => value);
  });
}

/** Summed in float64. */
function euclideanNorm(values: Float32Array): number {
  let squares = 0;
  for (const value of values) squares += value * value;
  return Math.sqrt(squares);
}

/**
 * Compares gradients of step 0: whole, or by norm, largest entry, and samples relative to the largest entry. Behind kernels that round coarsely,
 * by relative length, as the goldens' README has it.
 */
async function gradientRows(golden: ModelGolden, model: MaskRCNN): Promise<Row[]> {
  const { tensors } = golden;
  const rows: Row[] = [];
  const { coarse } = kernelChoice(model.device);
  const compare = (name: string, actual: ArrayLike<number>, scale?: number): void => {
    const expected = tensors.get(name).data;
    const comparison = { name, stage: 'gradients', tolerance: GRADIENT_TOLERANCE, scale };
    rows.push(
      coarse
        ? compareLengths(actual, expected, { ...comparison, tolerance: COARSE_GRADIENT_TOLERANCE })
        : compareValues(actual, expected, comparison),
    );
  };
  for (const { name, trainable } of model.state.entries.values()) {
    if (!trainable) continue;
    const gradient = await model.state.readGradient(name);
    if (golden.full) {
      compare(`grad.${name}`, gradient);
      continue;
    }
    const stride = Math.max(1, Math.floor(gradient.length / SAMPLES));
    const samples = gradient.filter((_, i) => i % stride === 0).subarray(0, SAMPLES);
    compare(`gradnorm.${name}`, [euclideanNorm(gradient)]);
    compare(`gradmax.${name}`, [largestAbsolute(gradient)]);
    compare(`gradsample.${name}`, samples, largestAbsolute(tensors.get(`gradmax.${name}`).data));
  }
  if (coarse) {
    const errors = rows.map(({ error }) => error).sort((a, b) => a - b);
    const comparison = { name: 'the median gradient', stage: 'gradients', tolerance: GRADIENT_TOLERANCE };
    rows.push(measuredRow(comparison, errors[Math.floor(errors.length / 2)], 'in Euclidean length'));
  }
  return rows;
}

/** Compares what all steps changed: trained minus initial values, running statistics included. */
async function trainedRows(golden: ModelGolden, model: MaskRCNN, initial: FormulaSource): Promise<Row[]> {
  const rows: Row[] = [];
  for (const { name } of model.state.entries.values()) {
    const expected = golden.tensors.get(`trained.${name}`).data;
    const start = initial(name)?.data ?? new Float32Array(0);
    const comparison = { name: `trained.${name}`, stage: 'trained parameters', tolerance: UPDATE_TOLERANCE };
    const update = largestAbsolute(expected.map((value, i) => value - start[i]));
    rows.push(compareValues(await model.state.read(name), expected, { ...comparison, scale: update }));
  }
  return rows;
}

/** Stages, losses, gradients and trained parameters. */
async function trainingRows(
  golden: ModelGolden,
  model: MaskRCNN,
  inputs: ReturnType<typeof readInputs>,
  initial: FormulaSource,
  tell: (what: string) => void,
): Promise<Row[]> {
  const rows: Row[] = [];
  const losses: number[][] = [];
  for (let step = 0; step < golden.steps; step++) {
    const recorder = step === 0 ? new StageRecorder(stageNames(golden, 'train')) : undefined;
    losses.push(await lossesOfStep(golden, model, inputs, recorder));
    if (recorder) {
      rows.push(...new StageComparison(golden, 'train', recorder.values).rows());
      rows.push(...(await gradientRows(golden, model)));
    }
    model.device.scope(() => {
      sgdStep(model.state.parameters, { lr: golden.lr, momentum: MOMENTUM, weightDecay: golden.weightDecay });
    });
    tell(`training step ${step + 1}`);
  }
  const expected = golden.tensors.get('losses').data;
  const scale = largestAbsolute(expected);
  const columns = golden.lossNames.length;
  for (const [column, name] of golden.lossNames.entries()) {
    const comparison = { name: `losses (${name})`, stage: 'losses', tolerance: LOSS_TOLERANCE, scale };
    const actual = losses.map((step) => step[column]);
    const wanted = losses.map((_, step) => expected[step * columns + column]);
    rows.push(compareValues(actual, wanted, comparison));
  }
  if (golden.full) rows.push(...(await trainedRows(golden, model, initial)));
  return rows;
}

/** Stages and detections of a case with the weights that the model has, which should be the initial ones. */
export async function evaluationRows(golden: ModelGolden, model: MaskRCNN, images: LoadedImage[]): Promise<Row[]> {
  const recorder = new StageRecorder(stageNames(golden, 'eval'));
  const found = await model.predict(images, { observe: recorder.observe });
  const orders = matchDetections(golden, found);
  const rows = new StageComparison(golden, 'eval', recorder.values).rows(orders);
  const logits = recorder.values.get('mask.logits');
  let next = 0;
  const first = found.map(({ labels }) => {
    next += labels.length;
    return next - labels.length;
  });
  const source: MaskSource | undefined = logits && { logits, first };
  for (const [image, ours] of found.entries())
    rows.push(...(await detectionRows(model.device, golden, image, ours, orders[image], source)));
  return rows;
}

/**
 * Runs a model case: `steps` training steps with the golden's permutation, then detections with the initial weights.
 * @throws UserError before anything runs, when a tensor is missing or an option is wrong.
 */
export async function verifyModel(device: Device, golden: ModelGolden, progress?: Progress): Promise<Row[]> {
  const model = new MaskRCNN(golden.config);
  golden.tensors.require(tensorNames(golden, model));
  const { shape } = golden.tensors.get('losses');
  if (shape[0] !== golden.steps || shape[1] !== golden.lossNames.length)
    throw new UserError(
      `${golden.tensors.path}: tensor 'losses' has the shape [${shape}], expected [${golden.steps}, ${golden.lossNames.length}].`,
    );
  const inputs = readInputs(golden);
  const initial = formulaSource(golden, model);
  const total = golden.steps + 1;
  let done = 0;
  const tell = (what: string): void => progress?.(++done, total, what);
  try {
    await model.allocate(device, new Random(golden.seed), initial);
    const rows = await trainingRows(golden, model, inputs, initial, tell);
    await model.state.load(initial);
    rows.push(...(await evaluationRows(golden, model, inputs.images)));
    tell('detections');
    return rows;
  } finally {
    model.dispose();
  }
}
