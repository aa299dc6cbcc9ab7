import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { mul } from '../../src/kernels/arithmetic.ts';
import { sum } from '../../src/kernels/reduce.ts';
import { clipGradNorm, sgdStep } from '../../src/kernels/sgd.ts';
import type { Device } from '../../src/tensor/device.ts';
import { FlatParameters } from '../../src/tensor/flatParameters.ts';
import { sizeOf } from '../../src/tensor/tensor.ts';
import { type RefParameter, referenceSgdStep } from '../reference/sgd.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { uniform } from '../support/random.ts';

const shapes: Record<string, number[]> = { weight: [3, 3, 5, 7], bias: [7], scale: [], wide: [70, 3], last: [1] };

function values() {
  return Object.entries(shapes).map(([name, shape], i) => ({ name, shape, data: uniform(sizeOf(shape), 10 + i) }));
}

describe('flat parameters and SGD', () => {
  let device: Device;
  const made: FlatParameters[] = [];
  const flat = (chunkBytes?: number): FlatParameters => {
    const parameters = new FlatParameters(device, values(), chunkBytes);
    made.push(parameters);
    return parameters;
  };
  beforeAll(async () => {
    device = await testDevice();
  });
  afterAll(() => {
    for (const parameters of made) parameters.dispose();
  });

  /** Puts a gradient on every parameter through the tape: the loss is Σ parameter · gradient. */
  function backward(parameters: FlatParameters, gradients: Float32Array[]): void {
    device.scope(() => {
      parameters.zeroGrad();
      parameters.names.forEach((name, i) => {
        const slope = device.tensor(gradients[i], shapes[name]);
        device.backward(sum(mul(parameters.tensor(name), slope)));
      });
    });
  }

  const cases = [
    { lr: 0.1, momentum: 0, weightDecay: 0 },
    { lr: 0.03, momentum: 0.9, weightDecay: 0.01 },
    { lr: 0.03, momentum: 0.9, weightDecay: 0.01, clipNorm: 2 },
    { lr: 0.03, momentum: 0.9, weightDecay: 0.01, clipNorm: 1e6 },
  ];
  for (const options of cases) {
    for (const chunkBytes of [undefined, 1024]) {
      it(`five steps with ${JSON.stringify(options)}, ${chunkBytes ? 'several chunks' : 'one chunk'}`, async () => {
        const parameters = flat(chunkBytes);
        const expected: RefParameter[] = values().map(({ data }) => ({
          value: Float64Array.from(data),
          momentum: new Float64Array(data.length),
        }));
        for (let step = 0; step < 5; step++) {
          const gradients = Object.values(shapes).map((shape, i) => uniform(sizeOf(shape), 100 * step + i, -2, 2));
          backward(parameters, gradients);
          await device.scope(async () => {
            const norm = sgdStep(parameters, options);
            const referenceNorm = referenceSgdStep(
              expected,
              gradients.map((g) => Float64Array.from(g)),
              options,
            );
            if (options.clipNorm === undefined) expect(norm).toBeNull();
            else expectClose([await norm!.item()], [referenceNorm], 1e-5, 'norm');
          });
        }
        for (const [i, name] of parameters.names.entries()) {
          expectClose(await parameters.tensor(name).floats(), expected[i].value, 1e-5, name);
          expectClose(await parameters.momentum(name).floats(), expected[i].momentum, 1e-5, `momentum of ${name}`);
        }
      });
    }
  }

  it('lays parameters out aligned, and padding stays 0 in all three buffers', async () => {
    const parameters = flat(1024);
    const gradients = Object.values(shapes).map((shape, i) => uniform(sizeOf(shape), 40 + i));
    for (let step = 0; step < 3; step++) {
      backward(parameters, gradients);
      device.scope(() => {
        sgdStep(parameters, { lr: 0.1, momentum: 0.9, weightDecay: 0.1, clipNorm: 1 });
      });
    }
    const chunks = parameters.chunks();
    expect(chunks.length).toBeGreaterThan(1);
    const used = new Map(chunks.map((chunk) => [chunk.parameters.gpuBuffer, new Set<number>()]));
    for (const name of parameters.names) {
      const { buffer, size } = parameters.tensor(name);
      expect(buffer.offset % device.gpu.limits.minStorageBufferOffsetAlignment).toBe(0);
      for (let i = 0; i < size; i++) used.get(buffer.gpuBuffer)?.add(buffer.offset / 4 + i);
    }
    for (const chunk of chunks) {
      const own = used.get(chunk.parameters.gpuBuffer) as Set<number>;
      for (const buffer of [chunk.parameters, chunk.gradients, chunk.momenta]) {
        const floats = new Float32Array(await device.gpu.read(buffer, chunk.floats * 4));
        const padding = floats.filter((_, i) => !own.has(i));
        expect(padding.length).toBeGreaterThan(0);
        expect(padding.every((value) => value === 0)).toBe(true);
        expect(floats.some((value) => value !== 0)).toBe(true);
      }
    }
  });

  it('resumes exactly from values and momenta', async () => {
    const options = { lr: 0.05, momentum: 0.9, weightDecay: 0.01, clipNorm: 3 };
    const gradients = (step: number) => Object.values(shapes).map((shape, i) => uniform(sizeOf(shape), 9 * step + i));
    const run = (parameters: FlatParameters, from: number, to: number): void => {
      for (let step = from; step < to; step++) {
        backward(parameters, gradients(step));
        device.scope(() => {
          sgdStep(parameters, options);
        });
      }
    };
    const whole = flat();
    run(whole, 0, 4);
    const first = flat();
    run(first, 0, 2);
    const resumed = flat(1024);
    for (const name of first.names) {
      resumed.write(name, await first.tensor(name).floats());
      resumed.write(name, await first.momentum(name).floats(), 'momentum');
    }
    run(resumed, 2, 4);
    for (const name of whole.names) {
      // The clipping norm is summed chunk by chunk, so another layout may round it differently.
      expectClose(await resumed.tensor(name).floats(), await whole.tensor(name).floats(), 1e-6, name);
    }
    const again = flat();
    for (const name of first.names) {
      again.write(name, await first.tensor(name).floats());
      again.write(name, await first.momentum(name).floats(), 'momentum');
    }
    run(again, 2, 4);
    for (const name of whole.names) {
      expect(await again.tensor(name).floats(), name).toEqual(await whole.tensor(name).floats());
    }
  });

  it('takes gradients that were set elsewhere, and 0 where there is none', async () => {
    const parameters = flat();
    parameters.zeroGrad();
    const own = uniform(7, 5);
    const bias = parameters.tensor('bias');
    bias.grad = device.detached(() => device.tensor(own, [7]));
    const weight = parameters.tensor('weight');
    weight.grad = null;
    const before = await weight.floats();
    sgdStep(parameters, { lr: 1, momentum: 0, weightDecay: 0 });
    const start = values();
    expectClose(
      await bias.floats(),
      start[1].data.map((value, i) => value - own[i]),
      1e-6,
    );
    expect(await weight.floats()).toEqual(before);
    expect(bias.grad?.buffer.gpuBuffer).toBe(parameters.chunks()[0].gradients.gpuBuffer);
  });

  it('the norm over many floats agrees with float64', async () => {
    const size = 300_001;
    const data = uniform(size, 3);
    const parameters = new FlatParameters(device, [{ name: 'x', shape: [size], data }]);
    made.push(parameters);
    await device.scope(async () => {
      parameters.tensor('x').grad = device.detached(() => device.tensor(data, [size]));
      const { norm, factor } = clipGradNorm(parameters, 10);
      const expected = Math.sqrt(data.reduce((total, value) => total + value * value, 0));
      expectClose([await norm.item()], [expected], 1e-5);
      expectClose([await factor.item()], [10 / (expected + 1e-6)], 1e-5);
    });
  });

  it('memory is counted by purpose, is flat over steps, and comes back', async () => {
    // The pool may lend larger buffers, if other tests have left some.
    await device.gpu.trim();
    const before = device.gpu.counters();
    const parameters = new FlatParameters(device, values());
    const tag = (name: string): number => (device.gpu.counters().byTag[name] ?? 0) - (before.byTag[name] ?? 0);
    expect(tag('parameters')).toBeGreaterThan(0);
    expect(tag('gradients')).toBe(0);
    expect(tag('optimizer')).toBe(0);
    const gradients = Object.values(shapes).map((shape, i) => uniform(sizeOf(shape), i));
    const step = (): void => {
      backward(parameters, gradients);
      device.scope(() => {
        sgdStep(parameters, { lr: 0.1, momentum: 0.9, weightDecay: 0, clipNorm: 1 });
      });
    };
    step();
    expect(tag('gradients')).toBe(tag('parameters'));
    expect(tag('optimizer')).toBe(tag('parameters'));
    const { inUse, created } = device.gpu.counters();
    for (let i = 0; i < 5; i++) step();
    expect(device.gpu.counters()).toMatchObject({ inUse, created });
    const tensor = parameters.tensor('weight');
    parameters.dispose();
    expect(device.gpu.counters().inUse).toBe(before.inUse);
    expect(() => tensor.buffer).toThrow(/disposed tensor weight/);
    await device.gpu.sync();
  });

  it('refuses values that do not fit, names given twice, and unknown names', () => {
    const one = { name: 'x', shape: [2], data: new Float32Array(2) };
    expect(() => new FlatParameters(device, [{ ...one, shape: [3] }])).toThrow(/parameter x has 2 values for \[3\]/);
    expect(() => new FlatParameters(device, [one, one])).toThrow(/x is given twice/);
    expect(() => flat().tensor('y')).toThrow(/no parameter y/);
    expect(() => flat().write('bias', new Float32Array(3))).toThrow(/bias: 3 values/);
  });
});
