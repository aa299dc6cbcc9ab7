import type { Sample } from '../data/types.ts';
import type { GradScaler } from '../kernels/gradScaler.ts';
import type { SampleOrder } from '../kernels/sampler.ts';
import { sgdStep } from '../kernels/sgd.ts';
import type { LossName, MaskRCNN } from '../model/maskRcnn.ts';
import type { Tensor } from '../tensor/tensor.ts';

export interface StepOptions {
  lr: number;
  momentum: number;
  weightDecay: number;
  clipNorm: number | null;
  /** Of a model that computes in float16. */
  scaler?: GradScaler;
}

/** Losses of one batch on the device, not yet read: names, and their values [names]. Dispose `values` after reading. */
export interface StepLosses {
  names: LossName[];
  values: Tensor;
}

function stacked(losses: Partial<Record<LossName, Tensor>>): { names: LossName[]; list: Tensor[]; values: Tensor } {
  const names = Object.keys(losses) as LossName[];
  const list = names.map((name) => losses[name] as Tensor);
  const { device } = list[0];
  const values = device.empty([list.length]);
  list.forEach(({ buffer }, i) => {
    device.gpu.copy(buffer, values.buffer, 4, 0, 4 * i);
  });
  return { names, list, values };
}

/**
 * One training step: losses, gradients of their sum, clipping, SGD. Nothing it allocates outlives it but `values`, and nothing is
 * read back: the host runs ahead of the device.
 */
export function trainStep(
  model: MaskRCNN,
  batch: readonly Sample[],
  order: SampleOrder,
  { lr, momentum, weightDecay, clipNorm, scaler }: StepOptions,
): Promise<StepLosses> {
  const { device } = model;
  const { parameters } = model.state;
  return device.scope(async () => {
    // A scope of its own: behind it the maps belong to the tape alone, which frees each as soon as the backward pass has used it.
    const losses = await device.scope(() =>
      model.trainingLosses(
        batch.map(({ image }) => image),
        batch.map(({ target }) => target),
        { order },
      ),
    );
    const { names, list, values } = stacked(losses);
    parameters.zeroGrad();
    device.backward(list, scaler?.scale);
    device.labelled('sgd', () =>
      sgdStep(parameters, { lr, momentum, weightDecay, clipNorm: clipNorm ?? undefined, scaler }),
    );
    return { names, values };
  });
}

/** Losses of one batch in training form without gradients; running statistics do not move. */
export function validationLosses(model: MaskRCNN, batch: readonly Sample[], order: SampleOrder): Promise<StepLosses> {
  const { device } = model;
  return device.noGrad(() =>
    device.scope(async () => {
      const losses = await model.trainingLosses(
        batch.map(({ image }) => image),
        batch.map(({ target }) => target),
        { order },
      );
      const { names, values } = stacked(losses);
      return { names, values };
    }),
  );
}
