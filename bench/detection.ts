import { Random } from '../src/data/random.ts';
import { nms } from '../src/kernels/nms.ts';
import { roiAlign } from '../src/kernels/roiAlign.ts';
import { poolLevelGradient, roiGeometry } from '../src/kernels/roiPooling.ts';
import { topK } from '../src/kernels/topK.ts';
import type { Device } from '../src/tensor/device.ts';
import type { Tensor } from '../src/tensor/tensor.ts';
import { type BenchCase, type BenchGroup, caseName, type Size } from './cases.ts';
import { ladderCases, noise, places, relativeError } from './check.ts';
import type { Comparison } from './comparison.ts';
import { gradientOf } from './gradient.ts';
import { naiveNms, naiveRoiAlign } from './naive.ts';

/** Rungs that give indices: `expected` computes them on the host, and the device's must be the same, one by one. */
function indexCases(
  group: string,
  rungs: Readonly<Record<string, () => Tensor | Promise<Tensor>>>,
  expected: readonly number[],
): BenchCase[] {
  return Object.entries(rungs).map(([variant, compute]) => ({
    group,
    variant,
    name: caseName(group, variant),
    async run() {
      await compute();
    },
    async check() {
      const got = await (await compute()).ints();
      const same = expected.every((index, i) => got[i] === index) && got.slice(expected.length).every((i) => i === -1);
      return { error: same ? 0 : Number.POSITIVE_INFINITY, tolerance: 0 };
    },
  }));
}

/** 0 … n - 1 by value, largest first; equal values in index order. */
function descending(values: ArrayLike<number>): number[] {
  return Array.from({ length: values.length }, (_, i) => i).sort((a, b) => values[b] - values[a] || a - b);
}

function greedyNms(boxes: Float32Array, scores: Float32Array, threshold: number): number[] {
  const kept: number[] = [];
  const area = (box: number): number => (boxes[box + 2] - boxes[box]) * (boxes[box + 3] - boxes[box + 1]);
  for (const candidate of descending(scores)) {
    const a = candidate * 4;
    const suppressed = kept.some((better) => {
      const b = better * 4;
      const width = Math.min(boxes[a + 2], boxes[b + 2]) - Math.max(boxes[a], boxes[b]);
      const height = Math.min(boxes[a + 3], boxes[b + 3]) - Math.max(boxes[a + 1], boxes[b + 1]);
      if (width <= 0 || height <= 0) return false;
      const overlap = width * height;
      return overlap > threshold * (area(a) + area(b) - overlap);
    });
    if (!suppressed) kept.push(candidate);
  }
  return kept;
}

/** Corners at quarters of a pixel: all over an image, or a heap in which most overlap, as the proposals of one cell do. */
function boxCorners(count: number, crowded: boolean): Float32Array {
  const random = new Random(6);
  const corners = new Float32Array(count * 4);
  const [places, least] = crowded ? [160, 40] : [1600, 10];
  for (let i = 0; i < corners.length; i += 4) {
    const [x, y] = [random.int(places) / 4, random.int(places) / 4];
    corners.set([x, y, x + least + random.int(200) / 4, y + least + random.int(200) / 4], i);
  }
  return corners;
}

function nmsGroup(count: number, crowded: boolean): BenchGroup {
  const group = `nms of ${count}${crowded ? ' crowded' : ''} boxes`;
  // With corners at quarters of a pixel and this threshold, float32 and float64 decide alike.
  const threshold = 0.5;
  return {
    table: 'Selection',
    name: group,
    variants: ['naive', 'read back, on the host', 'nms'],
    goal: {
      what: `NMS of ${count}${crowded ? ' crowded' : ''} boxes against tfjs`,
      against: 'tfjs-webgpu',
      atLeast: 1,
    },
    open(device) {
      const corners = boxCorners(count, crowded);
      const random = new Random(9);
      const points = Float32Array.from({ length: count }, () => random.next());
      const [boxes, scores] = [device.tensor(corners, [count, 4]), device.tensor(points, [count])];
      const onHost = async (): Promise<Tensor> => {
        const [read, graded] = (await device.readAll([boxes, scores])) as Float32Array[];
        const kept = greedyNms(read, graded, threshold);
        return device.tensor(Int32Array.from(kept), [kept.length]);
      };
      const rungs = {
        naive: () => naiveNms(boxes, scores, threshold),
        'read back, on the host': onHost,
        nms: () => nms(boxes, scores, threshold).indices,
      };
      const expected = greedyNms(corners, points, threshold);
      const comparison: Comparison = {
        work: () => ({ op: 'nms', count, threshold }),
        inputs: { boxes: { shape: [count, 4], data: corners }, scores: { shape: [count], data: points } },
        check({ kept }) {
          const same = kept?.data.length === expected.length && expected.every((index, i) => kept.data[i] === index);
          return { error: same ? 0 : Number.POSITIVE_INFINITY, tolerance: 0 };
        },
        without: ['onnxruntime-node', 'onnxruntime-web', 'jax-js', 'tinygrad'],
      };
      return { cases: indexCases(group, rungs, expected), comparison };
    },
  };
}

function topKGroup(count: number, k: number): BenchGroup {
  const group = `top ${k} of ${count}`;
  return {
    table: 'Selection',
    name: group,
    variants: ['read back, on the host', 'topK'],
    open(device) {
      const data = noise(count, new Random(7));
      const values = device.tensor(data, [count]);
      const onHost = async (): Promise<Tensor> =>
        device.tensor(Int32Array.from(descending(await values.floats()).slice(0, k)), [k]);
      const rungs = { [this.variants[0]]: onHost, [this.variants[1]]: () => topK(values, k).indices };
      return { cases: indexCases(group, rungs, descending(data).slice(0, k)) };
    },
  };
}

interface RoiSetting {
  rois: number;
  bins: number;
  channels: number;
  height: number;
  width: number;
}

const SCALE = 0.25;
const SAMPLES = 2;

/** The four cells around each sample of one bin of one RoI (xmin, ymin, xmax, ymax), with their shares of the bin's mean. */
export function* binCells(
  box: ArrayLike<number>,
  { bins, height, width, scale = SCALE }: Pick<RoiSetting, 'bins' | 'height' | 'width'> & { scale?: number },
  by: number,
  bx: number,
): Generator<[row: number, column: number, share: number]> {
  const [x1, y1, x2, y2] = Array.from(box, (value) => value * scale);
  const across = Math.max(x2 - x1, 1) / bins;
  const down = Math.max(y2 - y1, 1) / bins;
  for (let sample = 0; sample < SAMPLES ** 2; sample++) {
    const y = y1 + (by + (Math.floor(sample / SAMPLES) + 0.5) / SAMPLES) * down;
    const x = x1 + (bx + ((sample % SAMPLES) + 0.5) / SAMPLES) * across;
    if (y < -1 || x < -1 || y > height || x > width) continue;
    const [py, px] = [Math.min(Math.max(y, 0), height - 1), Math.min(Math.max(x, 0), width - 1)];
    const [row, column] = [Math.floor(py), Math.floor(px)];
    for (const [r, wy] of [
      [row, 1 - (py - row)],
      [row + 1, py - row],
    ]) {
      for (const [c, wx] of [
        [column, 1 - (px - column)],
        [column + 1, px - column],
      ]) {
        if (wy * wx > 0) yield [r, c, (wy * wx) / SAMPLES ** 2];
      }
    }
  }
}

function roiInputs(device: Device, { rois: count, bins, channels, height, width }: RoiSetting) {
  const random = new Random(8);
  const map = noise(height * width * channels, random);
  const places = new Float32Array(count * 5);
  for (let k = 0; k < count; k++) {
    const [w, h] = [24 + random.next() * 120, 24 + random.next() * 120];
    // Some reach beyond the image, as proposals before clipping may.
    const [x, y] = [random.next() * width * 4 - w / 2, random.next() * height * 4 - h / 2];
    places.set([0, x, y, x + w, y + h], k * 5);
  }
  const slopes = noise(count * bins * bins * channels, random);
  return {
    map,
    places,
    slopes,
    x: device.tensor(map, [1, height, width, channels]),
    rois: device.tensor(places, [count, 5]),
    upstream: device.tensor(slopes, [count, bins, bins, channels]),
  };
}

const NO_ROI_ALIGN = ['onnxruntime-node', 'onnxruntime-web', 'jax-js', 'tinygrad'];

/** One element by each engine: torchvision's ROIAlign, and what tfjs has instead. */
function roiComparison(
  setting: RoiSetting,
  { map, places: rois, slopes }: Pick<ReturnType<typeof roiInputs>, 'map' | 'places' | 'slopes'>,
  result: 'y' | 'dx',
  expected: (index: number) => number,
): Comparison {
  const { rois: count, bins, channels, height, width } = setting;
  const work = { count, bins, channels, height, width, spatialScale: SCALE, samplingRatio: SAMPLES };
  return {
    work: () => ({ op: 'roiAlign', setting: work, results: [result] }),
    inputs: {
      x: { shape: [1, height, width, channels], data: map },
      rois: { shape: [count, 5], data: rois },
      upstream: { shape: [count, bins, bins, channels], data: slopes },
    },
    check(found, engine) {
      const values = found[result]?.data ?? [];
      const size = result === 'y' ? slopes.length : map.length;
      if (values.length !== size) return { error: Number.POSITIVE_INFINITY, tolerance: 0 };
      const at = engine === 'tfjs-webgpu' ? (index: number) => cropAndResizeAt(setting, map, rois, index) : expected;
      const where = places(size, 1024);
      return {
        error: relativeError(
          where.map((index) => values[index]),
          where.map(at),
        ),
        // As for this program's own: places of samples are float32.
        tolerance: 1e-3,
      };
    },
    near: { 'tfjs-webgpu': 'cropAndResize: one sample a bin, no gradient' },
    without: result === 'y' ? NO_ROI_ALIGN : [...NO_ROI_ALIGN, 'tfjs-webgpu'],
  };
}

/** TensorFlow's crop_and_resize: bins × bins bilinear samples from corner to corner; 0 outside the map. */
function cropAndResizeAt(
  { bins, channels, height, width }: RoiSetting,
  map: Float32Array,
  rois: Float32Array,
  index: number,
): number {
  const c = index % channels;
  const bin = Math.floor(index / channels);
  const [x1, y1, x2, y2] = rois.subarray(Math.floor(bin / bins / bins) * 5 + 1).map((corner) => corner * SCALE);
  const y = y1 + (Math.floor(bin / bins) % bins) * ((y2 - y1) / (bins - 1));
  const x = x1 + (bin % bins) * ((x2 - x1) / (bins - 1));
  if (y < 0 || x < 0 || y > height - 1 || x > width - 1) return 0;
  const [row, column] = [Math.floor(y), Math.floor(x)];
  let sum = 0;
  for (const [r, wy] of [
    [row, 1 - (y - row)],
    [Math.ceil(y), y - row],
  ]) {
    for (const [q, wx] of [
      [column, 1 - (x - column)],
      [Math.ceil(x), x - column],
    ]) {
      sum += wy * wx * map[(r * width + q) * channels + c];
    }
  }
  return sum;
}

function roiGroups(setting: RoiSetting): BenchGroup[] {
  const { rois: count, bins, channels, height, width } = setting;
  const shape = `${count} RoIs ${bins}×${bins}, ${channels} channels`;
  const options = { outputSize: bins, spatialScale: SCALE, samplingRatio: SAMPLES };
  const elements = count * bins * bins * channels;
  const bytes = 4 * (elements + height * width * channels);
  const forward = `roiAlign ${shape}`;
  const backward = `roiAlign gradient ${shape}`;
  return [
    {
      table: 'ROIAlign',
      name: forward,
      variants: ['naive', 'roiAlign'],
      goal: { what: `ROIAlign of ${shape} against torchvision on the CPU`, against: 'torch', atLeast: 1 },
      open(device) {
        const inputs = roiInputs(device, setting);
        const { map, places: boxes, x, rois } = inputs;
        const expected = (index: number): number => {
          const c = index % channels;
          const bin = Math.floor(index / channels);
          const roi = Math.floor(bin / bins / bins);
          const box = boxes.subarray(roi * 5 + 1, roi * 5 + 5);
          let sum = 0;
          for (const [row, column, share] of binCells(box, setting, Math.floor(bin / bins) % bins, bin % bins)) {
            sum += share * map[(row * width + column) * channels + c];
          }
          return sum;
        };
        return {
          cases: ladderCases({
            group: forward,
            bytes,
            rungs: {
              naive: () => naiveRoiAlign(x, rois, bins, SCALE, SAMPLES),
              roiAlign: () => roiAlign(x, rois, options),
            },
            // Places of samples are float32 on the device: on a map of 100 cells they are off by 1e-5 of a cell.
            tolerance: 1e-4,
            expected,
          }),
          comparison: roiComparison(setting, inputs, 'y', expected),
        };
      },
    },
    {
      table: 'ROIAlign',
      name: backward,
      variants: ['naive', 'lists of RoIs'],
      open(device) {
        const inputs = roiInputs(device, setting);
        const { places: boxes, slopes, x, rois, upstream } = inputs;
        const geometry = roiGeometry(rois, 1, { ...options, aligned: false, scales: [SCALE], areas: [] });
        let whole: Float64Array | null = null;
        // All of it at once: an element costs as much as all, since each RoI may touch it.
        const scattered = (): Float64Array => {
          const gradient = new Float64Array(x.size);
          for (let bin = 0; bin < count * bins * bins; bin++) {
            const roi = Math.floor(bin / bins / bins);
            const box = boxes.subarray(roi * 5 + 1, roi * 5 + 5);
            for (const [row, column, share] of binCells(box, setting, Math.floor(bin / bins) % bins, bin % bins)) {
              const cell = (row * width + column) * channels;
              for (let c = 0; c < channels; c++) gradient[cell + c] += share * slopes[bin * channels + c];
            }
          }
          return gradient;
        };
        const expected = (index: number): number => {
          whole ??= scattered();
          return whole[index];
        };
        return {
          cases: ladderCases({
            group: backward,
            bytes,
            rungs: {
              // Every cell looks at every RoI.
              naive: () => poolLevelGradient(x.shape, geometry, 0, upstream, undefined, Math.max(height, width)),
              'lists of RoIs': gradientOf('roi_align', { x, rois }, options, 'x', upstream),
            },
            tolerance: 1e-4,
            expected,
            samples: 4096,
          }),
          comparison: roiComparison(setting, inputs, 'dx', expected),
        };
      },
    },
  ];
}

export function detectionGroups(size: Size): BenchGroup[] {
  const full = size === 'full';
  return [
    nmsGroup(2000, false),
    nmsGroup(2000, true),
    // The anchors of the finest level: 3 at each of 200×272 or 64×88 places.
    full ? topKGroup(163_200, 2000) : topKGroup(16_896, 1000),
    ...roiGroups({ rois: 256, bins: 14, channels: 256, height: 64, width: 88 }),
  ];
}
