import { defineOperator, expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { groupedForward, groupedInputGradient, groupedWeightGradient } from './conv2dNaive.ts';
import { convForward, convInputGradient, convOutputSize, convWeightGradient } from './convolution.ts';
import { biasedUpstream } from './maskedUpstream.ts';

/*
 * y = relu?(conv(x, w) · scale + bias + residual) in one pass. Behind the ReLU g = dy · [y > 0], computed once. The bias receives Σ g over positions,
 * the residual g itself. The constant scale is multiplied into what it touches least of: into the packed weights for the gradient by x
 * (dx = conv'(g, w · scale)) and into the result for the gradient by w (dw = dw' · scale).
 */
type Conv2dInputs = {
  x: Tensor;
  weight: Tensor;
  bias: Tensor | undefined;
  scale: Tensor | undefined;
  residual: Tensor | undefined;
};
type Conv2dParams = Pick<Conv2dOptions, 'stride' | 'padding' | 'dilation' | 'groups' | 'relu' | 'zeroChannels'>;

export interface Conv2dOptions {
  /** [Co] */
  bias?: Tensor;
  /** [Co]; a constant, as of frozen batch norm: it receives no gradient. */
  scale?: Tensor;
  /** Like the output. */
  residual?: Tensor;
  stride?: number;
  padding?: number;
  dilation?: number;
  groups?: number;
  relu?: boolean;
  /** How many of x's last channels hold only zeros, as an image of three channels in four: what multiplies them may be left out. */
  zeroChannels?: number;
}

function geometryOf({ stride = 1, padding = 0, dilation = 1 }: Conv2dParams) {
  return { stride, padding, dilation };
}

/** Checks all shapes; the output's shape. */
function outputShape({ x, weight, bias, scale, residual }: Conv2dInputs, params: Conv2dParams): number[] {
  const { groups = 1 } = params;
  const geometry = geometryOf(params);
  const whole = [geometry.stride, geometry.dilation, groups].every((value) => Number.isInteger(value) && value >= 1);
  if (!whole || !Number.isInteger(geometry.padding) || geometry.padding < 0) {
    const given = JSON.stringify({ ...geometry, groups });
    throw new Error(`conv2d: stride, dilation and groups are whole numbers from 1, padding from 0; got ${given}.`);
  }
  expectShape(x.rank === 4, 'conv2d', 'x', '[N, H, W, Ci]', x);
  const [images, height, width, channels] = x.shape;
  const fits = weight.rank === 4 && weight.shape[2] * groups === channels && weight.shape[3] % groups === 0;
  expectShape(fits, 'conv2d', 'weight', `[kh, kw, ${channels / groups}, a multiple of ${groups}]`, weight);
  const [kh, kw, , columns] = weight.shape;
  for (const [name, tensor] of [
    ['bias', bias],
    ['scale', scale],
  ] as const) {
    if (tensor) expectShape(tensor.rank === 1 && tensor.shape[0] === columns, 'conv2d', name, `[${columns}]`, tensor);
  }
  const shape = [images, convOutputSize(height, kh, geometry), convOutputSize(width, kw, geometry), columns];
  const least = `an image that a ${kh}×${kw} kernel fits into`;
  expectShape(kh > 0 && kw > 0 && shape[1] > 0 && shape[2] > 0, 'conv2d', 'x', least, x);
  if (residual) {
    const like = residual.rank === 4 && residual.shape.every((extent, i) => extent === shape[i]);
    expectShape(like, 'conv2d', 'residual', `[${shape.join(', ')}]`, residual);
  }
  return shape;
}

const operator = defineOperator<Conv2dInputs, Conv2dParams>({
  name: 'conv2d',
  halves: ['x', 'residual'],
  forward(inputs, params, needs) {
    const { x, weight, bias, scale, residual } = inputs;
    const { groups = 1, relu = false } = params;
    const y = x.device.empty(outputShape(inputs, params), x.dtype);
    const epilogue = { bias, scale, residual, relu };
    if (groups > 1) groupedForward(x, weight, y, { ...geometryOf(params), groups }, epilogue);
    else {
      const [kh, kw, depth, columns] = weight.shape;
      convForward(
        x,
        { tensor: weight, taps: kh * kw, depth, columns },
        [kh, kw],
        y,
        { ...geometryOf(params), zeroChannels: params.zeroChannels },
        epilogue,
      );
    }
    const saved = {
      x: needs.weight ? x : undefined,
      weight: needs.x ? weight : undefined,
      scale: needs.x || needs.weight ? scale : undefined,
      y: relu ? y : undefined,
    };
    return { output: y, saved };
  },
  backward({ params, shapes, saved: { x, weight, scale, y }, upstream, needs }) {
    const { groups = 1 } = params;
    const geometry = geometryOf(params);
    const [kh, kw, depth, columns] = shapes.weight;
    const { g, bias } = biasedUpstream(upstream, y, columns, needs.bias);
    const { device } = g;
    return {
      x: (into) => {
        const dx = into ?? device.empty(shapes.x, g.dtype);
        const accumulate = into !== undefined;
        if (groups > 1) {
          groupedInputGradient(g, weight, dx, { ...geometry, groups }, { scale, accumulate });
          return dx;
        }
        const transposed = { flip: true, scale };
        const weights = { tensor: weight, taps: kh * kw, depth: columns, columns: depth, transposed };
        convInputGradient(g, weights, [kh, kw], dx, geometry, { accumulate });
        return dx;
      },
      weight: (into) => {
        const dw = into ?? device.empty(shapes.weight);
        const accumulate = into !== undefined;
        if (groups > 1) groupedWeightGradient(x, g, dw, { ...geometry, groups }, { scale, accumulate });
        else convWeightGradient(x, g, dw, geometry, { scale, accumulate });
        return dw;
      },
      bias,
      residual: () => g.view(g.shape),
    };
  },
  examples: [
    // Pre-activations of the fused ReLU keep away from 0: the bias is larger than the sum of |x · w| can come to.
    {
      inputs: {
        x: { shape: [2, 5, 6, 4], range: [-0.3, 0.3] },
        weight: { shape: [3, 3, 4, 8], range: [-0.2, 0.2] },
        bias: { shape: [8], values: [3, -3, 3, 3, -3, 3, -3, 3] },
        scale: undefined,
        residual: undefined,
      },
      params: { padding: 1, relu: true },
    },
    {
      inputs: {
        x: { shape: [2, 7, 6, 5] },
        weight: { shape: [3, 3, 5, 3] },
        bias: { shape: [3] },
        scale: undefined,
        residual: undefined,
      },
      params: { stride: 2, padding: 1 },
    },
    {
      inputs: {
        x: { shape: [1, 11, 9, 3] },
        weight: { shape: [7, 7, 3, 4] },
        bias: undefined,
        scale: undefined,
        residual: undefined,
      },
      params: { stride: 2, padding: 3 },
    },
    {
      inputs: {
        x: { shape: [2, 3, 4, 8] },
        weight: { shape: [1, 1, 8, 7] },
        bias: undefined,
        scale: undefined,
        residual: undefined,
      },
      params: {},
    },
    {
      inputs: {
        x: { shape: [1, 5, 5, 4] },
        weight: { shape: [1, 1, 4, 4] },
        bias: undefined,
        scale: undefined,
        residual: undefined,
      },
      params: { stride: 2 },
    },
    {
      inputs: {
        x: { shape: [1, 8, 7, 4] },
        weight: { shape: [3, 2, 4, 4] },
        bias: { shape: [4] },
        scale: undefined,
        residual: undefined,
      },
      params: { dilation: 2, padding: 2 },
    },
    {
      inputs: {
        x: { shape: [2, 5, 4, 6] },
        weight: { shape: [3, 3, 3, 4] },
        bias: { shape: [4] },
        scale: { shape: [4], differentiable: false },
        residual: undefined,
      },
      params: { groups: 2, padding: 1, stride: 2 },
    },
    {
      inputs: {
        x: { shape: [2, 4, 5, 4] },
        weight: { shape: [3, 3, 4, 4] },
        bias: { shape: [4] },
        scale: { shape: [4], differentiable: false },
        residual: { shape: [2, 4, 5, 4] },
      },
      params: { padding: 1 },
    },
  ],
});

/**
 * relu?(conv(x, weight) · scale + bias + residual): a 2-d convolution (cross-correlation, zero padding) with everything that follows it in a
 * residual network fused. Gradients for x, weight, bias and residual. Source: torch.nn.functional.conv2d.
 *
 * @param x [N, H, W, Ci]
 * @param weight [kh, kw, Ci / groups, Co]
 * @returns [N, OH, OW, Co], OH = floor((H + 2·padding - dilation·(kh - 1) - 1) / stride) + 1
 */
export function conv2d(x: Tensor, weight: Tensor, options: Conv2dOptions = {}): Tensor {
  const { bias, scale, residual, ...params } = options;
  return operator({ x, weight, bias, scale, residual }, params);
}
