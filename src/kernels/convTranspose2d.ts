import { defineOperator, expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { convForward, convInputGradient, convWeightGradient } from './convolution.ts';
import { biasedUpstream } from './maskedUpstream.ts';
import { packTransposed } from './packWeights.ts';

/*
 * The transpose of a convolution without padding: forward is that convolution's gradient by its input, and back. With kernel = stride = 2 the four
 * phases are four matrix products with one tap each, and every output is written once. Behind a fused ReLU g = dy · [y > 0]; then dx = conv(g, wᵀ),
 * dw is the convolution's weight gradient with g as its image and x as its upstream, transposed, and db = Σ g.
 */
type Inputs = { x: Tensor; weight: Tensor; bias: Tensor | undefined };
type Params = { stride: number; relu?: boolean };

const operator = defineOperator<Inputs, Params>({
  name: 'conv_transpose2d',
  halves: ['x'],
  forward({ x, weight, bias }, { stride, relu = false }, needs) {
    const name = 'convTranspose2d';
    if (!Number.isInteger(stride) || stride < 1)
      throw new Error(`${name}: stride is a whole number from 1, got ${stride}.`);
    expectShape(x.rank === 4 && x.shape[1] > 0 && x.shape[2] > 0, name, 'x', '[N, H, W, Ci] with H and W from 1', x);
    const [images, height, width, channels] = x.shape;
    expectShape(weight.rank === 4 && weight.shape[2] === channels, name, 'weight', `[kh, kw, ${channels}, Co]`, weight);
    const [kh, kw, , columns] = weight.shape;
    if (bias) expectShape(bias.rank === 1 && bias.shape[0] === columns, name, 'bias', `[${columns}]`, bias);
    const y = x.device.empty([images, (height - 1) * stride + kh, (width - 1) * stride + kw, columns], x.dtype);
    const weights = { tensor: weight, taps: kh * kw, depth: channels, columns };
    convInputGradient(x, weights, [kh, kw], y, { stride, padding: 0, dilation: 1 }, { bias, relu });
    const saved = { x: needs.weight ? x : undefined, weight: needs.x ? weight : undefined, y: relu ? y : undefined };
    return { output: y, saved };
  },
  backward({ params: { stride }, shapes, saved: { x, weight, y }, upstream, needs }) {
    const geometry = { stride, padding: 0, dilation: 1 };
    const [kh, kw, depth, columns] = shapes.weight;
    const { g, bias } = biasedUpstream(upstream, y, columns, needs.bias);
    const { device } = g;
    return {
      x: (into) => {
        const dx = into ?? device.empty(shapes.x, g.dtype);
        const weights = { tensor: weight, taps: kh * kw, depth: columns, columns: depth, transposed: {} };
        convForward(g, weights, [kh, kw], dx, geometry, { accumulate: into !== undefined });
        return dx;
      },
      weight: (into) => {
        const transposed = device.empty([kh, kw, columns, depth]);
        convWeightGradient(g, x, transposed, geometry, {});
        const dw = into ?? device.empty(shapes.weight);
        const accumulate = into !== undefined;
        packTransposed(transposed, dw, { taps: kh * kw, rows: columns, columns: depth }, { accumulate });
        transposed.dispose();
        return dw;
      },
      bias,
    };
  },
  examples: [
    {
      inputs: { x: { shape: [2, 3, 4, 8] }, weight: { shape: [2, 2, 8, 4] }, bias: { shape: [4] } },
      params: { stride: 2 },
    },
    { inputs: { x: { shape: [1, 3, 2, 3] }, weight: { shape: [3, 3, 3, 5] }, bias: undefined }, params: { stride: 2 } },
    {
      inputs: { x: { shape: [1, 4, 3, 4] }, weight: { shape: [3, 2, 4, 2] }, bias: { shape: [2] } },
      params: { stride: 1 },
    },
    // A kernel smaller than the stride leaves outputs that are the bias alone.
    {
      inputs: { x: { shape: [1, 2, 3, 4] }, weight: { shape: [1, 2, 4, 4] }, bias: { shape: [4] } },
      params: { stride: 3 },
    },
    // The bias keeps pre-activations away from the kink at 0.
    {
      inputs: {
        x: { shape: [1, 3, 3, 4], range: [-0.3, 0.3] },
        weight: { shape: [2, 2, 4, 4], range: [-0.3, 0.3] },
        bias: { shape: [4], values: [1, -1, -1, 1] },
      },
      params: { stride: 2, relu: true },
    },
  ],
});

/**
 * relu?(the transposed convolution of x + bias), without padding; any kernel and stride. Source: torch.nn.functional.conv_transpose2d.
 * @param x [N, H, W, Ci]
 * @param weight [kh, kw, Ci, Co]
 * @param bias [Co]
 * @returns [N, (H - 1)·stride + kh, (W - 1)·stride + kw, Co]
 */
export function convTranspose2d(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | undefined,
  options: { stride: number; relu?: boolean },
): Tensor {
  return operator({ x, weight, bias }, { ...options });
}
