import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { defineOperator, expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { reduceSum } from './reduce.ts';

/*
 * Each loss is one number: the terms are computed by one kernel and summed in a fixed order. The mean over no terms is 0 with
 * a graph (torch gives NaN): a batch without positives is an ordinary batch in detection.
 *
 * Lists made on the device are padded, so means may ignore entries: each term is written with whether it counts (1 or 0), both are
 * summed, and the quotient and 1 / count stay on the device, where the gradient needs the latter.
 */
const meanScale = (terms: number): number => (terms > 0 ? 1 / terms : 1);

const countedMeanProgram = defineProgram({
  name: 'countedMean',
  uniforms: { count: 'u32' },
  bindings: { sums: 'read', mean: 'write', scale: 'write' },
  code: () =>
    perElement(`
    scale[0] = 1.0 / max(sums[1], 1.0);
    mean[0] = sums[0] / max(sums[1], 1.0);`),
});

/** The mean of terms [2, n]: values (0 where they do not count), and 1 where they do. `scale` is what each has in the mean. */
function countedMean(terms: Tensor): { mean: Tensor; scale: Tensor } {
  const { device } = terms;
  const sums = reduceSum(terms, [false, true], [2]);
  const mean = device.empty([]);
  const scale = device.empty([]);
  device.gpu.dispatch(countedMeanProgram, { buffers: { sums, mean, scale }, uniforms: { count: 1 }, workgroups: 1 });
  sums.dispose();
  return { mean, scale };
}

/** The label of rows that cross entropy ignores: torch's `ignore_index`. */
export const IGNORED_LABEL = -100;

/*
 * Cross entropy: l_n = log Σ_c e^(x_nc) - x_n,label, with the largest logit taken out of the sum. The sum's logarithm is kept
 * per row, so the gradient (softmax - one-hot) / N is one pass. A label outside the classes makes the loss NaN, which
 * training stops at; its bits come as a uniform since WGSL has no literal for it.
 */
const crossEntropyProgram = defineProgram({
  name: 'crossEntropy',
  uniforms: { count: 'u32', classes: 'u32', nanBits: 'u32' },
  bindings: { logits: 'read', labels: ['read', 'i32'], logSums: 'write', terms: 'write' },
  code: () =>
    perElement(`
    let row = i * u.classes;
    var largest = logits[row];
    for (var c = 1u; c < u.classes; c++) { largest = max(largest, logits[row + c]); }
    var total = 0.0;
    for (var c = 0u; c < u.classes; c++) { total += exp(logits[row + c] - largest); }
    let logSum = largest + log(total);
    logSums[i] = logSum;
    let label = labels[i];
    var term = bitcast<f32>(u.nanBits);
    if (label >= 0 && u32(label) < u.classes) { term = logSum - logits[row + u32(label)]; }
    if (label == ${IGNORED_LABEL}) { term = 0.0; }
    terms[i] = term;
    terms[u.count + i] = select(1.0, 0.0, label == ${IGNORED_LABEL});`),
});

const crossEntropyBackwardProgram = defineProgram({
  name: 'crossEntropyBackward',
  uniforms: { count: 'u32', classes: 'u32', accumulate: 'u32' },
  bindings: { logits: 'read', labels: ['read', 'i32'], logSums: 'read', dy: 'read', scale: 'read', dx: 'write' },
  code: () =>
    perElement(`
    let row = i / u.classes;
    let probability = exp(logits[i] - logSums[row]);
    let hit = select(0.0, 1.0, labels[row] == i32(i % u.classes));
    let slope = select(dy[0] * scale[0] * (probability - hit), 0.0, labels[row] == ${IGNORED_LABEL});
    dx[i] = select(0.0, dx[i], u.accumulate == 1u) + slope;`),
});

const crossEntropyOperator = defineOperator<{ logits: Tensor; labels: Tensor }, Record<string, never>>({
  name: 'cross_entropy',
  forward({ logits, labels }) {
    expectShape(logits.rank === 2 && logits.shape[1] > 0, 'cross_entropy', 'logits', '[N, C] with C > 0', logits);
    const [rows, classes] = logits.shape;
    const fits = labels.dtype === 'i32' && labels.rank === 1 && labels.size === rows;
    expectShape(fits, 'cross_entropy', 'labels', `i32[${rows}]`, labels);
    const { device } = logits;
    const logSums = device.empty([rows]);
    const terms = device.empty([2, rows]);
    device.gpu.dispatch(crossEntropyProgram, {
      buffers: { logits, labels, logSums, terms },
      uniforms: { count: rows, classes, nanBits: 0x7fc00000 },
      workgroups: workgroupsFor(rows),
    });
    const { mean, scale } = countedMean(terms);
    terms.dispose();
    return { output: mean, saved: { logits, labels, logSums, scale } };
  },
  backward: ({ saved: { logits, labels, logSums, scale }, upstream }) => ({
    logits: (into) => {
      const dx = into ?? logits.device.empty(logits.shape);
      logits.device.gpu.dispatch(crossEntropyBackwardProgram, {
        buffers: { logits, labels, logSums, dy: upstream, scale, dx },
        uniforms: { count: dx.size, classes: logits.shape[1], accumulate: into ? 1 : 0 },
        workgroups: workgroupsFor(dx.size),
      });
      return dx;
    },
  }),
  examples: [
    {
      inputs: { logits: { shape: [9, 4], range: [-3, 3] }, labels: { shape: [9], dtype: 'i32', range: [0, 4] } },
      params: {},
    },
    {
      inputs: {
        logits: { shape: [5, 3], range: [-3, 3] },
        labels: { shape: [5], dtype: 'i32', values: [2, IGNORED_LABEL, 0, 1, IGNORED_LABEL] },
      },
      params: {},
    },
  ],
});

/**
 * Mean over rows of -log softmax(logits)[label]: logits [N, C], labels i32[N] in 0 … C - 1. Rows of the label -100
 * (`IGNORED_LABEL`) add nothing and are not counted; any other label outside gives NaN (the device cannot throw). No rows: 0
 * (torch: NaN). Source: torch.nn.functional.cross_entropy.
 */
export function crossEntropy(logits: Tensor, labels: Tensor): Tensor {
  return crossEntropyOperator({ logits, labels }, {});
}

/*
 * Elementwise losses. Binary cross entropy of logit x and target t: max(x, 0) - x t + log(1 + e^-|x|), gradient σ(x) - t; with a
 * target below 0 the term does not count.
 * Smooth L1 of d = input - target: d² / (2 beta) where |d| < beta, else |d| - beta / 2; gradient d / beta there, else sign(d).
 */
const TERMS = {
  bce: `max(a, 0.0) - a * b + log(1.0 + exp(-abs(a)))`,
  smoothL1: `select(abs(a - b) - 0.5 * u.beta, 0.5 * (a - b) * (a - b) / u.beta, abs(a - b) < u.beta)`,
};
const SLOPES = {
  bce: `select(1.0, exp(-abs(a)), a < 0.0) / (1.0 + exp(-abs(a))) - b`,
  smoothL1: `select(sign(a - b), (a - b) / u.beta, abs(a - b) < u.beta)`,
};
type LossFlags = { loss: keyof typeof TERMS };

const termsProgram = defineProgram({
  name: 'elementwiseLoss',
  uniforms: { count: 'u32', beta: 'f32' },
  bindings: { input: 'read', goal: 'read', terms: 'write' },
  code: ({ loss }: LossFlags) =>
    perElement(`
    let a = input[i];
    let b = goal[i];
    let term = ${TERMS[loss]};
    ${
      loss === 'bce'
        ? `terms[i] = select(term, 0.0, b < 0.0);
    terms[u.count + i] = select(1.0, 0.0, b < 0.0);`
        : 'terms[i] = term;'
    }`),
});

const slopesProgram = defineProgram({
  name: 'elementwiseLossBackward',
  uniforms: { count: 'u32', beta: 'f32', scale: 'f32', accumulate: 'u32' },
  bindings: { input: 'read', goal: 'read', dy: 'read', scale: 'read', dx: 'write' },
  code: ({ loss }: LossFlags) =>
    perElement(`
    let a = input[i];
    let b = goal[i];
    let slope = dy[0] * ${loss === 'bce' ? 'scale[0]' : 'u.scale'} * (${SLOPES[loss]});
    dx[i] = select(0.0, dx[i], u.accumulate == 1u) + ${loss === 'bce' ? 'select(slope, 0.0, b < 0.0)' : 'slope'};`),
});

/** The terms [n], or with whether they count [2, n]. */
function termsOf(flags: LossFlags, input: Tensor, goal: Tensor, beta: number): Tensor {
  const { device } = input;
  const terms = device.empty(flags.loss === 'bce' ? [2, input.size] : [input.size]);
  device.gpu.dispatch(termsProgram, {
    flags,
    buffers: { input, goal, terms },
    uniforms: { count: input.size, beta },
    workgroups: workgroupsFor(input.size),
  });
  return terms;
}

/** `scale`: what each term has in the loss; for `bce` a tensor. */
function slopeOf(
  flags: LossFlags,
  { input, goal, dy }: { input: Tensor; goal: Tensor; dy: Tensor },
  { beta, scale }: { beta: number; scale: number | Tensor },
  into?: Tensor,
): Tensor {
  const dx = into ?? input.device.empty(input.shape);
  const onHost = typeof scale === 'number';
  input.device.gpu.dispatch(slopesProgram, {
    flags,
    // The scale that the loss does not take from a buffer must still be bound.
    buffers: { input, goal, dy, scale: onHost ? dy : scale, dx },
    uniforms: { count: input.size, beta, scale: onHost ? scale : 1, accumulate: into ? 1 : 0 },
    workgroups: workgroupsFor(input.size),
  });
  return dx;
}

function expectSameShape(operator: string, argument: string, a: Tensor, b: Tensor): void {
  const same = a.rank === b.rank && a.shape.every((extent, dim) => extent === b.shape[dim]);
  expectShape(same, operator, argument, `[${a.shape}]`, b);
}

const bceOperator = defineOperator<{ logits: Tensor; targets: Tensor }, Record<string, never>>({
  name: 'binary_cross_entropy_with_logits',
  forward({ logits, targets }) {
    expectSameShape('binary_cross_entropy_with_logits', 'targets', logits, targets);
    const terms = termsOf({ loss: 'bce' }, logits, targets, 1);
    const { mean, scale } = countedMean(terms);
    terms.dispose();
    return { output: mean, saved: { logits, targets, scale } };
  },
  backward: ({ saved: { logits, targets, scale }, upstream }) => ({
    logits: (into) =>
      slopeOf({ loss: 'bce' }, { input: logits, goal: targets, dy: upstream }, { beta: 1, scale }, into),
  }),
  examples: [
    {
      inputs: {
        logits: { shape: [5, 7], range: [-6, 6] },
        targets: { shape: [5, 7], range: [0, 1], differentiable: false },
      },
      params: {},
    },
    {
      inputs: {
        logits: { shape: [6], range: [-6, 6] },
        targets: { shape: [6], values: [1, -1, 0.25, 0, -1, 1], differentiable: false },
      },
      params: {},
    },
  ],
});

/**
 * Mean of the binary cross entropy of σ(logits) and targets (in 0 … 1, of the same shape, constant), in a form that does not
 * overflow. Elements with a target below 0 add nothing and are not counted. No elements: 0 (torch: NaN).
 * Source: torch.nn.functional.binary_cross_entropy_with_logits.
 */
export function binaryCrossEntropyWithLogits(logits: Tensor, targets: Tensor): Tensor {
  return bceOperator({ logits, targets }, {});
}

export type SmoothL1Options = {
  /** Where the parabola meets the line, > 0. */
  beta?: number;
  reduction?: 'sum' | 'mean';
};

function smoothL1Scale(params: SmoothL1Options, size: number): number {
  return params.reduction === 'sum' ? 1 : meanScale(size);
}

const smoothL1Operator = defineOperator<{ input: Tensor; target: Tensor }, SmoothL1Options & { beta: number }>({
  name: 'smooth_l1_loss',
  forward({ input, target }, params) {
    expectSameShape('smooth_l1_loss', 'target', input, target);
    if (!(params.beta > 0)) throw new Error(`smooth_l1_loss: beta: expected a number above 0, got ${params.beta}.`);
    const terms = termsOf({ loss: 'smoothL1' }, input, target, params.beta);
    const output = reduceSum(terms, [true], [], { scale: smoothL1Scale(params, input.size) });
    terms.dispose();
    return { output, saved: { input, target } };
  },
  backward: ({ params, saved: { input, target }, upstream }) => {
    const slope = (sign: number, into?: Tensor): Tensor => {
      const settings = { beta: params.beta, scale: sign * smoothL1Scale(params, input.size) };
      return slopeOf({ loss: 'smoothL1' }, { input, goal: target, dy: upstream }, settings, into);
    };
    return { input: (into) => slope(1, into), target: (into) => slope(-1, into) };
  },
  examples: [
    { inputs: { input: { shape: [6, 4] }, target: { shape: [6, 4] } }, params: { beta: 1 / 9, reduction: 'sum' } },
    { inputs: { input: { shape: [6, 4] }, target: { shape: [6, 4] } }, params: { beta: 1, reduction: 'mean' } },
  ],
});

/**
 * Sum or mean (default) over all elements of the smooth L1 distance of two tensors of one shape. No elements: 0.
 * Source: torch.nn.functional.smooth_l1_loss; torchvision's box losses use beta 1/9 and the sum.
 */
export function smoothL1Loss(
  input: Tensor,
  target: Tensor,
  { beta = 1, reduction = 'mean' }: SmoothL1Options = {},
): Tensor {
  return smoothL1Operator({ input, target }, { beta, reduction });
}
