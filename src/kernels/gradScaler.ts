import { defineProgram, perElement } from '../gpu/program.ts';
import type { Device } from '../tensor/device.ts';
import type { FlatParameters } from '../tensor/flatParameters.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { sumOverGradients } from './gradientSums.ts';

/*
 * Dynamic loss scaling (Micikevicius et al. 2018, "Mixed Precision Training"; torch.amp.GradScaler). Gradients of float16 below 6e-8 are 0
 * and above 65504 infinite, so the backward pass starts from a scale s instead of 1, and the optimizer divides by it. Where any gradient of a
 * parameter is not finite, the step is left out and s halved; after `growthInterval` steps without such a one it is doubled:
 *   finite:  good ← good + 1; if good = growthInterval: s ← growthFactor · s, good ← 0
 *   else:    s ← backoffFactor · s, good ← 0, skipped ← skipped + 1
 * All of it happens on the device, so no step waits for a readback.
 */

/* Integers alone: WGSL lets a compiler assume that floats are finite. The exponent of what is not is all ones. */
const countProgram = defineProgram({
  name: 'countNonFinite',
  uniforms: { count: 'u32', groups: 'u32', start: 'u32' },
  bindings: { g: ['read', 'vec4u'], shares: 'write' },
  code: () =>
    perElement(`
    var found = vec4u();
    for (var k = i; k < u.groups; k += u.count) {
      found += select(vec4u(), vec4u(1u), (g[k] & vec4u(0x7f800000u)) == vec4u(0x7f800000u));
    }
    shares[u.start + i] = f32(found.x + found.y + found.z + found.w);`),
});

const updateProgram = defineProgram({
  name: 'updateLossScale',
  uniforms: { count: 'u32', growthFactor: 'f32', backoffFactor: 'f32', growthInterval: 'f32', most: 'f32' },
  bindings: { found: 'read', scale: 'write', counts: 'write', verdict: 'write' },
  code: () =>
    perElement(`
    let finite = found[0] == 0.0;
    verdict[0] = 1.0 / scale[0];
    verdict[1] = select(0.0, 1.0, finite);
    if (finite) {
      let good = counts[0] + 1.0;
      let grows = good >= u.growthInterval;
      counts[0] = select(good, 0.0, grows);
      if (grows && scale[0] * u.growthFactor <= u.most) { scale[0] *= u.growthFactor; }
    } else {
      scale[0] *= u.backoffFactor;
      counts[0] = 0.0;
      counts[1] += 1.0;
    }`),
});

/** Far from float32's own limit. */
const LARGEST_SCALE = 2 ** 100;

export interface GradScalerOptions {
  /** The first scale. */
  initScale?: number;
  growthFactor?: number;
  backoffFactor?: number;
  /** Steps without overflow after which the scale grows. */
  growthInterval?: number;
}

/** Where a scaler stands: enough to go on bit for bit. */
export interface GradScalerState {
  scale: number;
  /** Steps since the scale last changed or was tried to. */
  goodSteps: number;
  /** Steps left out since the run began. */
  skippedSteps: number;
}

/** The loss scale of a run, on the device. It belongs to no scope; dispose it. Defaults are torch.amp.GradScaler's. */
export class GradScaler {
  /** What a backward pass starts from: `device.backward(loss, scaler.scale)`. Shape []. */
  readonly scale: Tensor;
  readonly #options: Required<GradScalerOptions>;
  readonly #counts: Tensor;

  constructor(device: Device, options: GradScalerOptions = {}, state?: GradScalerState) {
    this.#options = { initScale: 65536, growthFactor: 2, backoffFactor: 0.5, growthInterval: 2000, ...options };
    const { scale, goodSteps, skippedSteps } = state ?? {
      scale: this.#options.initScale,
      goodSteps: 0,
      skippedSteps: 0,
    };
    const keep = (values: number[], shape: number[]): Tensor =>
      device.detached(() => device.tagged('optimizer', () => device.tensor(values, shape)));
    this.scale = keep([scale], []);
    this.#counts = keep([goodSteps, skippedSteps], [2]);
  }

  /**
   * Looks at the gradients of a backward pass, moves the scale, and tells the optimizer what to do with them: [2], owned by the current
   * scope, the factor that undoes the scale, and 1, or 0 where a gradient is not finite and the step must be left out.
   */
  update(parameters: FlatParameters): Tensor {
    const { device } = parameters;
    const { growthFactor, backoffFactor, growthInterval } = this.#options;
    parameters.collectGradients();
    const found = sumOverGradients(parameters, countProgram);
    const verdict = device.empty([2]);
    device.gpu.dispatch(updateProgram, {
      buffers: { found, scale: this.scale, counts: this.#counts, verdict },
      uniforms: { count: 1, growthFactor, backoffFactor, growthInterval, most: LARGEST_SCALE },
      workgroups: 1,
    });
    found.dispose();
    return verdict;
  }

  /** Reads the state back. */
  async state(): Promise<GradScalerState> {
    const [[scale], [goodSteps, skippedSteps]] = await this.scale.device.readAll([this.scale, this.#counts]);
    return { scale, goodSteps, skippedSteps };
  }

  dispose(): void {
    this.scale.dispose();
    this.#counts.dispose();
  }
}
