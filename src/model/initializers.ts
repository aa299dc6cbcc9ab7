import type { Random } from '../data/random.ts';
import { sizeOf } from '../tensor/tensor.ts';

/** Fills an entry of a torch shape with initial values. */
export type Initializer = (shape: readonly number[], random: Random) => Float32Array;

function fill(shape: readonly number[], draw: () => number): Float32Array {
  const data = new Float32Array(sizeOf(shape));
  for (let i = 0; i < data.length; i++) data[i] = draw();
  return data;
}

/** torch's fans of a weight [a, b, kh, kw]: fan in = b·kh·kw, fan out = a·kh·kw (also for ConvTranspose2d, as torch has it). */
function fans(shape: readonly number[]): { fanIn: number; fanOut: number } {
  const receptive = sizeOf(shape.slice(2));
  return { fanIn: shape[1] * receptive, fanOut: shape[0] * receptive };
}

export const constant =
  (value: number): Initializer =>
  (shape) =>
    fill(shape, () => value);

export const normal =
  (std: number): Initializer =>
  (shape, random) =>
    fill(shape, () => std * random.normal());

/** `kaiming_normal_(mode='fan_out', nonlinearity='relu')`: torchvision's ResNet, mask head and mask predictor. */
export const kaimingNormalFanOut: Initializer = (shape, random) =>
  normal(Math.sqrt(2 / fans(shape).fanOut))(shape, random);

const uniform =
  (bound: number): Initializer =>
  (shape, random) =>
    fill(shape, () => bound * (2 * random.next() - 1));

/** `kaiming_uniform_(a=1)`: torchvision's FeaturePyramidNetwork. */
export const kaimingUniformA1: Initializer = (shape, random) =>
  uniform(Math.sqrt(3 / fans(shape).fanIn))(shape, random);

/** PyTorch's default of Linear and convolution weights: `kaiming_uniform_(a=√5)`, that is ±1/√fanIn. */
export const torchDefaultWeight: Initializer = (shape, random) =>
  uniform(1 / Math.sqrt(fans(shape).fanIn))(shape, random);

/** PyTorch's default bias: ±1/√fanIn of the layer's weight shape. */
export const torchDefaultBias =
  (weightShape: readonly number[]): Initializer =>
  (shape, random) =>
    uniform(1 / Math.sqrt(fans(weightShape).fanIn))(shape, random);
