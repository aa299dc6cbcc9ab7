import { type Program, workgroupsFor } from '../gpu/program.ts';
import type { FlatParameters } from '../tensor/flatParameters.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { reduceSum } from './reduce.ts';

/** Invocation i takes every `count`-th group of four floats of a chunk of gradients, from group i on, and writes one number to shares[start + i]. */
export type GradientShares = Program<Record<string, never>, 'g' | 'shares', 'count' | 'groups' | 'start'>;

/** A chunk of 16 M floats gives each invocation 256 groups of four. */
const MAX_SHARES = 16384;

/** The sum over all flat gradients of what `program` makes of them, in a fixed order; shape [], owned by the current scope. */
export function sumOverGradients(parameters: FlatParameters, program: GradientShares): Tensor {
  const { device } = parameters;
  const chunks = parameters.chunks().map(({ gradients, floats }) => {
    const groups = floats / 4;
    return { gradients, groups, count: Math.min(MAX_SHARES, Math.ceil(groups / 16)) };
  });
  const shares = device.empty([chunks.reduce((total, { count }) => total + count, 0)]);
  let start = 0;
  for (const { gradients, groups, count } of chunks) {
    device.gpu.dispatch(program, {
      buffers: { g: gradients, shares },
      uniforms: { count, groups, start },
      workgroups: workgroupsFor(count),
    });
    start += count;
  }
  const sum = reduceSum(shares, [true], []);
  shares.dispose();
  return sum;
}
