import type { GradientThunk } from '../src/tensor/autograd.ts';
import { type Inputs, type Params, registeredOperators } from '../src/tensor/operator.ts';
import type { Tensor } from '../src/tensor/tensor.ts';

/**
 * The gradient of a registered operator by one of its inputs, alone: the operator's forward pass runs once, here, and its
 * backward rule at each call of the result, as in a training step.
 *
 * @param wrt name of the input
 * @param upstream the loss's gradient by the output; same shape as the output
 */
export function gradientOf(name: string, inputs: Inputs, params: Params, wrt: string, upstream: Tensor): () => Tensor {
  const definition = registeredOperators().get(name)?.definition;
  if (!definition?.backward) throw new Error(`There is no differentiable operator ${name}.`);
  const { backward } = definition;
  const needs = Object.fromEntries(Object.keys(inputs).map((input) => [input, input === wrt]));
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
    const thunk: GradientThunk | undefined = backward(context)[wrt];
    if (!thunk) throw new Error(`${name} has no gradient by ${wrt}.`);
    return thunk();
  };
}
