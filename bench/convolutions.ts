import { Random } from '../src/data/random.ts';
import { conv2d } from '../src/kernels/conv2d.ts';
import { conv2dNaive, groupedInputGradient, groupedWeightGradient } from '../src/kernels/conv2dNaive.ts';
import { convOutputSize } from '../src/kernels/convolution.ts';
import type { Device } from '../src/tensor/device.ts';
import type { Tensor } from '../src/tensor/tensor.ts';
import { type BenchGroup, caseName, type Goal, type Size } from './cases.ts';
import { ladderCases, noise, places, relativeError } from './check.ts';
import type { Comparison, Values } from './comparison.ts';
import { gradientOf, gradientsOf } from './gradient.ts';
import type { ConvResult, ConvShape } from './peers/work.ts';
import { type RungName, rungsOf } from './rungs.ts';

export type { ConvShape } from './peers/work.ts';

interface ConvData {
  x: Float32Array;
  weight: Float32Array;
  upstream: Float32Array;
}

function geometryOf({ stride, padding }: ConvShape) {
  return { stride, padding, dilation: 1, groups: 1 };
}

export function outputSize(shape: ConvShape): [height: number, width: number] {
  const geometry = geometryOf(shape);
  return [convOutputSize(shape.height, shape.kernel, geometry), convOutputSize(shape.width, shape.kernel, geometry)];
}

/** Multiplications and additions of one direction, the zeros of the padding counted. */
export function convFlops(shape: ConvShape): number {
  const [oh, ow] = outputSize(shape);
  return 2 * shape.images * oh * ow * shape.out * shape.kernel ** 2 * shape.in;
}

/** `3×3/2 64→128 @32×44`, with the number of images where there are several. */
export function describeConv({ images, height, width, in: ci, out, kernel, stride }: ConvShape): string {
  const step = stride === 1 ? '' : `/${stride}`;
  return `${kernel}×${kernel}${step} ${ci}→${out} @${images === 1 ? '' : `${images}×`}${height}×${width}`;
}

/** y[image, oy, ox, co] = Σ x[image, oy·stride + kh - padding, …, ci] · w[kh, kw, ci, co] */
function forwardAt(shape: ConvShape, { x, weight }: ConvData, index: number): number {
  const [oh, ow] = outputSize(shape);
  const co = index % shape.out;
  const ox = Math.floor(index / shape.out) % ow;
  const oy = Math.floor(index / shape.out / ow) % oh;
  const image = Math.floor(index / shape.out / ow / oh);
  let sum = 0;
  for (let kh = 0; kh < shape.kernel; kh++) {
    for (let kw = 0; kw < shape.kernel; kw++) {
      const iy = oy * shape.stride + kh - shape.padding;
      const ix = ox * shape.stride + kw - shape.padding;
      if (iy < 0 || ix < 0 || iy >= shape.height || ix >= shape.width) continue;
      for (let ci = 0; ci < shape.in; ci++) {
        const value = x[((image * shape.height + iy) * shape.width + ix) * shape.in + ci];
        sum += value * weight[((kh * shape.kernel + kw) * shape.in + ci) * shape.out + co];
      }
    }
  }
  return sum;
}

/** dx[image, iy, ix, ci] = Σ g[image, oy, ox, co] · w[kh, kw, ci, co] over all (oy, kh) with oy·stride + kh - padding = iy */
function inputGradientAt(shape: ConvShape, { weight, upstream }: ConvData, index: number): number {
  const [oh, ow] = outputSize(shape);
  const ci = index % shape.in;
  const ix = Math.floor(index / shape.in) % shape.width;
  const iy = Math.floor(index / shape.in / shape.width) % shape.height;
  const image = Math.floor(index / shape.in / shape.width / shape.height);
  let sum = 0;
  for (let kh = 0; kh < shape.kernel; kh++) {
    for (let kw = 0; kw < shape.kernel; kw++) {
      const oy = (iy + shape.padding - kh) / shape.stride;
      const ox = (ix + shape.padding - kw) / shape.stride;
      if (!Number.isInteger(oy) || !Number.isInteger(ox) || oy < 0 || ox < 0 || oy >= oh || ox >= ow) continue;
      for (let co = 0; co < shape.out; co++) {
        const slope = upstream[((image * oh + oy) * ow + ox) * shape.out + co];
        sum += slope * weight[((kh * shape.kernel + kw) * shape.in + ci) * shape.out + co];
      }
    }
  }
  return sum;
}

/** dw[kh, kw, ci, co] = Σ x[image, oy·stride + kh - padding, …, ci] · g[image, oy, ox, co] over all positions */
function weightGradientAt(shape: ConvShape, { x, upstream }: ConvData, index: number): number {
  const [oh, ow] = outputSize(shape);
  const co = index % shape.out;
  const ci = Math.floor(index / shape.out) % shape.in;
  const kw = Math.floor(index / shape.out / shape.in) % shape.kernel;
  const kh = Math.floor(index / shape.out / shape.in / shape.kernel);
  let sum = 0;
  for (let image = 0; image < shape.images; image++) {
    for (let oy = 0; oy < oh; oy++) {
      const iy = oy * shape.stride + kh - shape.padding;
      if (iy < 0 || iy >= shape.height) continue;
      for (let ox = 0; ox < ow; ox++) {
        const ix = ox * shape.stride + kw - shape.padding;
        if (ix < 0 || ix >= shape.width) continue;
        const slope = upstream[((image * oh + oy) * ow + ox) * shape.out + co];
        sum += slope * x[((image * shape.height + iy) * shape.width + ix) * shape.in + ci];
      }
    }
  }
  return sum;
}

/** Rungs between the naive and the last. */
function rungNames(shape: ConvShape): RungName[] {
  return ['tile from buffers', 'tile from textures', ...(hasWinograd(shape) ? (['winograd'] as const) : [])];
}

/** Of long sums in other orders, and of Winograd's rounding. */
const TOLERANCE = 1e-4;

type Direction = 'forward' | 'input gradient' | 'weight gradient';

function allocate(
  device: Device,
  shape: ConvShape,
  channels = shape.in,
): { data: ConvData; tensors: Record<keyof ConvData, Tensor> } {
  const random = new Random(5);
  const shapes = {
    x: [shape.images, shape.height, shape.width, shape.in],
    weight: [shape.kernel, shape.kernel, shape.in, shape.out],
    upstream: [shape.images, ...outputSize(shape), shape.out],
  };
  const make = (key: keyof ConvData): Float32Array =>
    noise(
      shapes[key].reduce((size, extent) => size * extent, 1),
      random,
    );
  const data = { x: make('x'), weight: make('weight'), upstream: make('upstream') };
  // The padding of the device's layout holds zeros.
  if (channels < shape.in) {
    for (let i = 0; i < data.x.length; i++) if (i % shape.in >= channels) data.x[i] = 0;
  }
  const put = (key: keyof ConvData): Tensor => device.tensor(data[key], shapes[key]);
  return { data, tensors: { x: put('x'), weight: put('weight'), upstream: put('upstream') } };
}

/** Whether Winograd's algorithm can compute it. */
function hasWinograd({ kernel, stride, padding }: ConvShape): boolean {
  return kernel === 3 && stride === 1 && padding === 1;
}

/** One direction of a convolution: `naive` by its definition, the tile, Winograd's algorithm, `conv2d` as the model runs it. */
function direction(shape: ConvShape, which: Direction): BenchGroup {
  const group = `conv2d ${which} ${describeConv(shape)}`;
  return {
    table: `conv2d ${which}`,
    name: group,
    variants: ['naive', ...rungNames(shape), 'conv2d'],
    open(device) {
      const { data, tensors } = allocate(device, shape);
      const { x, weight, upstream } = tensors;
      const geometry = geometryOf(shape);
      const common = { group, flops: convFlops(shape) };
      if (which === 'forward') {
        const naive = () => conv2dNaive(x, weight, geometry);
        const rungs = { naive, ...rungsOf(device, [...rungNames(shape), 'conv2d'], () => conv2d(x, weight, geometry)) };
        const expected = (index: number) => forwardAt(shape, data, index);
        return { cases: ladderCases({ ...common, rungs, tolerance: TOLERANCE, expected }) };
      }
      const wrt = which === 'input gradient' ? 'x' : 'weight';
      const gradient = gradientOf('conv2d', { x, weight }, geometry, wrt, upstream);
      const naive = (): Tensor => {
        const out = device.empty(tensors[wrt].shape);
        if (wrt === 'x') groupedInputGradient(upstream, weight, out, geometry, {});
        else groupedWeightGradient(x, upstream, out, geometry, {});
        return out;
      };
      const at = wrt === 'x' ? inputGradientAt : weightGradientAt;
      return {
        cases: ladderCases({
          ...common,
          rungs: { naive, ...rungsOf(device, [...rungNames(shape), 'conv2d'], gradient) },
          tolerance: TOLERANCE,
          expected: (index) => at(shape, data, index),
        }),
      };
    },
  };
}

/** One element of each result, computed on the CPU in float64. */
const elementOf: Record<ConvResult, (shape: ConvShape, data: ConvData, index: number) => number> = {
  y: forwardAt,
  dx: inputGradientAt,
  dw: weightGradientAt,
};

const SAMPLES = 256;

/** How far a result is off at some places, by the largest value expected there. */
function sampledError(shape: ConvShape, data: ConvData, result: ConvResult, values: ArrayLike<number>): number {
  const where = places(values.length, SAMPLES);
  return relativeError(
    where.map((index) => values[index]),
    where.map((index) => elementOf[result](shape, data, index)),
  );
}

/** Whether an array has the size of a result. */
function fits(shape: ConvShape, result: ConvResult, length: number): boolean {
  const [oh, ow] = outputSize(shape);
  const sizes = {
    y: shape.images * oh * ow * shape.out,
    dx: shape.images * shape.height * shape.width * shape.in,
    dw: shape.kernel ** 2 * shape.in * shape.out,
  };
  return length === sizes[result];
}

/** The first `channels` of every `depth`. */
function firstChannels(values: Float32Array, depth: number, channels: number): Float32Array {
  const rows = values.length / depth;
  const out = new Float32Array(rows * channels);
  for (let row = 0; row < rows; row++) out.set(values.subarray(row * depth, row * depth + channels), row * channels);
  return out;
}

/** The data without the channels that only the device's layout has. */
function withoutPadding(shape: ConvShape, data: ConvData, channels: number): { shape: ConvShape; data: ConvData } {
  if (channels === shape.in) return { shape, data };
  const weight = new Float32Array(shape.kernel ** 2 * channels * shape.out);
  const [from, to] = [shape.in * shape.out, channels * shape.out];
  for (let tap = 0; tap < shape.kernel ** 2; tap++) {
    weight.set(data.weight.subarray(tap * from, tap * from + to), tap * to);
  }
  const x = firstChannels(data.x, shape.in, channels);
  return { shape: { ...shape, in: channels }, data: { ...data, x, weight } };
}

/** The same work for other engines, checked against the CPU. */
function convolutionComparison(shape: ConvShape, data: ConvData, results: readonly ConvResult[]): Comparison {
  const inputs: Record<keyof ConvData, Values> = {
    x: { shape: [shape.images, shape.height, shape.width, shape.in], data: data.x },
    weight: { shape: [shape.kernel, shape.kernel, shape.in, shape.out], data: data.weight },
    upstream: { shape: [shape.images, ...outputSize(shape), shape.out], data: data.upstream },
  };
  return {
    work: () => ({ op: 'conv2d', shape, results }),
    inputs,
    check(found) {
      const errors = results.map((result) => {
        const values = found[result]?.data ?? [];
        return fits(shape, result, values.length)
          ? sampledError(shape, data, result, values)
          : Number.POSITIVE_INFINITY;
      });
      return { error: Math.max(...errors), tolerance: TOLERANCE };
    },
    // It runs models forward alone.
    ...(results.join() !== 'y' && { without: ['onnxruntime-node', 'onnxruntime-web'] }),
  };
}

export interface ConvWork {
  table: string;
  name: string;
  shape: ConvShape;
  /** What is computed: the output, gradients, or both. */
  results: readonly ConvResult[];
  /** Channels of the input that are not padding of the device's layout; all by default. */
  channels?: number;
  uses?: number;
  goal?: Goal;
}

/**
 * Some results of one convolution by `conv2d`, as the model computes them; other engines may do the same.
 *
 * What was derived from operands before a run (copies in textures, packed and transformed weights) is kept in it as far as the model would
 * find it so. A forward pass alone is inference: its image is new, its weights are those of the image before, so what was made of them
 * holds. (Other engines likewise have their weights on the adapter in a layout of their choice before the clock starts; ONNX Runtime has
 * them as constants of its model.) With gradients it is a step of training, which has changed the weights as well: nothing is kept.
 */
export function convolutionWork({
  table,
  name,
  shape,
  results,
  channels = shape.in,
  uses,
  goal,
}: ConvWork): BenchGroup {
  const variant = 'conv2d';
  return {
    table,
    name,
    variants: [variant],
    uses,
    goal,
    open(device) {
      const { data, tensors } = allocate(device, shape, channels);
      const { x, weight, upstream } = tensors;
      const geometry = { ...geometryOf(shape), zeroChannels: shape.in - channels };
      const gradientNames = { dx: 'x', dw: 'weight' } as const;
      const wanted = results.filter((result) => result !== 'y');
      const by = wanted.map((result) => gradientNames[result]);
      const gradients = gradientsOf('conv2d', { x, weight }, geometry, by, upstream);
      const compute = (): Map<ConvResult, Tensor> => {
        if (wanted.length > 0) device.gpu.derived.clear();
        else device.gpu.derived.forget(x.buffer.contents);
        const found = new Map<ConvResult, Tensor>();
        if (results.includes('y')) found.set('y', conv2d(x, weight, geometry));
        if (wanted.length > 0) {
          for (const [i, gradient] of gradients().entries()) found.set(wanted[i], gradient);
        }
        return found;
      };
      const plain = withoutPadding(shape, data, channels);
      return {
        cases: [
          {
            group: name,
            variant,
            name: caseName(name, variant),
            flops: results.length * convFlops(plain.shape),
            run: () => void compute(),
            async check() {
              let error = 0;
              for (const [result, tensor] of compute()) {
                error = Math.max(error, sampledError(shape, data, result, await tensor.floats()));
              }
              return { error, tolerance: TOLERANCE };
            },
          },
        ],
        comparison: convolutionComparison(plain.shape, plain.data, results),
      };
    },
  };
}

/** Ladders of the three convolutions that stand for the model, in each direction. */
export function convolutionGroups(size: Size): BenchGroup[] {
  const full = size === 'full';
  const square = { images: 1, kernel: 3, stride: 1, padding: 1 };
  const shapes: ConvShape[] = [
    { ...square, height: full ? 64 : 32, width: full ? 64 : 32, in: 64, out: 64 },
    { images: 1, height: full ? 64 : 32, width: full ? 88 : 44, in: 256, out: 64, kernel: 1, stride: 1, padding: 0 },
    { ...square, height: full ? 64 : 16, width: full ? 88 : 22, in: 256, out: 256 },
  ];
  const directions: Direction[] = ['forward', 'input gradient', 'weight gradient'];
  return directions.flatMap((which) => shapes.map((shape) => direction(shape, which)));
}
