import type { GradientThunk } from '../src/tensor/autograd.ts';
import { type Inputs, type Params, registeredOperators } from '../src/tensor/operator.ts';
import type { Tensor } from '../src/tensor/tensor.ts';

/**
 * Gradients of a registered operator by some of its inputs, without its forward pass: that runs once, here, and the backward rule
 * at each call of the result, as in a training step.
 *
 * @param wrt names of the inputs; the gradients come in their order
 * @param upstream the loss's gradient by the output; same shape as the output
 */
export function gradientsOf(
  name: string,
  inputs: Inputs,
  params: Params,
  wrt: readonly string[],
  upstream: Tensor,
): () => Tensor[] {
  const definition = registeredOperators().get(name)?.definition;
  if (!definition?.backward) throw new Error(`There is no differentiable operator ${name}.`);
  const { backward } = definition;
  const needs = Object.fromEntries(Object.keys(inputs).map((input) => [input, wrt.includes(input)]));
  const { saved } = definition.forward(inputs, params, needs);
  const context = {
    params,
    needs,
    upstream,
    into: {},
    saved: saved as Record<string, Tensor>,
    dtypes: Object.fromEntries(Object.entries(inputs).map(([input, tensor]) => [input, tensor?.dtype ?? 'f32'])),
    shapes: Object.fromEntries(Object.entries(inputs).map(([input, tensor]) => [input, tensor?.shape ?? []])),
  };
  return () => {
    const thunks = backward(context);
    return wrt.map((input) => {
      const thunk: GradientThunk | undefined = thunks[input];
      if (!thunk) throw new Error(`${name} has no gradient by ${input}.`);
      return thunk();
    });
  };
}

/** One gradient alone; see {@link gradientsOf}. */
export function gradientOf(name: string, inputs: Inputs, params: Params, wrt: string, upstream: Tensor): () => Tensor {
  const gradients = gradientsOf(name, inputs, params, [wrt], upstream);
  return () => gradients()[0];
}
