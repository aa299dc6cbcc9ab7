import { UserError } from '../cli/errors.ts';
import type { Device } from '../tensor/device.ts';

/**
 * What maps and their gradients are stored as, and weights while they are multiplied. With `f16`, as torch.amp's autocast has it:
 * - images are rounded once they are normalised; backbone, pyramid, RPN, box and mask head compute on halves and sum in float32;
 * - statistics of batch norms, parameters, their gradients and the optimizer stay float32; weights are rounded once for each step;
 * - logits and box codes become float32 where they leave the heads: losses, boxes, proposals, NMS and RoIs are float32.
 */
export const precisions = ['f32', 'f16'] as const;
export type Precision = (typeof precisions)[number];

/** @throws UserError where the device cannot compute at this precision */
export function requirePrecision(device: Device, precision: Precision): void {
  if (precision === 'f16' && !device.hasHalves) {
    throw new UserError(
      `--precision f16: ${device.gpu.opened.info.name} has no 16-bit floats (the WebGPU feature shader-f16); choose another adapter or --precision f32.`,
    );
  }
}
