import { Random } from '../src/data/random.ts';
import { multiScaleRoiAlign } from '../src/kernels/multiScaleRoiAlign.ts';
import { roiAlign } from '../src/kernels/roiAlign.ts';
import type { Device } from '../src/tensor/device.ts';
import type { Tensor } from '../src/tensor/tensor.ts';
import { type BenchCase, type BenchGroup, caseName } from './cases.ts';
import { noise, places, relativeError } from './check.ts';
import { binCells } from './detection.ts';
import { gradientOf, gradientsOf } from './gradient.ts';

/** The pyramid of a 256×352 image as the box head sees it, and how many RoIs of which sides (pixels) fall to each level. */
const LEVELS = [
  { height: 64, width: 88, scale: 1 / 4, rois: 128, sides: [20, 105] },
  { height: 32, width: 44, scale: 1 / 8, rois: 80, sides: [120, 220] },
  { height: 16, width: 22, scale: 1 / 16, rois: 40, sides: [230, 320] },
  { height: 8, width: 11, scale: 1 / 32, rois: 8, sides: [450, 600] },
] as const;
const SAMPLES = 2;
const COUNT = LEVELS.reduce((sum, { rois }) => sum + rois, 0);
/** Of sums in float32 at places in float32. */
const TOLERANCE = 1e-3;

const titles = { forward: 'multiScaleRoiAlign', gradient: 'multiScaleRoiAlign gradient' } as const;

function describe(bins: number, channels: number): string {
  return `${COUNT} RoIs ${bins}×${bins} from ${LEVELS.length} levels, ${channels} channels`;
}

function inputsOf(device: Device, bins: number, channels: number) {
  const random = new Random(14);
  const maps = LEVELS.map(({ height, width }) => noise(height * width * channels, random));
  // In the order of their levels, so that what is pooled level by level lies as the whole does.
  const boxes = LEVELS.map(({ rois, sides: [least, most] }) =>
    Float32Array.from({ length: rois }).reduce<number[]>((all) => {
      const side = () => least + random.next() * (most - least);
      const [w, h] = [side(), side()];
      const [x, y] = [random.next() * 352 - w / 2, random.next() * 256 - h / 2];
      all.push(0, x, y, x + w, y + h);
      return all;
    }, []),
  );
  const slopes = noise(COUNT * bins * bins * channels, random);
  const first = LEVELS.map((_, level) => LEVELS.slice(0, level).reduce((sum, { rois }) => sum + rois, 0));
  const size = bins * bins * channels;
  return {
    maps,
    boxes: boxes.map((values) => Float32Array.from(values)),
    slopes,
    first,
    features: maps.map((map, i) => device.tensor(map, [1, LEVELS[i].height, LEVELS[i].width, channels])),
    rois: device.tensor(Float32Array.from(boxes.flat()), [COUNT, 5]),
    levelRois: boxes.map((values) => device.tensor(Float32Array.from(values), [values.length / 5, 5])),
    upstream: device.tensor(slopes, [COUNT, bins, bins, channels]),
    levelUpstreams: LEVELS.map(({ rois }, i) =>
      device.tensor(slopes.subarray(first[i] * size, (first[i] + rois) * size), [rois, bins, bins, channels]),
    ),
  };
}

type Data = ReturnType<typeof inputsOf>;

/** Mean of a bin, computed on the CPU. */
function pooledAt({ maps, boxes, first }: Data, bins: number, channels: number, index: number): number {
  const c = index % channels;
  const bin = Math.floor(index / channels);
  const roi = Math.floor(bin / bins / bins);
  const level = first.findLastIndex((start) => start <= roi);
  const { height, width, scale } = LEVELS[level];
  const at = (roi - first[level]) * 5 + 1;
  const box = boxes[level].subarray(at, at + 4);
  let sum = 0;
  for (const [row, column, share] of binCells(
    box,
    { bins, height, width, scale },
    Math.floor(bin / bins) % bins,
    bin % bins,
  )) {
    sum += share * maps[level][(row * width + column) * channels + c];
  }
  return sum;
}

/** The gradient by each level's map, scattered on the CPU. */
function scattered({ boxes, slopes, first }: Data, bins: number, channels: number): Float64Array[] {
  return LEVELS.map(({ height, width, scale, rois }, level) => {
    const gradient = new Float64Array(height * width * channels);
    for (let bin = 0; bin < rois * bins * bins; bin++) {
      const roi = Math.floor(bin / bins / bins);
      const box = boxes[level].subarray(roi * 5 + 1, roi * 5 + 5);
      const from = (first[level] * bins * bins + bin) * channels;
      for (const [row, column, share] of binCells(
        box,
        { bins, height, width, scale },
        Math.floor(bin / bins) % bins,
        bin % bins,
      )) {
        const cell = (row * width + column) * channels;
        for (let c = 0; c < channels; c++) gradient[cell + c] += share * slopes[from + c];
      }
    }
    return gradient;
  });
}

async function joined(tensors: readonly Tensor[]): Promise<number[]> {
  const parts: Float32Array[] = [];
  for (const tensor of tensors) parts.push(await tensor.floats());
  return parts.flatMap((part) => Array.from(part));
}

/** ROIAlign of each level by itself, which needs the RoIs sorted and joined again by somebody else, and all levels in one. */
function group(direction: keyof typeof titles, bins: number, channels: number): BenchGroup {
  const name = `${titles[direction]} ${describe(bins, channels)}`;
  const variants = ['level by level', 'multiScaleRoiAlign'];
  return {
    table: 'ROIAlign',
    name,
    variants,
    open(device) {
      const data = inputsOf(device, bins, channels);
      const { features, rois, levelRois, upstream, levelUpstreams } = data;
      const common = { outputSize: bins, samplingRatio: SAMPLES };
      const whole = { ...common, scales: LEVELS.map(({ scale }) => scale), canonicalScale: 224, canonicalLevel: 4 };
      const of = (level: number) => ({ ...common, spatialScale: LEVELS[level].scale });
      const [f0, f1, f2, f3] = features;
      const rungs: Record<keyof typeof titles, () => (() => Tensor[])[]> = {
        forward: () => [
          () => features.map((map, level) => roiAlign(map, levelRois[level], of(level))),
          () => [multiScaleRoiAlign(features, rois, whole)],
        ],
        gradient: () => {
          const single = features.map((x, level) =>
            gradientOf('roi_align', { x, rois: levelRois[level] }, of(level), 'x', levelUpstreams[level]),
          );
          const names = ['f0', 'f1', 'f2', 'f3'];
          return [
            () => single.map((compute) => compute()),
            gradientsOf('multiscale_roi_align', { f0, f1, f2, f3, rois }, whole, names, upstream),
          ];
        },
      };
      let gradients: number[] | undefined;
      const expected = (index: number): number => {
        if (direction === 'forward') return pooledAt(data, bins, channels, index);
        gradients ??= scattered(data, bins, channels).flatMap((part) => Array.from(part));
        return gradients[index];
      };
      const cells = LEVELS.reduce((sum, { height, width }) => sum + height * width, 0);
      const cases = rungs[direction]().map(
        (compute, rung): BenchCase => ({
          group: name,
          variant: variants[rung],
          name: caseName(name, variants[rung]),
          bytes: 4 * channels * (COUNT * bins * bins + cells),
          run: () => void compute(),
          async check() {
            const values = await joined(compute());
            const where = places(values.length, 4096);
            const error = relativeError(
              where.map((index) => values[index]),
              where.map(expected),
            );
            return { error, tolerance: TOLERANCE };
          },
        }),
      );
      return { cases };
    },
  };
}

/** The box head's pooling of RoIs from the levels that fit them, and its gradient. */
export function multiScaleGroups(): BenchGroup[] {
  return [group('forward', 7, 256), group('gradient', 7, 256)];
}
