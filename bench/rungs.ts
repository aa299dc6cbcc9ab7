import { familyChoice, type KernelChoice, kernelChoice, setKernelChoice } from '../src/kernels/kernelChoice.ts';
import type { TileShape } from '../src/kernels/tile.ts';
import type { Device } from '../src/tensor/device.ts';
import type { Tensor } from '../src/tensor/tensor.ts';

/** Rungs that differ in the kernels alone; the operators' own names stand for what the model runs. */
export type RungName =
  | 'naive'
  | 'tile from buffers'
  | 'tile from textures'
  | 'winograd'
  | 'conv2d'
  | 'matmul'
  | 'linear'
  | 'convTranspose2d';

function choiceOf(device: Device, name: RungName): KernelChoice {
  if (name === 'winograd' || name === 'naive') return familyChoice(device, name);
  if (name !== 'tile from buffers' && name !== 'tile from textures') return kernelChoice(device);
  const auto = familyChoice(device, 'auto');
  const source: TileShape['source'] = name === 'tile from buffers' ? 'buffer' : 'texture';
  return {
    ...auto,
    convolution: () => 'direct',
    product: (problem) => {
      const tile = auto.product(problem);
      return tile === 'naive' ? tile : { ...tile, source };
    },
  };
}

/**
 * `compute` by each of the kernels named. What was derived from operands (textures, transformed weights) is made anew at each run, as in a
 * step of training, where every operand is new.
 */
export function rungsOf(
  device: Device,
  names: readonly RungName[],
  compute: () => Tensor,
): Record<string, () => Tensor> {
  const choices = names.map((name) => [name, choiceOf(device, name)] as const);
  return Object.fromEntries(
    choices.map(([name, choice]) => [
      name,
      () => {
        const before = kernelChoice(device);
        device.gpu.derived.clear();
        setKernelChoice(device, choice);
        try {
          return compute();
        } finally {
          setKernelChoice(device, before);
        }
      },
    ]),
  );
}
