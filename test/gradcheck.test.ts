import { beforeAll, describe, expect, it } from 'vitest';
import '../src/kernels/index.ts';
import type { Device } from '../src/tensor/device.ts';
import { decodeHalves, encodeHalves } from '../src/tensor/halves.ts';
import {
  type Example,
  type InputSample,
  type Inputs,
  type Operator,
  type Params,
  registeredOperators,
} from '../src/tensor/operator.ts';
import { type DType, sizeOf, type Tensor } from '../src/tensor/tensor.ts';
import { type RefTensor, references } from './reference/index.ts';
import { expectClose } from './support/compare.ts';
import { testDevice } from './support/device.ts';
import { seeded, uniform } from './support/random.ts';

/*
 * For every registered operator and each of its examples: the device's output against the float64 reference, and the device's
 * gradients against central differences of that reference. Driven by the registration alone, so a new operator is checked by
 * being defined; one without reference or example fails here by name.
 */
const STEP = 1e-5;
const CHECKED_ENTRIES = 60;

function hostValues(sample: InputSample, seed: number): Float32Array | Int32Array | Uint32Array {
  const size = sizeOf(sample.shape);
  const next = seeded(seed);
  const [low, high] = sample.range ?? [-1, 1];
  if (!sample.dtype || sample.dtype === 'f32')
    return sample.values ? Float32Array.from(sample.values) : uniform(size, seed, low, high);
  const values = sample.values ?? Array.from({ length: size }, () => Math.floor(low + (high - low) * next()));
  return sample.dtype === 'i32' ? Int32Array.from(values) : Uint32Array.from(values);
}

/** Numbers as float16 holds them. */
function halved(values: ArrayLike<number>): Float32Array {
  const out = new Float32Array(values.length);
  decodeHalves(new Uint8Array(encodeHalves(values).buffer), out);
  return out;
}

interface Tolerances {
  forward: number;
  gradient: number;
}

async function check(
  device: Device,
  operator: Operator<Inputs, Params>,
  example: Example<Inputs, Params>,
  index: number,
  halves: readonly string[],
  tolerances: Tolerances,
): Promise<void> {
  const { name } = operator.definition;
  const reference = references[name];
  const samples = Object.entries(example.inputs).filter(
    (entry): entry is [string, InputSample] => entry[1] !== undefined,
  );
  const dtypeOf = (key: string, sample: InputSample): DType => (halves.includes(key) ? 'f16' : (sample.dtype ?? 'f32'));
  const host = new Map(
    samples.map(([key, sample], i) => {
      const values = hostValues(sample, 1000 * index + i + 1);
      return [key, halves.includes(key) ? halved(values) : values];
    }),
  );
  const refInputs: Record<string, RefTensor> = {};
  for (const [key, sample] of samples) {
    refInputs[key] = { shape: [...sample.shape], data: Float64Array.from(host.get(key) as Float32Array) };
  }
  const expected = reference(refInputs, example.params);
  const drawn = uniform(expected.data.length, 77 + index);
  const upstream = halves.length > 0 ? halved(drawn) : drawn;

  await device.scope(async () => {
    const inputs: Record<string, Tensor> = {};
    for (const [key, sample] of samples) {
      const tensor = device.tensor(host.get(key) as Float32Array, sample.shape, dtypeOf(key, sample));
      tensor.requiresGrad = (tensor.dtype === 'f32' || tensor.dtype === 'f16') && sample.differentiable !== false;
      inputs[key] = tensor;
    }
    const output = operator(inputs, example.params);
    expect([...output.shape], `${name}: shape`).toEqual(expected.shape);
    if (halves.length > 0) expect(output.dtype, `${name}: dtype`).toBe(name === 'cast' ? example.params.dtype : 'f16');
    expectClose(await output.floats(), expected.data, tolerances.forward, `${name}: forward`);
    device.backward(output, device.tensor(upstream, output.shape, output.dtype));
    for (const [key, sample] of samples) {
      const tensor = inputs[key];
      if (!tensor.requiresGrad) continue;
      expect(tensor.grad, `${name}: gradient of ${key}`).not.toBeNull();
      expect(tensor.grad?.dtype, `${name}: type of the gradient of ${key}`).toBe(tensor.dtype);
      const gradient = await (tensor.grad as Tensor).floats();
      tensor.grad?.dispose();
      const stride = Math.max(1, Math.floor(gradient.length / CHECKED_ENTRIES));
      const picked: number[] = [];
      const numeric: number[] = [];
      for (let entry = 0; entry < gradient.length; entry += stride) {
        const values = refInputs[key].data;
        const kept = values[entry];
        const side = (delta: number): number => {
          values[entry] = kept + delta;
          const { data } = reference(refInputs, example.params);
          return data.reduce((sum, value, i) => sum + value * upstream[i], 0);
        };
        numeric.push((side(STEP) - side(-STEP)) / (2 * STEP));
        values[entry] = kept;
        picked.push(gradient[entry]);
      }
      expect([...sample.shape], `${name}: shape of the gradient of ${key}`).toEqual([...(tensor.grad as Tensor).shape]);
      expectClose(picked, numeric, tolerances.gradient, `${name}: gradient of ${key}`);
    }
  });
}

describe('gradients of every operator', () => {
  let device: Device;
  beforeAll(async () => {
    device = await testDevice();
  });

  for (const [name, operator] of registeredOperators()) {
    const { definition } = operator;
    if (!definition.backward) continue;
    const examples = definition.examples ?? [];
    it(`${name} has an example and a reference`, () => {
      expect(examples.length, `${name} registers no example`).toBeGreaterThan(0);
      expect(references[name], `test/reference has no ${name}`).toBeTypeOf('function');
    });
    examples.forEach((example, index) => {
      it(`${name} example ${index}`, () =>
        check(device, operator, example, index, [], { forward: 1e-4, gradient: 2e-3 }));
    });
  }
});

const opened = await testDevice();

/** Inputs and weights are rounded to float16, and so is the result: each by at most 2^-11. */
describe.skipIf(!opened.hasHalves)(
  `operators on float16 (skipped where the adapter lacks shader-f16: ${opened.gpu.opened.info.name})`,
  () => {
    for (const [name, operator] of registeredOperators()) {
      const { halves, examples = [] } = operator.definition;
      if (!halves) continue;
      examples.forEach((example, index) => {
        const rounded = halves === 'all' ? Object.keys(example.inputs) : halves;
        it(`${name} example ${index}`, () =>
          check(opened, operator, example, index, rounded, { forward: 1e-3, gradient: 3e-3 }));
      });
    }
  },
);
