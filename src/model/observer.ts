import type { Tensor } from '../tensor/tensor.ts';

/** Values a stage hands out: a tensor on the device (read before the scope ends) or host values with their shape. */
export type StageValue = Tensor | { shape: readonly number[]; data: Float32Array | Int32Array };

/** Sees the model's stages by name as they are computed (`features.0`, `rpn.proposals.0`, `box.head`, …); for `verify`. */
export type Observer = (stage: string, value: StageValue) => void | Promise<void>;
