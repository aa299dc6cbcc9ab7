/** One parameter of the reference optimizer, float64. */
export interface RefParameter {
  value: Float64Array;
  momentum: Float64Array;
}

export interface RefSgdOptions {
  lr: number;
  momentum: number;
  weightDecay: number;
  clipNorm?: number;
}

/**
 * torch.optim.SGD after torch.nn.utils.clip_grad_norm_, from their documentation: g ← g · min(1, c / (‖g‖ + 1e-6)) over all
 * parameters together, g ← g + λp, b ← μb + g, p ← p - γb. Returns the norm before clipping.
 */
export function referenceSgdStep(
  parameters: RefParameter[],
  gradients: Float64Array[],
  options: RefSgdOptions,
): number {
  const norm = Math.hypot(...gradients.map((gradient) => Math.hypot(...gradient)));
  const factor = options.clipNorm === undefined ? 1 : Math.min(1, options.clipNorm / (norm + 1e-6));
  parameters.forEach(({ value, momentum }, p) => {
    for (let i = 0; i < value.length; i++) {
      const slope = gradients[p][i] * factor + options.weightDecay * value[i];
      momentum[i] = options.momentum * momentum[i] + slope;
      value[i] -= options.lr * momentum[i];
    }
  });
  return norm;
}
