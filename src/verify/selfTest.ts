import { Random } from '../data/random.ts';
import { add } from '../kernels/arithmetic.ts';
import { conv2d } from '../kernels/conv2d.ts';
import { matmul } from '../kernels/matmul.ts';
import { sum } from '../kernels/reduce.ts';
import type { Device } from '../tensor/device.ts';

/** Error of one operator against the CPU, relative to the largest expected value. */
export interface SelfTest {
  name: string;
  error: number;
  tolerance: number;
}

function noise(count: number, random: Random): Float32Array {
  return Float32Array.from({ length: count }, () => random.next() * 2 - 1);
}

function relativeError(actual: Float32Array, expected: Float64Array): number {
  const scale = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const worst = expected.reduce((most, value, i) => {
    const error = Math.abs(value - actual[i]);
    return error <= most ? most : error;
  }, 0);
  return Number.isNaN(worst) ? Number.POSITIVE_INFINITY : worst / scale;
}

/** One matmul, one convolution and one reduction against plain loops in float64. */
export async function checkDevice(device: Device): Promise<SelfTest[]> {
  const random = new Random(7);
  return device.scope(async () => {
    const [m, k, n] = [67, 53, 45];
    const a = noise(m * k, random);
    const b = noise(k * n, random);
    const product = new Float64Array(m * n);
    for (let i = 0; i < m; i++) {
      for (let p = 0; p < k; p++) for (let j = 0; j < n; j++) product[i * n + j] += a[i * k + p] * b[p * n + j];
    }

    const [size, inChannels, outChannels] = [13, 6, 9];
    const image = noise(size * size * inChannels, random);
    const weight = noise(9 * inChannels * outChannels, random);
    const convolved = new Float64Array(size * size * outChannels);
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        for (let tap = 0; tap < 9; tap++) {
          const iy = y + Math.floor(tap / 3) - 1;
          const ix = x + (tap % 3) - 1;
          if (iy < 0 || ix < 0 || iy >= size || ix >= size) continue;
          for (let ci = 0; ci < inChannels; ci++) {
            const value = image[(iy * size + ix) * inChannels + ci];
            const row = (tap * inChannels + ci) * outChannels;
            for (let co = 0; co < outChannels; co++) {
              convolved[(y * size + x) * outChannels + co] += value * weight[row + co];
            }
          }
        }
      }
    }

    const long = noise(100_003, random);
    const total = Float64Array.of(long.reduce((whole, value) => whole + Math.abs(value), 0));

    const results = await Promise.all([
      matmul(device.tensor(a, [m, k]), device.tensor(b, [k, n])).floats(),
      conv2d(
        device.tensor(image, [1, size, size, inChannels]),
        device.tensor(weight, [3, 3, inChannels, outChannels]),
        {
          padding: 1,
        },
      ).floats(),
      sum(device.tensor(long.map(Math.abs), [long.length])).floats(),
    ]);
    return [
      { name: 'matmul 67×53×45', error: relativeError(results[0], product), tolerance: 1e-5 },
      { name: 'convolution 3×3, 6→9 channels', error: relativeError(results[1], convolved), tolerance: 1e-5 },
      { name: 'sum of 100,003 numbers', error: relativeError(results[2], total), tolerance: 1e-5 },
    ];
  });
}

/** What one matmul and one addition reach, best of some repeats after a warm-up. */
export async function measureDevice(
  device: Device,
): Promise<{ matmulSize: number; gflops: number; gigabytesPerSecond: number }> {
  const fastest = async (run: () => void): Promise<number> => {
    let best = Number.POSITIVE_INFINITY;
    for (let repeat = 0; repeat < 4; repeat++) {
      const start = performance.now();
      device.scope(run);
      await device.gpu.sync();
      // The first compiles.
      if (repeat > 0) best = Math.min(best, (performance.now() - start) / 1000);
    }
    return best;
  };
  return device.scope(async () => {
    const matmulSize = 512;
    const a = device.full([matmulSize, matmulSize], 1);
    const b = device.full([matmulSize, matmulSize], 1);
    const long = device.full([4 * 1024 * 1024], 1);
    const multiply = await fastest(() => void matmul(a, b));
    const addition = await fastest(() => void add(long, long));
    return {
      matmulSize,
      gflops: (2 * matmulSize ** 3) / multiply / 1e9,
      gigabytesPerSecond: (3 * long.size * 4) / addition / 1e9,
    };
  });
}
