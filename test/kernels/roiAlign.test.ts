import { beforeAll, describe, expect, it } from 'vitest';
import { multiScaleRoiAlign } from '../../src/kernels/multiScaleRoiAlign.ts';
import { roiAlign } from '../../src/kernels/roiAlign.ts';
import { poolLevelGradient, roiGeometry } from '../../src/kernels/roiPooling.ts';
import type { Device } from '../../src/tensor/device.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import type { RefTensor } from '../reference/index.ts';
import * as reference from '../reference/roiAlign.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { type GoldenTensor, opsCases, permuted } from '../support/goldens.ts';
import { seeded, uniform } from '../support/random.ts';

const TO_NHWC = [0, 2, 3, 1];
const TO_NCHW = [0, 3, 1, 2];

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

/** RoIs [K, 5] with sides of 1 pixel to half the image, some of them partly outside. */
function randomRois(count: number, images: number, height: number, width: number, seed: number): Float32Array {
  const next = seeded(seed);
  return Float32Array.from(
    Array.from({ length: count }, () => {
      const [x, y] = [next() * width * 1.1 - 0.1 * width, next() * height * 1.1 - 0.1 * height];
      const size = next() ** 2 / 2;
      return [Math.floor(next() * images), x, y, x + 1 + size * width, y + 1 + next() * size * height];
    }).flat(),
  );
}

function refTensor(data: ArrayLike<number>, shape: readonly number[]): RefTensor {
  return { shape: [...shape], data: Float64Array.from(data) };
}

function onDevice(golden: GoldenTensor): Tensor {
  const { data, shape } = permuted(golden, TO_NHWC);
  return device.tensor(data as Float32Array, shape);
}

async function expectGolden(actual: Tensor, expected: GoldenTensor, what: string): Promise<void> {
  const nchw = permuted({ shape: [...actual.shape], data: await actual.floats() }, TO_NCHW);
  expect(nchw.shape, what).toEqual(expected.shape);
  expectClose(nchw.data, expected.data, 1e-5, what);
}

describe('roiAlign', () => {
  for (const golden of opsCases('roi_align')) {
    it(`agrees with torchvision's case ${golden.index}`, () =>
      device.scope(async () => {
        const x = onDevice(golden.inputs.x);
        x.requiresGrad = true;
        const rois = device.tensor(golden.inputs.rois.data as Float32Array, golden.inputs.rois.shape);
        const y = roiAlign(x, rois, golden.params as unknown as Parameters<typeof roiAlign>[2]);
        await expectGolden(y, golden.output, 'output');
        device.backward(y, onDevice(golden.upstream as GoldenTensor));
        await expectGolden(x.grad as Tensor, golden.grads.x, 'gradient');
        x.grad?.dispose();
      }));
  }

  // Scalars, vectors, and four vectors per invocation; fixed and adaptive sampling; both alignments.
  it.each([
    { channels: 1, outputSize: 1, samplingRatio: 1, aligned: false },
    { channels: 7, outputSize: 5, samplingRatio: 0, aligned: false },
    { channels: 20, outputSize: 3, samplingRatio: 3, aligned: true },
    { channels: 128, outputSize: 2, samplingRatio: 2, aligned: false },
    { channels: 4, outputSize: 2, samplingRatio: -1, aligned: true },
  ])('agrees with the definition: $channels channels, sampling ratio $samplingRatio', ({ channels, ...sampling }) =>
    device.scope(async () => {
      const shape = [2, 21, 18, channels];
      const params = { ...sampling, spatialScale: 0.5 };
      const values = uniform(2 * 21 * 18 * channels, channels);
      const rois = randomRois(13, 2, 42, 36, channels);
      const expected = reference.roiAlign({ x: refTensor(values, shape), rois: refTensor(rois, [13, 5]) }, params);
      const y = roiAlign(device.tensor(values, shape), device.tensor(rois, [13, 5]), params);
      expectClose(await y.floats(), expected.data, 2e-5, 'output');
    }),
  );

  it('gives a map of one cell back where a RoI lies on it', () =>
    device.scope(async () => {
      const x = device.tensor([3], [1, 1, 1, 1]);
      const rois = device.tensor([0, 0, 0, 1, 1, 0, 5, 5, 9, 9], [2, 5]);
      const y = roiAlign(x, rois, { outputSize: 2, spatialScale: 1, samplingRatio: 2 });
      expect([...(await y.floats())]).toEqual([3, 3, 3, 3, 0, 0, 0, 0]);
    }));

  it('gives zeros, and no gradient, for a row of no image of the batch', () =>
    device.scope(async () => {
      const x = device.tensor(uniform(2 * 4 * 4 * 4, 1), [2, 4, 4, 4]);
      x.requiresGrad = true;
      const rois = device.tensor([-1, 0, 0, 4, 4, 2, 0, 0, 4, 4], [2, 5]);
      const y = roiAlign(x, rois, { outputSize: 2, spatialScale: 1, samplingRatio: 0 });
      expect(new Set(await y.floats())).toEqual(new Set([0]));
      device.backward(y, device.full(y.shape, 1));
      expect(new Set(await (x.grad as Tensor).floats())).toEqual(new Set([0]));
      x.grad?.dispose();
    }));

  it('takes no RoIs', () =>
    device.scope(async () => {
      const x = device.tensor(uniform(1 * 3 * 3 * 4, 1), [1, 3, 3, 4]);
      x.requiresGrad = true;
      const y = roiAlign(x, device.tensor([], [0, 5]), { outputSize: 7, spatialScale: 1, samplingRatio: 2 });
      expect(y.shape).toEqual([0, 7, 7, 4]);
      device.backward(y, device.empty(y.shape));
      expect([...(await (x.grad as Tensor).floats())]).toEqual(new Array(36).fill(0));
      x.grad?.dispose();
    }));

  it('names what does not fit', () =>
    device.scope(() => {
      const options = { outputSize: 7, spatialScale: 1, samplingRatio: 2 };
      const x = device.zeros([1, 3, 3, 4]);
      expect(() => roiAlign(x, device.zeros([2, 4]), options)).toThrow('rois: expected [K, 5]');
      expect(() => roiAlign(device.zeros([3, 3]), device.zeros([2, 5]), options)).toThrow('x: expected [N, H, W, C]');
    }));
});

describe('the gradient', () => {
  const shape = [2, 37, 29, 8];
  const pooling = { outputSize: 4, samplingRatio: 2, aligned: false, scales: [0.25], areas: [] };
  const count = 90;
  const tensors = () => {
    const rois = device.tensor(randomRois(count, 2, 148, 116, 5), [count, 5]);
    return {
      rois,
      geometry: roiGeometry(rois, 2, pooling),
      dy: device.tensor(uniform(count * 16 * 8, 6), [count, 4, 4, 8]),
    };
  };

  it('has the same bits with lists per tile as when each cell visits all RoIs, and in a second run', () =>
    device.scope(async () => {
      const { geometry, dy } = tensors();
      const plain = await poolLevelGradient(shape, geometry, 0, dy, undefined, 64).floats();
      expect(plain.some((value) => value !== 0)).toBe(true);
      for (const tile of [4, 4, 1, 5, 16]) {
        expect(await poolLevelGradient(shape, geometry, 0, dy, undefined, tile).floats()).toEqual(plain);
      }
    }));

  it('is the transpose of the forward pass: ⟨pool(x), dy⟩ = ⟨x, gradient⟩ cell by cell', () =>
    device.scope(async () => {
      const { rois, geometry, dy } = tensors();
      const gradient = await poolLevelGradient(shape, geometry, 0, dy).floats();
      const upstream = await dy.floats();
      const refRois = refTensor(await rois.floats(), [count, 5]);
      const params = { outputSize: 4, samplingRatio: 2, spatialScale: 0.25 };
      // A map that is 1 in one cell tells that cell's column of the linear map.
      const picked = [0, 28, 400, 900, 1072, 1073, 1500, 2145];
      const expected = picked.map((cell) => {
        const map = refTensor(new Float64Array(2 * 37 * 29), [2, 37, 29, 1]);
        map.data[cell] = 1;
        const { data } = reference.roiAlign({ x: map, rois: refRois }, params);
        return data.reduce((sum, weight, bin) => sum + weight * upstream[bin * 8 + 3], 0);
      });
      expectClose(
        picked.map((cell) => gradient[cell * 8 + 3]),
        expected,
        2e-5,
      );
    }));

  it('is added to what is there when asked', () =>
    device.scope(async () => {
      const { geometry, dy } = tensors();
      const into = device.full(shape, 2);
      const alone = await poolLevelGradient(shape, geometry, 0, dy).floats();
      expect(poolLevelGradient(shape, geometry, 0, dy, into)).toBe(into);
      expectClose(
        await into.floats(),
        alone.map((value) => value + 2),
        1e-6,
      );
    }));
});

describe('multiScaleRoiAlign', () => {
  for (const golden of opsCases('multiscale_roi_align')) {
    it(`agrees with torchvision's case ${golden.index}`, () =>
      device.scope(async () => {
        const { inputs, params } = golden;
        const names = ['f0', 'f1', 'f2', 'f3'];
        const features = names.map((name) => onDevice(inputs[name]));
        for (const map of features) map.requiresGrad = true;
        const rows = [inputs.boxes0, inputs.boxes1].flatMap(({ data, shape }, image) =>
          Array.from({ length: shape[0] }, (_, i) => [image, ...data.subarray(i * 4, i * 4 + 4)]),
        );
        const y = multiScaleRoiAlign(features, device.tensor(rows.flat(), [rows.length, 5]), {
          outputSize: params.outputSize as number,
          samplingRatio: params.samplingRatio as number,
          canonicalScale: params.canonicalScale as number,
          canonicalLevel: params.canonicalLevel as number,
          scales: [1 / 4, 1 / 8, 1 / 16, 1 / 32],
        });
        await expectGolden(y, golden.output, 'output');
        device.backward(y, onDevice(golden.upstream as GoldenTensor));
        for (const [level, name] of names.entries()) {
          await expectGolden(features[level].grad as Tensor, golden.grads[name], `gradient of ${name}`);
          features[level].grad?.dispose();
        }
      }));
  }

  it('chooses the level by definition, on and around its edges', () =>
    device.scope(async () => {
      const rule = { scales: [1 / 4, 1 / 8, 1 / 16, 1 / 32], canonicalScale: 224, canonicalLevel: 4 };
      const sides = [0, 1, 55, 111.999, 112, 112.001, 223.99, 224, 224.01, 447, 448, 448.1, 896, 2000];
      const rois = sides.flatMap((side) => [0, 0, 0, side, side]);
      // Constant maps: the level's number is the value of a bin.
      const features = [1, 2, 3, 4].map((value) => device.full([1, 512 >> value, 512 >> value, 1], value));
      const options = { ...rule, outputSize: 1, samplingRatio: 1 };
      const y = await multiScaleRoiAlign(features, device.tensor(rois, [sides.length, 5]), options).floats();
      const expected = sides.map((side) => reference.levelOf([0, 0, side, side], rule) + 1);
      expect(Array.from(y, Math.round)).toEqual(expected);
      expect(new Set(expected)).toEqual(new Set([1, 2, 3, 4]));
    }));

  it('takes no RoIs, and gives every level a gradient of zeros', () =>
    device.scope(async () => {
      const features = [8, 4].map((side) => device.tensor(uniform(side * side * 4, side), [1, side, side, 4]));
      for (const map of features) map.requiresGrad = true;
      const options = {
        outputSize: 7,
        samplingRatio: 2,
        scales: [0.25, 0.125],
        canonicalScale: 224,
        canonicalLevel: 4,
      };
      const y = multiScaleRoiAlign(features, device.tensor([], [0, 5]), options);
      expect(y.shape).toEqual([0, 7, 7, 4]);
      device.backward(y, device.empty(y.shape));
      for (const map of features) {
        const gradient = map.grad as Tensor;
        expect(gradient.shape).toEqual(map.shape);
        expect(new Set(await gradient.floats())).toEqual(new Set([0]));
        gradient.dispose();
      }
    }));

  it('names what does not fit', () =>
    device.scope(() => {
      const options = {
        outputSize: 7,
        samplingRatio: 2,
        scales: [0.25, 0.125],
        canonicalScale: 224,
        canonicalLevel: 4,
      };
      const rois = device.zeros([1, 5]);
      const f0 = device.zeros([1, 8, 8, 4]);
      expect(() => multiScaleRoiAlign([f0, device.zeros([1, 4, 4, 8])], rois, options)).toThrow('f1: expected');
      expect(() => multiScaleRoiAlign([f0], rois, options)).toThrow('scales: expected 1 powers of two');
      expect(() => multiScaleRoiAlign([], rois, options)).toThrow('expected 1 to 4 levels');
    }));
});
