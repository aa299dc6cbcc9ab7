import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import type { FlatParameters } from '../tensor/flatParameters.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { sumOverGradients } from './gradientSums.ts';
import type { GradScaler } from './gradScaler.ts';

/*
 * torch.optim.SGD over flat buffers, four floats at a time: g ← s·g + λp, b ← μb + g, p ← p - γb, where s is the clipping
 * factor that `clipGradNorm` left on the device, so clipping needs no readback. Momenta start at 0, which makes the first b
 * the gradient, as torch has it. Padding stays 0 since 0 is a fixed point. Where the loss was scaled, the scaler's verdict (see
 * `gradScaler.ts`) undoes the scale or leaves the step out.
 */
type StepFlags = { scaled: boolean };

const stepProgram = defineProgram({
  name: 'sgd',
  uniforms: { count: 'u32', lr: 'f32', momentum: 'f32', weightDecay: 'f32', clip: 'u32' },
  bindings: { p: ['write', 'vec4f'], g: ['read', 'vec4f'], b: ['write', 'vec4f'], factor: 'read', verdict: 'read' },
  code: ({ scaled }: StepFlags) =>
    perElement(`
    ${scaled ? 'if (verdict[1] == 0.0) { return; }' : ''}
    let scale = ${scaled ? 'verdict[0] * ' : ''}select(1.0, factor[0], u.clip == 1u);
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
  bindings: { squares: 'read', norm: 'write', factor: 'write', verdict: 'read' },
  code: ({ scaled }: StepFlags) =>
    perElement(`
    let length = ${scaled ? 'verdict[0] * ' : ''}sqrt(squares[0]);
    norm[0] = length;
    factor[0] = min(1.0, u.maxNorm / (length + 1e-6));`),
});

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
 *
 * @param verdict of a scaler: norm and factor are then those of the gradients without their scale
 */
export function clipGradNorm(parameters: FlatParameters, maxNorm: number, verdict?: Tensor): ClippedNorm {
  const { device } = parameters;
  parameters.collectGradients();
  const squares = sumOverGradients(parameters, squaresProgram);
  const norm = device.empty([]);
  const factor = device.empty([]);
  device.gpu.dispatch(factorProgram, {
    flags: { scaled: verdict !== undefined },
    buffers: { squares, norm, factor, verdict: verdict ?? squares },
    uniforms: { count: 1, maxNorm },
    workgroups: 1,
  });
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
  /** The gradients are those of the loss times its scale; it is moved by them, see `GradScaler`. */
  scaler?: GradScaler;
}

/**
 * One step of stochastic gradient descent on all parameters from their gradients: one dispatch per chunk of 64 MiB.
 * Returns the norm before clipping (shape [], owned by the current scope) when `clipNorm` is given.
 * Source: torch.optim.SGD (dampening 0, not Nesterov).
 */
export function sgdStep(
  parameters: FlatParameters,
  { lr, momentum, weightDecay, clipNorm, scaler }: SgdOptions,
): Tensor | null {
  const { gpu } = parameters.device;
  const verdict = scaler?.update(parameters);
  const clipped = clipNorm === undefined ? null : clipGradNorm(parameters, clipNorm, verdict);
  if (!clipped) parameters.collectGradients();
  for (const { parameters: p, gradients: g, momenta: b, floats } of parameters.chunks()) {
    const count = floats / 4;
    gpu.dispatch(stepProgram, {
      flags: { scaled: verdict !== undefined },
      // Without clipping nothing reads the factor, without a scale nothing the verdict, but something must be bound.
      buffers: { p, g, b, factor: clipped?.factor ?? g, verdict: verdict ?? g },
      uniforms: { count, lr, momentum, weightDecay, clip: clipped ? 1 : 0 },
      workgroups: workgroupsFor(count),
    });
  }
  clipped?.factor.dispose();
  verdict?.dispose();
  return clipped?.norm ?? null;
}
