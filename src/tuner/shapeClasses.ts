import type { ConvolutionProblem, ProductProblem } from '../kernels/kernelChoice.ts';

/*
 * Work is put into few classes, and one choice is made for each: enough to tell apart what the best kernel depends on, few enough to be
 * measured in seconds. How long the sums are is no such thing: each kernel's time goes by it alike.
 *   row      A·B, forward and input gradient:  columns narrow (32 at most, where wide tiles would idle) or wide,
 *            C small (under 2¹⁸ elements, 64 tiles of 64 × 64: too few to fill a large GPU with the largest tiles) or large
 *   column   Aᵀ·B, weight gradient:            the same, but the narrow ones, which are few, are one class
 *   3 × 3    Winograd or direct:               along the data (forward, input gradient) or to the weights, by the smaller of both channels
 *            (under 48, under 96, more) and by few (under 64) or many tiles of 4 × 4 outputs
 */

export const productClasses = [
  'row wide large',
  'column wide large',
  'row wide small',
  'column wide small',
  'row narrow large',
  'row narrow small',
  'column narrow',
] as const;
export type ProductClass = (typeof productClasses)[number];

export const convolutionClasses = [
  '3×3 data wide many',
  '3×3 weights wide many',
  '3×3 data medium many',
  '3×3 weights medium many',
  '3×3 data narrow many',
  '3×3 weights narrow many',
  '3×3 data wide few',
  '3×3 weights wide few',
  '3×3 data medium few',
  '3×3 weights medium few',
  '3×3 data narrow few',
  '3×3 weights narrow few',
] as const;
export type ConvolutionClass = (typeof convolutionClasses)[number];

const NARROW_COLUMNS = 32;
const LARGE_OUTPUT = 2 ** 18;
const MANY_TILES = 64;

/** The class whose choice a product takes. */
export function productClass({ direction, rows, columns }: ProductProblem): ProductClass {
  const size = rows * columns < LARGE_OUTPUT ? 'small' : 'large';
  if (columns > NARROW_COLUMNS) return `${direction} wide ${size}`;
  return direction === 'row' ? `row narrow ${size}` : 'column narrow';
}

/** The class whose choice a convolution takes. */
export function convolutionClass(problem: ConvolutionProblem): ConvolutionClass {
  const { direction, images, height, width } = problem;
  const channels = Math.min(problem.channels, problem.outChannels);
  const side = direction === 'weightGradient' ? 'weights' : 'data';
  const breadth = channels < 48 ? 'narrow' : channels < 96 ? 'medium' : 'wide';
  const tiles = images * Math.ceil(height / 4) * Math.ceil(width / 4);
  return `3×3 ${side} ${breadth} ${tiles < MANY_TILES ? 'few' : 'many'}`;
}

/**
 * A convolution with stride 1 and zero padding that keeps the size, by a kernel of 1 × 1 or 3 × 3. One of 1 × 1 is a product: forward
 * [height · width, channels] · [channels, outChannels], the weight gradient [channels, height · width] · [height · width, outChannels].
 */
export interface Sample extends ConvolutionProblem {
  kernel: 1 | 3;
  /** Whether maps and their gradients are float16. */
  halves?: boolean;
}

const product = (direction: Sample['direction'], width: number, channels: number, outChannels: number): Sample => ({
  direction,
  images: 1,
  height: 1,
  width,
  channels,
  outChannels,
  kernel: 1,
});

/**
 * What a class of products is measured on. Real GPUs are given more: a time must outlast the launch of a kernel, and a large product must
 * fill the device.
 */
export function productSample(name: ProductClass, realGpu: boolean): Sample {
  switch (name) {
    case 'row wide large':
      return realGpu ? product('forward', 16384, 512, 256) : product('forward', 2048, 256, 128);
    case 'row wide small':
      return realGpu ? product('forward', 1024, 1024, 128) : product('forward', 512, 256, 128);
    case 'row narrow large':
      return realGpu ? product('forward', 65536, 512, 16) : product('forward', 16384, 128, 16);
    case 'row narrow small':
      return realGpu ? product('forward', 8192, 512, 16) : product('forward', 2048, 128, 16);
    case 'column wide large':
      return realGpu ? product('weightGradient', 8192, 2304, 256) : product('weightGradient', 256, 1152, 256);
    case 'column wide small':
      return realGpu ? product('weightGradient', 32768, 576, 64) : product('weightGradient', 1024, 576, 64);
    case 'column narrow':
      return realGpu ? product('weightGradient', 65536, 288, 16) : product('weightGradient', 4096, 288, 16);
  }
}

/** What a class of convolutions is measured on. */
export function convolutionSample(name: ConvolutionClass, realGpu: boolean): Sample {
  const [, side, breadth, amount] = name.split(' ');
  const channels = breadth === 'narrow' ? 32 : breadth === 'medium' ? 64 : realGpu ? 256 : 128;
  const [height, width] = amount === 'few' ? [20, 24] : realGpu ? [64, 88] : [32, 44];
  const direction = side === 'data' ? 'forward' : 'weightGradient';
  return { direction, images: 1, height, width, channels, outChannels: channels, kernel: 3 };
}

/** A sample in words. */
export function sampleName(sample: Sample): string {
  const { direction, images, height, width, channels, outChannels, kernel } = sample;
  const ofHalves = sample.halves ? ' of float16' : '';
  if (kernel === 1) {
    const [rows, depth] = direction === 'weightGradient' ? [channels, width] : [width, channels];
    return `${direction === 'weightGradient' ? 'Aᵀ·B' : 'A·B'} ${rows}×${depth}×${outChannels}${ofHalves}`;
  }
  const what = { forward: '', inputGradient: ' to the input', weightGradient: ' to the weights' }[direction];
  return `3×3${what} ${images}×${height}×${width}, ${channels}→${outChannels} channels${ofHalves}`;
}
