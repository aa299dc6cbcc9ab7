import { defineOperator, expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { biasedUpstream } from './maskedUpstream.ts';
import { matrixProduct } from './matmul.ts';

/*
 * y = relu?(x·W + b). Behind the ReLU g = dy · [y > 0]; then dx = g·Wᵀ, dW = xᵀ·g and db sums g over its rows.
 */
const operator = defineOperator<{ x: Tensor; weight: Tensor; bias: Tensor | undefined }, { relu?: boolean }>({
  name: 'linear',
  halves: ['x'],
  forward({ x, weight, bias }, { relu = false }, needs) {
    expectShape(x.rank === 2, 'linear', 'x', '[M, K]', x);
    expectShape(weight.rank === 2 && weight.shape[0] === x.shape[1], 'linear', 'weight', `[${x.shape[1]}, N]`, weight);
    const columns = weight.shape[1];
    if (bias) expectShape(bias.rank === 1 && bias.shape[0] === columns, 'linear', 'bias', `[${columns}]`, bias);
    const y = matrixProduct(x, weight, {}, undefined, { bias, relu });
    return {
      output: y,
      saved: { x: needs.weight ? x : undefined, weight: needs.x ? weight : undefined, y: relu ? y : undefined },
    };
  },
  backward({ saved: { x, weight, y }, upstream, needs }) {
    const { g, bias } = biasedUpstream(upstream, y, upstream.shape[1], needs.bias);
    return {
      x: (into) => matrixProduct(g, weight, { transposeB: true }, into, { accumulate: into !== undefined }),
      weight: (into) => matrixProduct(x, g, { transposeA: true }, into, { accumulate: into !== undefined }),
      bias,
    };
  },
  examples: [
    { inputs: { x: { shape: [6, 8] }, weight: { shape: [8, 12] }, bias: { shape: [12] } }, params: {} },
    { inputs: { x: { shape: [5, 7] }, weight: { shape: [7, 3] }, bias: undefined }, params: {} },
    // Pre-activations lie in 0.5 … 1.5 or -1.5 … -0.5 by their bias, so no central difference straddles the kink.
    {
      inputs: {
        x: { shape: [9, 5], range: [-0.3, 0.3] },
        weight: { shape: [5, 4], range: [-0.3, 0.3] },
        bias: { shape: [4], values: [1, -1, 1, -1] },
      },
      params: { relu: true },
    },
  ],
});

/**
 * relu?(x · weight + bias). Source: torch.nn.functional.linear, with the weight stored transposed.
 * @param x [M, K]
 * @param weight [K, N]
 * @param bias [N]
 * @returns [M, N]
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor, options: { relu?: boolean } = {}): Tensor {
  return operator({ x, weight, bias }, { ...options });
}
