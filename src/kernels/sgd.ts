import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import type { FlatParameters } from '../tensor/flatParameters.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { reduceSum } from './reduce.ts';

/*
 * torch.optim.SGD over flat buffers, four floats at a time: g ← s·g + λp, b ← μb + g, p ← p - γb, where s is the clipping
 * factor that `clipGradNorm` left on the device, so clipping needs no readback. Momenta start at 0, which makes the first b
 * the gradient, as torch has it. Padding stays 0 since 0 is a fixed point.
 */
const stepProgram = defineProgram({
  name: 'sgd',
  uniforms: { count: 'u32', lr: 'f32', momentum: 'f32', weightDecay: 'f32', clip: 'u32' },
  bindings: { p: ['write', 'vec4f'], g: ['read', 'vec4f'], b: ['write', 'vec4f'], factor: 'read' },
  code: () =>
    perElement(`
    let scale = select(1.0, factor[0], u.clip == 1u);
    let value = p[i];
    let velocity = u.momentum * b[i] + (scale * g[i] + u.weightDecay * value);
    b[i] = velocity;
    p[i] = value - u.lr * velocity;`),
});

/* Squares of every `shares`-th group of four floats, summed by one invocation; the shares are then summed in order. */
const squaresProgram = defineProgram({
  name: 'sumOfSquares',
  uniforms: { count: 'u32', groups: 'u32', start: 'u32' },
  bindings: { g: ['read', 'vec4f'], shares: 'write' },
  code: () =>
    perElement(`
    var total = vec4f();
    for (var k = i; k < u.groups; k += u.count) { total += g[k] * g[k]; }
    shares[u.start + i] = (total.x + total.y) + (total.z + total.w);`),
});

const factorProgram = defineProgram({
  name: 'clipFactor',
  uniforms: { count: 'u32', maxNorm: 'f32' },
  bindings: { squares: 'read', norm: 'write', factor: 'write' },
  code: () =>
    perElement(`
    let length = sqrt(squares[0]);
    norm[0] = length;
    factor[0] = min(1.0, u.maxNorm / (length + 1e-6));`),
});

/** A chunk of 16 M floats gives each invocation 256 groups of four. */
const MAX_SHARES = 16384;

export interface ClippedNorm {
  /** L2 norm of all gradients before clipping, shape []. */
  norm: Tensor;
  /** What gradients are to be multiplied by, shape []. */
  factor: Tensor;
}

/**
 * L2 norm of all gradients together and the factor min(1, maxNorm / (norm + 1e-6)) that clips it, both left on the device
 * and owned by the current scope; the gradients themselves are not changed, `sgdStep` applies the factor. The norm is read
 * when its value is wanted: `await norm.item()`. Source: torch.nn.utils.clip_grad_norm_.
 */
export function clipGradNorm(parameters: FlatParameters, maxNorm: number): ClippedNorm {
  const { device } = parameters;
  parameters.collectGradients();
  const chunks = parameters.chunks().map(({ gradients, floats }) => {
    const groups = floats / 4;
    return { gradients, groups, count: Math.min(MAX_SHARES, Math.ceil(groups / 16)) };
  });
  const shares = device.empty([chunks.reduce((total, { count }) => total + count, 0)]);
  let start = 0;
  for (const { gradients, groups, count } of chunks) {
    device.gpu.dispatch(squaresProgram, {
      buffers: { g: gradients, shares },
      uniforms: { count, groups, start },
      workgroups: workgroupsFor(count),
    });
    start += count;
  }
  const squares = reduceSum(shares, [true], []);
  const norm = device.empty([]);
  const factor = device.empty([]);
  device.gpu.dispatch(factorProgram, {
    buffers: { squares, norm, factor },
    uniforms: { count: 1, maxNorm },
    workgroups: 1,
  });
  shares.dispose();
  squares.dispose();
  return { norm, factor };
}

export interface SgdOptions {
  /** Learning rate. */
  lr: number;
  momentum: number;
  /** Added to the gradient as weightDecay · p (L2, not decoupled). */
  weightDecay: number;
  /** Largest L2 norm of all gradients together; no clipping by default. */
  clipNorm?: number;
}

/**
 * One step of stochastic gradient descent on all parameters from their gradients: one dispatch per chunk of 64 MiB.
 * Returns the norm before clipping (shape [], owned by the current scope) when `clipNorm` is given.
 * Source: torch.optim.SGD (dampening 0, not Nesterov).
 */
export function sgdStep(
  parameters: FlatParameters,
  { lr, momentum, weightDecay, clipNorm }: SgdOptions,
): Tensor | null {
  const { gpu } = parameters.device;
  const clipped = clipNorm === undefined ? null : clipGradNorm(parameters, clipNorm);
  if (!clipped) parameters.collectGradients();
  for (const { parameters: p, gradients: g, momenta: b, floats } of parameters.chunks()) {
    const count = floats / 4;
    gpu.dispatch(stepProgram, {
      // Without clipping nothing reads the factor, but something must be bound.
      buffers: { p, g, b, factor: clipped?.factor ?? g },
      uniforms: { count, lr, momentum, weightDecay, clip: clipped ? 1 : 0 },
      workgroups: workgroupsFor(count),
    });
  }
  clipped?.factor.dispose();
  return clipped?.norm ?? null;
}
