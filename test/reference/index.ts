import { sigmoid } from './activations.ts';
import { add, div, mul, sub } from './arithmetic.ts';
import { batchNorm } from './batchNorm.ts';
import { conv2d } from './conv2d.ts';
import { convTranspose2d } from './convTranspose2d.ts';
import { interpolateBilinear, interpolateNearest } from './interpolate.ts';
import { linear } from './linear.ts';
import { binaryCrossEntropyWithLogits, crossEntropy, smoothL1Loss } from './losses.ts';
import { matmul } from './matmul.ts';
import { maxPool2d } from './maxPool2d.ts';
import { mean, sum } from './reduce.ts';
import { relu } from './relu.ts';
import { multiScaleRoiAlign, roiAlign } from './roiAlign.ts';
import { cat, gatherClass, indexSelect, narrow, permute, reshape } from './shape.ts';
import { softmax } from './softmax.ts';

/** A float64 array with its shape. Integers (labels, indices) are stored as numbers too. */
export interface RefTensor {
  shape: number[];
  data: Float64Array;
}

/**
 * The forward pass of one operator in float64 plain loops, written from the mathematics and never from the WGSL. Arguments are
 * those of the operator's registration: named inputs and params. Layouts are the device's (NHWC, weights [kh, kw, ci, co]).
 */
export type Reference = (inputs: Record<string, RefTensor>, params: Record<string, unknown>) => RefTensor;

/** References by operator name. The gradient check fails for a differentiable operator that has none. */
export const references: Record<string, Reference> = {
  relu,
  conv2d,
  conv_transpose2d: convTranspose2d,
  linear,
  matmul,
  sigmoid,
  add,
  sub,
  mul,
  div,
  binary_cross_entropy_with_logits: binaryCrossEntropyWithLogits,
  cross_entropy: crossEntropy,
  smooth_l1_loss: smoothL1Loss,
  mean,
  sum,
  cat,
  cat_parts: (parts) => cat(parts, { dim: 0 }),
  list_rows: ({ x }, { first, rows }) => narrow({ x }, { dim: 0, start: first, length: rows }),
  gather_class: gatherClass,
  index_select: indexSelect,
  narrow,
  permute,
  reshape,
  cast: ({ x }) => x,
  roi_align: roiAlign,
  multiscale_roi_align: multiScaleRoiAlign,
  softmax,
  interpolate_bilinear: interpolateBilinear,
  interpolate_nearest: interpolateNearest,
  max_pool2d: maxPool2d,
  batch_norm2d: batchNorm,
  frozen_batch_norm2d: batchNorm,
};
