import { workgroupsFor } from '../gpu/program.ts';
import { type BackwardContext, defineOperator, expectShape } from '../tensor/operator.ts';
import { inParts } from '../tensor/parts.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { gradientChannels, gradientShares, inputGradient, MASK, normalize, rowBlocks } from './batchNormPrograms.ts';
import {
  channelsOfBatch,
  channelsOfRunning,
  type Inputs,
  limitOf,
  MOST_GRADIENT_SHARES,
  type Params,
  rowsAndChannels,
  sharesOf,
} from './batchNormStatistics.ts';
import { channelGroups } from './channels.ts';

/*
 * Per channel, over the R = N·H·W values of a batch: x̂ = (x - mean) / √(var + eps), y = relu?(x̂ · weight + bias + residual).
 *
 * Training: mean and (biased) var are the batch's. Shares of rows are reduced to mean and squared deviations, which are merged in
 * a fixed order; running ← (1 - momentum) running + momentum · statistic, with the unbiased variance var · R / (R - 1).
 * Otherwise the running statistics stand for the batch's and are constants.
 *
 * With g = dy · [y > 0] (dy without ReLU): dbias = Σ g, dweight = Σ g·x̂, dresidual = g, and
 *   dx = weight / √(var + eps) · (g - Σ g / R - x̂ · Σ g·x̂ / R)        (training)
 *   dx = weight / √(var + eps) · g                                     (constant statistics)
 * in two passes: the first reads x and dy for the sums (and writes g, where the residual wants it), the second writes dx. The sums are added
 * straight to the gradients of weight and bias.
 * Without a residual the sign of y is told from x, so y is read only with one.
 *
 * Of a list that is padded, `count` images are the batch: R is theirs, y is 0 in the others, and they have no gradient.
 */
function checkShapes(operator: string, { x, residual, count, ...vectors }: Inputs): void {
  expectShape(x.rank === 4, operator, 'x', '[N, H, W, C]', x);
  for (const [name, vector] of Object.entries(vectors)) {
    if (vector)
      expectShape(vector.rank === 1 && vector.size === x.shape[3], operator, name, `[C] = [${x.shape[3]}]`, vector);
  }
  if (count) {
    expectShape(count.dtype === 'u32' && count.size === 1, operator, 'count', 'u32[1]', count);
    expectShape(residual === undefined, operator, 'residual', 'none beside a count', residual ?? x);
  }
  if (residual) {
    const same = residual.rank === 4 && residual.shape.every((extent, dim) => extent === x.shape[dim]);
    expectShape(same, operator, 'residual', `x's shape [${x.shape}]`, residual);
  }
}

function normalized({ x, residual, count: counted }: Inputs, channels: Tensor, relu: boolean): Tensor {
  const y = x.device.empty(x.shape, x.dtype);
  const { rows } = rowsAndChannels(x.shape);
  const { flags, groups } = channelGroups(x.shape[3]);
  inParts({ x, residual, y }, { operator: 'batch_norm2d', units: rows, writes: ['y'] }, (parts, run) => {
    const count = rowBlocks(run.count) * groups;
    const limit = limitOf(x.shape, counted, channels, run.first);
    x.device.gpu.dispatch(normalize, {
      flags,
      buffers: { ...parts, ...limit.buffers, channels, residual: parts.residual ?? parts.x },
      uniforms: {
        count,
        groups,
        rows: run.count,
        residual: residual ? 1 : 0,
        relu: relu ? 1 : 0,
        ...limit.uniforms,
      },
      workgroups: workgroupsFor(count),
    });
  });
  return y;
}

/** Σ g and Σ g·x̂ per channel [2, C], and g itself if it is wanted. */
type Sums = { sums: Tensor; masked: Tensor | null };

/** The sums of the gradients, added at once to those of weight and bias that are there already (`into`). */
function gradientSums(
  { saved, upstream, into }: BackwardContext<Inputs, Params>,
  mask: number,
  keepMasked: boolean,
): Sums {
  const { x, channels: statistics } = saved;
  const { device } = x;
  const { rows, channels } = rowsAndChannels(x.shape);
  const { flags, groups } = channelGroups(channels);
  const { rowsPerShare, shares } = sharesOf(rows, MOST_GRADIENT_SHARES);
  const sumsG = device.empty([shares, channels]);
  const sumsGX = device.empty([shares, channels]);
  const masked = keepMasked ? device.empty(x.shape, x.dtype) : device.empty([1]);
  const maps = { x, y: saved.y, dy: upstream, sumsG, sumsGX, kept: keepMasked ? masked : undefined };
  const share = rowsPerShare * channels;
  const perUnit = { x: share, y: share, dy: share, kept: share };
  const options = { operator: 'batch_norm2d', units: shares, perUnit, writes: ['sumsG', 'sumsGX', 'kept'] };
  inParts(maps, options, ({ kept, ...parts }, { first, count }) => {
    const limit = limitOf(x.shape, saved.count, statistics, first * rowsPerShare);
    device.gpu.dispatch(gradientShares, {
      flags,
      buffers: { ...parts, ...limit.buffers, y: parts.y ?? parts.x, channels: statistics, masked: kept ?? masked },
      uniforms: {
        ...limit.uniforms,
        count: count * groups,
        groups,
        rows: rows - first * rowsPerShare,
        rowsPerShare,
        mask,
        keepMasked: keepMasked ? 1 : 0,
      },
      workgroups: workgroupsFor(count * groups),
    });
  });
  const sums = device.empty([2, channels]);
  // Where there is nothing to add to, something that nobody reads is bound.
  const weight = into.weight ?? device.empty([1]);
  const bias = into.bias ?? device.empty([1]);
  device.gpu.dispatch(gradientChannels, {
    buffers: { sumsG, sumsGX, sums, weight, bias },
    uniforms: { count: channels, shares, addWeight: into.weight ? 1 : 0, addBias: into.bias ? 1 : 0 },
    workgroups: workgroupsFor(channels),
  });
  for (const tensor of [sumsG, sumsGX]) tensor.dispose();
  if (!into.weight) weight.dispose();
  if (!into.bias) bias.dispose();
  if (!keepMasked) masked.dispose();
  return { sums, masked: keepMasked ? masked : null };
}

function gradients(context: BackwardContext<Inputs, Params>) {
  const { params, shapes, saved, upstream, needs } = context;
  const mask = !params.relu ? MASK.none : saved.y ? MASK.y : MASK.x;
  const keepMasked = needs.residual === true && mask !== MASK.none;
  let known: Sums | null = null;
  const sums = (): Sums => {
    known ??= gradientSums(context, mask, keepMasked);
    return known;
  };
  const sumOf = (input: 'weight' | 'bias', row: 0 | 1, gradient?: Tensor): Tensor => {
    const { sums: both } = sums();
    // They were added to it already.
    if (gradient && gradient === context.into[input]) return gradient;
    const own = both.device.empty(shapes[input]);
    both.device.gpu.copy(both.buffer, own.buffer, own.size * 4, row * own.size * 4);
    return own;
  };
  const inputGradientInto = (into?: Tensor): Tensor => {
    const { x, channels } = saved;
    const dx = into ?? x.device.empty(shapes.x, x.dtype);
    const { rows } = rowsAndChannels(shapes.x);
    const { flags, groups } = channelGroups(shapes.x[3]);
    const ready = params.training || keepMasked ? sums() : null;
    const maps = { x, y: saved.y, dy: ready?.masked ?? upstream, dx };
    inParts(maps, { operator: 'batch_norm2d', units: rows, writes: ['dx'] }, (parts, run) => {
      const count = rowBlocks(run.count) * groups;
      const limit = limitOf(x.shape, saved.count, channels, run.first);
      x.device.gpu.dispatch(inputGradient, {
        flags,
        buffers: {
          ...parts,
          ...limit.buffers,
          y: parts.y ?? parts.x,
          channels,
          // Multiplied by 0 where the statistics are constants, so anything finite will do.
          sums: params.training && ready ? ready.sums : channels,
        },
        uniforms: {
          count,
          groups,
          rows: run.count,
          mask: ready?.masked ? MASK.none : mask,
          inverseRows: params.training && rows > 0 ? 1 / rows : 0,
          accumulate: into ? 1 : 0,
          ...limit.uniforms,
        },
        workgroups: workgroupsFor(count),
      });
    });
    return dx;
  };
  return {
    x: inputGradientInto,
    weight: (gradient?: Tensor) => sumOf('weight', 1, gradient),
    bias: (gradient?: Tensor) => sumOf('bias', 0, gradient),
    // A view: the scope of the backward step frees the handle that is shared between the thunks.
    residual: () => ((keepMasked && sums().masked) || upstream).view(shapes.x),
  };
}

/** What the gradients need of the forward pass. */
function savedFor(inputs: Inputs, channels: Tensor, y: Tensor, relu: boolean) {
  return { x: inputs.x, channels, y: relu && inputs.residual ? y : undefined, count: inputs.count };
}

const vector = (channels: number) => ({ shape: [channels] });
const running = (channels: number) => ({
  runningMean: { shape: [channels], differentiable: false },
  runningVar: { shape: [channels], range: [0.5, 2] as const, differentiable: false },
});

const operator = defineOperator<Inputs, Params>({
  name: 'batch_norm2d',
  halves: ['x', 'residual'],
  forward(inputs, params) {
    const { x, runningMean, runningVar } = inputs;
    const { training, eps = 1e-5, relu = false } = params;
    checkShapes('batch_norm2d', inputs);
    const { rows } = rowsAndChannels(x.shape);
    if (training && rows === 1) {
      throw new Error(`batch_norm2d: x: expected more than 1 value per channel in training, got ${x}.`);
    }
    const updateRunning = params.updateRunning ?? (training && x.device.gradEnabled);
    if (inputs.count && !training) throw new Error('batch_norm2d: count: in training only.');
    if (updateRunning && !training)
      throw new Error('batch_norm2d: updateRunning: running statistics move in training only.');
    const updates = updateRunning && runningMean !== undefined && runningVar !== undefined;
    // A batch without values has no statistics: nothing to normalise, and the running ones stay.
    if (rows === 0) {
      const y = x.device.empty(x.shape, x.dtype);
      return { output: y, saved: savedFor(inputs, x.device.zeros([4, x.shape[3]]), y, relu) };
    }
    const channels = training
      ? channelsOfBatch(inputs, params, updates)
      : channelsOfRunning('batch_norm2d', inputs, eps);
    const y = normalized(inputs, channels, relu);
    return { output: y, saved: savedFor(inputs, channels, y, relu) };
  },
  backward: gradients,
  examples: [
    { inputs: { x: { shape: [2, 3, 5, 4] }, weight: vector(4), bias: vector(4) }, params: { training: true } },
    {
      inputs: { x: { shape: [3, 3, 3, 3] }, weight: vector(3), bias: vector(3) },
      params: { training: true, relu: true },
    },
    {
      inputs: { x: { shape: [2, 6, 7, 4] }, weight: vector(4), bias: vector(4), residual: { shape: [2, 6, 7, 4] } },
      params: { training: true, relu: true, eps: 1e-3 },
    },
    {
      inputs: { x: { shape: [2, 3, 3, 5] }, weight: vector(5), bias: vector(5), residual: { shape: [2, 3, 3, 5] } },
      params: { training: true },
    },
    {
      inputs: {
        x: { shape: [1, 3, 3, 4] },
        weight: vector(4),
        bias: vector(4),
        residual: { shape: [1, 3, 3, 4] },
        ...running(4),
      },
      params: { training: false, relu: true },
    },
    {
      inputs: { x: { shape: [1, 2, 3, 3] }, weight: vector(3), bias: vector(3), ...running(3) },
      params: { training: false, relu: true },
    },
    {
      inputs: {
        x: { shape: [5, 4, 5, 4] },
        weight: vector(4),
        bias: vector(4),
        count: { shape: [1], dtype: 'u32', values: [4] },
      },
      params: { training: true, relu: true },
    },
  ],
});

const frozenOperator = defineOperator<Inputs, { eps?: number }>({
  name: 'frozen_batch_norm2d',
  halves: ['x'],
  forward(inputs, { eps = 1e-5 }) {
    checkShapes('frozen_batch_norm2d', inputs);
    const channels = channelsOfRunning('frozen_batch_norm2d', inputs, eps);
    return { output: normalized(inputs, channels, false), saved: { x: inputs.x, channels } };
  },
  backward: (context) => ({ x: gradients({ ...context, params: { training: false } }).x }),
  examples: [
    {
      inputs: {
        x: { shape: [2, 3, 2, 4] },
        weight: { shape: [4], differentiable: false },
        bias: { shape: [4], differentiable: false },
        ...running(4),
      },
      params: { eps: 1e-5 },
    },
  ],
});

export interface BatchNorm2dOptions {
  /** True: the batch's statistics; false: the running ones. */
  training: boolean;
  /** Weight of this batch in the running statistics, 0 … 1; 0.1 by default. */
  momentum?: number;
  /** Added to the variance; 1e-5 by default. */
  eps?: number;
  /** max(·, 0) at the end, in the same pass. */
  relu?: boolean;
  /** Added before the ReLU; of x's shape. */
  residual?: Tensor;
  /** Whether the running statistics move; by default in training while gradients are recorded. */
  updateRunning?: boolean;
  /** u32 [1]: how many of the N images are the batch, the first ones; the others give 0 and have no gradient. None of them: nothing moves. */
  count?: Tensor;
}

/**
 * Batch normalisation over N, H, W of x [N, H, W, C]: y = relu?((x - mean) / √(var + eps) · weight + bias + residual).
 * The running tensors [C] are changed in place on the device, runningVar towards the unbiased variance. Gradients for x,
 * weight, bias and residual in both modes. Throws in training with one value per channel, as torch does.
 * Source: Ioffe, Szegedy 2015; torch.nn.functional.batch_norm.
 */
export function batchNorm2d(
  x: Tensor,
  { weight, bias }: { weight: Tensor; bias: Tensor },
  { runningMean, runningVar }: { runningMean: Tensor; runningVar: Tensor },
  { residual, count, ...params }: BatchNorm2dOptions,
): Tensor {
  return operator({ x, weight, bias, residual, runningMean, runningVar, count }, params);
}

/**
 * (x - runningMean) / √(runningVar + eps) · weight + bias over the channels of x [N, H, W, C], all constants [C]: only x has
 * a gradient. Source: torchvision.ops.FrozenBatchNorm2d.
 */
export function frozenBatchNorm2d(
  x: Tensor,
  weight: Tensor,
  bias: Tensor,
  runningMean: Tensor,
  runningVar: Tensor,
  eps = 1e-5,
): Tensor {
  return frozenOperator({ x, weight, bias, runningMean, runningVar }, { eps });
}
