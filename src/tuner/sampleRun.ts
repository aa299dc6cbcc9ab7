import { Random } from '../data/random.ts';
import { type ConvGeometry, convForward, convInputGradient, convWeightGradient } from '../kernels/convolution.ts';
import type { Device } from '../tensor/device.ts';
import { decodeHalves, encodeHalves } from '../tensor/halves.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { Sample } from './shapeClasses.ts';

/*
 * A sample computed on the device, and the sums in float64 on the CPU that its result is held against. Every element is checked at the price of one
 * channel: with fixed random weights r, Σ_n y[m, n] · r[n] must be the convolution by Σ_n w[k, n] · r[n] (after Freivalds 1977), and a wrong
 * element anywhere in row m changes its sum.
 */

type Sizes = Pick<Sample, 'images' | 'height' | 'width' | 'channels' | 'outChannels' | 'kernel'>;

/** Adds `x`·`w` to `y`, or the products that make a gradient, over all positions, taps and channels. */
function eachProduct(
  { images, height, width, channels, outChannels, kernel }: Sizes,
  visit: (x: number, w: number, y: number) => void,
): void {
  const pad = (kernel - 1) / 2;
  for (let position = 0; position < images * height * width; position++) {
    const line = Math.floor(position / width);
    const [top, left] = [(line % height) - pad, (position % width) - pad];
    for (let tap = 0; tap < kernel * kernel; tap++) {
      const [row, column] = [top + Math.floor(tap / kernel), left + (tap % kernel)];
      if (row < 0 || row >= height || column < 0 || column >= width) continue;
      const x = ((line - (line % height) + row) * width + column) * channels;
      for (let ci = 0; ci < channels; ci++) {
        for (let co = 0; co < outChannels; co++) {
          visit(x + ci, (tap * channels + ci) * outChannels + co, position * outChannels + co);
        }
      }
    }
  }
}

/** A prime length, so that its repeats fall on other rows and columns each time. */
const BLOCK = 65_537;
let block: Float32Array | null = null;

/** Numbers in -1 … 1, another part of one random sequence for each seed. */
function noise(count: number, seed: number): Float32Array {
  if (!block) {
    const random = new Random(7);
    block = Float32Array.from({ length: BLOCK }, () => random.next() * 2 - 1);
  }
  const values = new Float32Array(count);
  let at = (seed * 10_007) % BLOCK;
  for (let done = 0; done < count; ) {
    const part = block.subarray(at, at + count - done);
    values.set(part, done);
    done += part.length;
    at = 0;
  }
  return values;
}

/** Sums of rows of `columns` elements, each times its column's weight. */
function contracted(values: ArrayLike<number>, weights: Float64Array): Float64Array {
  const columns = weights.length;
  const sums = new Float64Array(values.length / columns);
  for (let row = 0; row < sums.length; row++) {
    let sum = 0;
    for (let n = 0; n < columns; n++) sum += values[row * columns + n] * weights[n];
    sums[row] = sum;
  }
  return sums;
}

const GEOMETRY: Record<Sample['kernel'], ConvGeometry> = {
  1: { stride: 1, padding: 0, dilation: 1 },
  3: { stride: 1, padding: 1, dilation: 1 },
};

/** A sample whose operands lie on a device. Its tensors belong to the scope that it is made in. */
export class SampleRun {
  readonly #device: Device;
  readonly #sample: Sample;
  readonly #host: { x: Float32Array; w: Float32Array; y: Float32Array };
  readonly #x: Tensor;
  readonly #w: Tensor;
  readonly #y: Tensor;
  readonly #out: Tensor;
  #expected: Float64Array | null = null;

  constructor(device: Device, sample: Sample) {
    const { images, height, width, channels, outChannels, kernel } = sample;
    this.#device = device;
    this.#sample = sample;
    const shapes = {
      x: [images, height, width, channels],
      w: [kernel, kernel, channels, outChannels],
      y: [images, height, width, outChannels],
    };
    const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b);
    const empty = new Float32Array(0);
    // Weights are float32, but they are rounded where they meet maps of float16.
    const values = (count: number, seed: number): Float32Array => {
      const exact = noise(count, seed);
      if (sample.halves) decodeHalves(new Uint8Array(encodeHalves(exact).buffer), exact);
      return exact;
    };
    // What is computed needs no values; its gradient's upstream does.
    this.#host = {
      x: sample.direction === 'inputGradient' ? empty : values(size(shapes.x), 1),
      w: sample.direction === 'weightGradient' ? empty : values(size(shapes.w), 2),
      y: sample.direction === 'forward' ? empty : values(size(shapes.y), 3),
    };
    const tensor = (name: 'x' | 'w' | 'y'): Tensor => {
      const dtype = sample.halves && name !== 'w' ? 'f16' : 'f32';
      const host = this.#host[name];
      return host.length > 0 ? device.tensor(host, shapes[name], dtype) : device.empty(shapes[name], dtype);
    };
    this.#x = tensor('x');
    this.#w = tensor('w');
    this.#y = tensor('y');
    this.#out = { forward: this.#y, inputGradient: this.#x, weightGradient: this.#w }[sample.direction];
  }

  /** Appends the computation, from operands as a step of training has them: nothing is prepared. */
  run(): void {
    const { direction, channels, outChannels, kernel } = this.#sample;
    const geometry = GEOMETRY[kernel];
    this.#device.gpu.derived.clear();
    if (direction === 'weightGradient') {
      convWeightGradient(this.#x, this.#y, this.#w, geometry, {});
      return;
    }
    const taps = kernel * kernel;
    if (direction === 'forward') {
      const weights = { tensor: this.#w, taps, depth: channels, columns: outChannels };
      convForward(this.#x, weights, [kernel, kernel], this.#y, geometry, {});
      return;
    }
    const weights = { tensor: this.#w, taps, depth: outChannels, columns: channels, transposed: { flip: true } };
    convInputGradient(this.#y, weights, [kernel, kernel], this.#x, geometry, {});
  }

  /** Spoils what was computed, so that a kernel that writes nothing is seen. */
  spoil(): void {
    this.#device.gpu.write(this.#out.buffer, new Float32Array(Math.ceil(this.#out.bytes / 4)).fill(Number.NaN));
  }

  /**
   * Computes once and compares with the CPU.
   * @returns the largest difference over the largest expected sum; infinite where a result is no number
   */
  async error(): Promise<number> {
    this.spoil();
    this.run();
    const columns = this.#out.shape[3];
    const weights = Float64Array.from(noise(columns, 4), (value) => 1 + value / 2);
    this.#expected ??= this.#expect(weights);
    const found = contracted(await this.#out.floats(), weights);
    let [worst, scale] = [0, 0];
    for (const [i, value] of this.#expected.entries()) {
      scale = Math.max(scale, Math.abs(value));
      const error = Math.abs(found[i] - value);
      if (!(error <= worst)) worst = Number.isNaN(error) ? Number.POSITIVE_INFINITY : error;
    }
    return worst / scale;
  }

  #expect(weights: Float64Array): Float64Array {
    const { direction, images, height, width, channels, outChannels, kernel } = this.#sample;
    const sizes = { images, height, width, channels, outChannels, kernel };
    const { x, w, y } = this.#host;
    if (direction === 'forward') {
      const sums = new Float64Array(images * height * width);
      const kernels = contracted(w, weights);
      eachProduct({ ...sizes, outChannels: 1 }, (i, k, o) => {
        sums[o] += x[i] * kernels[k];
      });
      return sums;
    }
    if (direction === 'weightGradient') {
      const sums = new Float64Array(kernel * kernel * channels);
      const upstream = contracted(y, weights);
      eachProduct({ ...sizes, outChannels: 1 }, (i, k, o) => {
        sums[k] += x[i] * upstream[o];
      });
      return sums;
    }
    const sums = new Float64Array(images * height * width);
    // Σ_ci w[k, ci, co] · r[ci]: of each tap a row of outChannels.
    const kernels = new Float64Array(kernel * kernel * outChannels);
    for (const [i, value] of w.entries()) {
      const row = Math.floor(i / outChannels);
      kernels[Math.floor(row / channels) * outChannels + (i % outChannels)] += value * weights[row % channels];
    }
    eachProduct({ ...sizes, channels: 1 }, (i, k, o) => {
      sums[i] += y[o] * kernels[k];
    });
    return sums;
  }
}
