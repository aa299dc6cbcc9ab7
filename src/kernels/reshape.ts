import { defineOperator, expectShape } from '../tensor/operator.ts';
import { sizeOf, type Tensor } from '../tensor/tensor.ts';

/* A reshape moves nothing: output and input, and both gradients, are views of one buffer. */
const reshapeOperator = defineOperator<{ x: Tensor }, { shape: readonly number[] }>({
  name: 'reshape',
  halves: ['x'],
  forward: ({ x }, { shape }) => ({ output: x.device.adopt(x.view(shape)) }),
  backward: ({ shapes, upstream }) => ({ x: () => upstream.view(shapes.x) }),
  examples: [{ inputs: { x: { shape: [3, 4, 5] } }, params: { shape: [12, 5] } }],
});

/** The same elements under another shape of the same size; one extent may be -1 and is inferred. Source: torch.reshape. */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  const known = shape.reduce((product, extent) => (extent === -1 ? product : product * extent), 1);
  const open = shape.filter((extent) => extent === -1).length;
  const inferred = open === 1 && known > 0 ? x.size / known : 0;
  const full = shape.map((extent) => (extent === -1 ? inferred : extent));
  const holds = open <= 1 && full.every((extent) => Number.isInteger(extent) && extent >= 0) && sizeOf(full) === x.size;
  expectShape(holds && (open === 0 || known > 0), 'reshape', 'x', `a tensor that fills [${shape}]`, x);
  return reshapeOperator({ x }, { shape: full });
}
