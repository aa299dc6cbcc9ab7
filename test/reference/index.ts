import { relu } from './relu.ts';

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
};
