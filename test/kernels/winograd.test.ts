import { describe, expect, it } from 'vitest';
import { conv2d } from '../../src/kernels/conv2d.ts';
import { familyChoice, type KernelChoice, kernelChoice, setKernelChoice } from '../../src/kernels/kernelChoice.ts';
import type { Device } from '../../src/tensor/device.ts';
import { testDevice } from '../support/device.ts';
import { uniform } from '../support/random.ts';

const [HEIGHT, WIDTH, CHANNELS, OUT] = [18, 15, 64, 32];
const x = uniform(HEIGHT * WIDTH * CHANNELS, 1);
const weight = uniform(9 * CHANNELS * OUT, 2);
const upstream = uniform(HEIGHT * WIDTH * OUT, 3);

/** A convolution and its gradients for `upstream`. */
type Directions<T> = Record<'forward' | 'input gradient' | 'weight gradient', T>;

/** The sums themselves, in float64. */
function exact(): Directions<Float64Array> {
  const [y, dx, dw] = [upstream, x, weight].map(({ length }) => new Float64Array(length));
  for (let tap = 0; tap < 9; tap++) {
    for (let pixel = 0; pixel < HEIGHT * WIDTH; pixel++) {
      const [row, column] = [Math.floor(pixel / WIDTH) + Math.floor(tap / 3) - 1, (pixel % WIDTH) + (tap % 3) - 1];
      if (row < 0 || row >= HEIGHT || column < 0 || column >= WIDTH) continue;
      for (let ci = 0; ci < CHANNELS; ci++) {
        const from = (row * WIDTH + column) * CHANNELS + ci;
        for (let co = 0; co < OUT; co++) {
          const [to, at] = [pixel * OUT + co, (tap * CHANNELS + ci) * OUT + co];
          y[to] += x[from] * weight[at];
          dx[from] += upstream[to] * weight[at];
          dw[at] += upstream[to] * x[from];
        }
      }
    }
  }
  return { forward: y, 'input gradient': dx, 'weight gradient': dw };
}

async function computed(device: Device, choice: KernelChoice): Promise<Directions<Float32Array>> {
  const before = kernelChoice(device);
  setKernelChoice(device, choice);
  try {
    return await device.scope(async () => {
      const map = device.tensor(x, [1, HEIGHT, WIDTH, CHANNELS]);
      const kernels = device.tensor(weight, [3, 3, CHANNELS, OUT]);
      map.requiresGrad = true;
      kernels.requiresGrad = true;
      const y = conv2d(map, kernels, { padding: 1 });
      device.backward(y, device.tensor(upstream, y.shape));
      const gradients = [map.grad, kernels.grad].map((gradient) => {
        if (!gradient) throw new Error('A gradient is missing.');
        return gradient;
      });
      const [forward, dx, dw] = await Promise.all([y, ...gradients].map((tensor) => tensor.floats()));
      for (const gradient of gradients) gradient.dispose();
      return { forward, 'input gradient': dx, 'weight gradient': dw };
    });
  } finally {
    setKernelChoice(device, before);
  }
}

/** The length of all errors together, by that of the values. */
function relativeError(actual: Float32Array, expected: Float64Array): number {
  const length = (values: Float64Array) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
  return length(expected.map((value, i) => actual[i] - value)) / length(expected);
}

describe("Winograd's convolution", () => {
  it('rounds at most three times as coarsely as a plain sum of products', async () => {
    const device = await testDevice();
    const direct = await computed(device, { ...familyChoice(device, 'auto'), convolution: () => 'direct' });
    const winograd = await computed(device, familyChoice(device, 'winograd'));
    // Twice as coarsely is what it does. The points of interpolation decide this: by 0, ±1, ±2, ∞ it was four times.
    for (const [direction, values] of Object.entries(exact()) as [keyof Directions<unknown>, Float64Array][]) {
      const error = relativeError(winograd[direction], values);
      expect(error, direction).toBeLessThan(3 * relativeError(direct[direction], values));
      expect(error, direction).toBeGreaterThan(0);
    }
  });
});
