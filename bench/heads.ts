import { Random } from '../src/data/random.ts';
import { convTranspose2d } from '../src/kernels/convTranspose2d.ts';
import { linear } from '../src/kernels/linear.ts';
import type { BenchGroup, Size } from './cases.ts';
import { ladderCases, noise } from './check.ts';
import { type RungName, rungsOf } from './rungs.ts';

const RUNGS: readonly RungName[] = ['naive', 'tile from buffers', 'tile from textures'];
/** Of long sums in other orders. */
const TOLERANCE = 1e-4;

/** A layer of the box head with its bias and ReLU: y[m, n] = max(0, Σ x[m, k] · w[k, n] + b[n]). */
function linearGroup(rows: number, depth: number, columns: number): BenchGroup {
  const group = `linear ${rows}×${depth}→${columns}, bias and ReLU`;
  return {
    table: 'Heads',
    name: group,
    variants: [...RUNGS, 'linear'],
    open(device) {
      const random = new Random(12);
      const [x, weight, bias] = [noise(rows * depth, random), noise(depth * columns, random), noise(columns, random)];
      const tensors = [device.tensor(x, [rows, depth]), device.tensor(weight, [depth, columns])] as const;
      const shift = device.tensor(bias, [columns]);
      return {
        cases: ladderCases({
          group,
          flops: 2 * rows * depth * columns,
          rungs: rungsOf(device, [...RUNGS, 'linear'], () => linear(...tensors, shift, { relu: true })),
          tolerance: TOLERANCE,
          expected(index) {
            const [row, column] = [Math.floor(index / columns), index % columns];
            let sum = bias[column];
            for (let k = 0; k < depth; k++) sum += x[row * depth + k] * weight[k * columns + column];
            return Math.max(sum, 0);
          },
        }),
      };
    },
  };
}

/** The mask head's transposed convolution of 2×2 and stride 2: each pixel becomes four, each by a product of its own. */
function transposedGroup(rois: number, side: number, channels: number): BenchGroup {
  const group = `convTranspose2d 2×2/2 ${channels}→${channels} @${rois}×${side}×${side}, bias and ReLU`;
  return {
    table: 'Heads',
    name: group,
    variants: [...RUNGS, 'convTranspose2d'],
    open(device) {
      const random = new Random(13);
      const x = noise(rois * side * side * channels, random);
      const weight = noise(4 * channels * channels, random);
      const bias = noise(channels, random);
      const maps = device.tensor(x, [rois, side, side, channels]);
      const kernel = device.tensor(weight, [2, 2, channels, channels]);
      const shift = device.tensor(bias, [channels]);
      return {
        cases: ladderCases({
          group,
          flops: 2 * x.length * 4 * channels,
          rungs: rungsOf(device, [...RUNGS, 'convTranspose2d'], () =>
            convTranspose2d(maps, kernel, shift, { stride: 2, relu: true }),
          ),
          tolerance: TOLERANCE,
          expected(index) {
            const co = index % channels;
            const column = Math.floor(index / channels) % (2 * side);
            const row = Math.floor(index / channels / (2 * side)) % (2 * side);
            const roi = Math.floor(index / channels / (2 * side) ** 2);
            const from = ((roi * side + (row >> 1)) * side + (column >> 1)) * channels;
            const tap = ((row & 1) * 2 + (column & 1)) * channels;
            let sum = bias[co];
            for (let ci = 0; ci < channels; ci++) sum += x[from + ci] * weight[(tap + ci) * channels + co];
            return Math.max(sum, 0);
          },
        }),
      };
    },
  };
}

/** Ladders of the heads' products: the first layer of the box head, the last but one of the mask head. */
export function headGroups(size: Size): BenchGroup[] {
  const full = size === 'full';
  return [linearGroup(full ? 512 : 64, 12_544, full ? 1024 : 256), transposedGroup(full ? 64 : 8, 14, 256)];
}
