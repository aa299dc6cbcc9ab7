import type { Tensor } from '../tensor/tensor.ts';
import { kernelChoice } from './kernelChoice.ts';
import type { Weights } from './operands.ts';
import { columnProduct, type Epilogue, rowProduct, type Window } from './tileProduct.ts';
import { winogradCan, winogradConvolution, winogradWeightGradients } from './winograd.ts';

/*
 * The three directions of a convolution (without groups), as products on the tile. With stride s, padding p and dilation d:
 *   forward          y[o] = Σ_k x[o·s + k·d - p] · w[k]
 *   weight gradient  dw[k] = Σ_o x[o·s + k·d - p] ⊗ g[o]
 *   input gradient   dx[i] = Σ_k g[(i + p - k·d) / s] · w[k]ᵀ over the k for which s divides i + p - k·d
 * (shown for one dimension). Which k those are depends only on i mod s, so the input gradient is s × s products, one per phase, each
 * a convolution of g with stride 1 and with every (s / gcd(s, d))-th tap of the kernel turned round.
 */

export interface ConvGeometry {
  stride: number;
  padding: number;
  dilation: number;
}

/** Outputs along one dimension; 0 or less where the kernel does not fit. */
export function convOutputSize(size: number, kernel: number, { stride, padding, dilation }: ConvGeometry): number {
  return Math.floor((size + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1;
}

function windowOf(out: Tensor, kernel: Kernel, { stride, padding, dilation }: ConvGeometry): Window {
  const [, outHeight, outWidth] = out.shape;
  return {
    outHeight,
    outWidth,
    stride,
    padTop: padding,
    padLeft: padding,
    dilation,
    tapsDown: kernel[0],
    tapsAcross: kernel[1],
  };
}

function extentOf({ shape: [images, height, width, channels] }: Tensor) {
  return { images, height, width, channels };
}

/** Sizes of a kernel. */
export type Kernel = readonly [height: number, width: number];

/** Whether Winograd's algorithm computes a convolution from x to y (or a gradient of it): if it can, and if the choice for this adapter says so. */
function takesWinograd(
  direction: 'forward' | 'inputGradient' | 'weightGradient',
  x: Tensor,
  y: Tensor,
  [kh, kw]: Kernel,
  { stride, padding, dilation }: ConvGeometry,
): boolean {
  if (kh !== 3 || kw !== 3 || stride !== 1 || padding !== 1 || dilation !== 1 || !winogradCan(x, y)) return false;
  const { images, height, width, channels } = extentOf(x);
  const problem = { direction, images, height, width, channels, outChannels: y.shape[3] };
  return kernelChoice(x.device).convolution(problem) === 'winograd';
}

/** out [N, OH, OW, Co] = the convolution of x [N, H, W, Ci] by weights [kh · kw, Ci, Co]. */
export function convForward(
  x: Tensor,
  weights: Weights,
  kernel: Kernel,
  out: Tensor,
  geometry: ConvGeometry & { zeroChannels?: number },
  epilogue: Epilogue,
): void {
  if (takesWinograd('forward', x, out, kernel, geometry)) {
    winogradConvolution(x, weights, out, epilogue);
    return;
  }
  const shape = { image: extentOf(x), window: windowOf(out, kernel, geometry), columns: weights.columns };
  rowProduct(x, weights, out, { ...shape, zeroChannels: geometry.zeroChannels }, epilogue);
}

/** out [kh, kw, Ci, Co] = the weight gradient for input x [N, H, W, Ci] and upstream g [N, OH, OW, Co]. */
export function convWeightGradient(
  x: Tensor,
  g: Tensor,
  out: Tensor,
  geometry: ConvGeometry,
  epilogue: Pick<Epilogue, 'scale' | 'accumulate'>,
): void {
  const [kh, kw] = out.shape;
  if (takesWinograd('weightGradient', x, g, [kh, kw], geometry)) {
    winogradWeightGradients(x, g, out, epilogue);
    return;
  }
  const shape = { image: extentOf(x), window: windowOf(g, [kh, kw], geometry), columns: g.shape[3] };
  columnProduct(x, g, out, shape, epilogue);
}

/** One dimension of a phase: which of `kernel` taps meet inputs i ≡ phase (mod stride), and where they lie in g. */
function phaseTaps(phase: number, kernel: number, { stride, padding, dilation }: ConvGeometry) {
  const hits = Array.from({ length: kernel }, (_, k) => k).filter(
    (k) => (phase + padding - k * dilation) % stride === 0,
  );
  if (hits.length === 0) return { taps: 0, step: 1, last: 0, pad: 0, dilation: 1 };
  const step = hits.length > 1 ? hits[1] - hits[0] : 1;
  const last = hits[hits.length - 1];
  // From the last tap to the first, g is met at ever higher places: i' + (phase + padding - last·dilation) / stride at first.
  const pad = -(phase + padding - last * dilation) / stride;
  return { taps: hits.length, step, last, pad, dilation: hits.length > 1 ? (step * dilation) / stride : 1 };
}

/**
 * out [N, H, W, Ci] = the input gradient for upstream g [N, OH, OW, Co], which is also a transposed convolution of g.
 * @param weights [kh · kw, Co, Ci], the taps turned round (last first) if they are transposed with `flip`, which lets neighbouring taps join.
 */
export function convInputGradient(
  g: Tensor,
  weights: Weights,
  [kh, kw]: Kernel,
  out: Tensor,
  geometry: ConvGeometry,
  epilogue: Epilogue,
): void {
  const flipped = weights.transposed?.flip === true;
  if (flipped && takesWinograd('inputGradient', out, g, [kh, kw], geometry)) {
    winogradConvolution(g, weights, out, epilogue);
    return;
  }
  const { columns } = weights;
  const [, height, width] = out.shape;
  const { stride } = geometry;
  for (let top = 0; top < Math.min(stride, height); top++) {
    const down = phaseTaps(top, kh, geometry);
    for (let left = 0; left < Math.min(stride, width); left++) {
      const across = phaseTaps(left, kw, geometry);
      const direction = flipped ? 1 : -1;
      const first = flipped ? (kh - 1 - down.last) * kw + kw - 1 - across.last : down.last * kw + across.last;
      const window: Window = {
        outHeight: Math.ceil((height - top) / stride),
        outWidth: Math.ceil((width - left) / stride),
        stride: 1,
        padTop: down.pad,
        padLeft: across.pad,
        dilation: down.taps > 1 ? down.dilation : across.dilation,
        tapsDown: down.taps,
        tapsAcross: across.taps,
      };
      const places = { first, stepDown: direction * down.step * kw, stepAcross: direction * across.step };
      const target = { height, width, step: stride, top, left };
      rowProduct(g, weights, out, { image: extentOf(g), window, columns, places, target }, epilogue);
    }
  }
}
