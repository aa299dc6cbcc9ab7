import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { mul } from '../../src/kernels/arithmetic.ts';
import { GradScaler, type GradScalerOptions, type GradScalerState } from '../../src/kernels/gradScaler.ts';
import { sum } from '../../src/kernels/reduce.ts';
import { sgdStep } from '../../src/kernels/sgd.ts';
import type { Device } from '../../src/tensor/device.ts';
import { FlatParameters } from '../../src/tensor/flatParameters.ts';
import { testDevice } from '../support/device.ts';
import { uniform } from '../support/random.ts';

const shapes: Record<string, number[]> = { weight: [5, 7, 3], bias: [7] };
const sgd = { lr: 0.1, momentum: 0.9, weightDecay: 0.01 };

describe('loss scaling', () => {
  let device: Device;
  const made: { dispose(): void }[] = [];
  beforeAll(async () => {
    device = await testDevice();
  });
  afterAll(() => {
    for (const one of made) one.dispose();
  });

  /** Several chunks, so that what is found in any of them counts. */
  function parametersAnd(options?: GradScalerOptions, state?: GradScalerState) {
    const values = Object.entries(shapes).map(([name, shape], i) => ({
      name,
      shape,
      data: uniform(
        shape.reduce((a, b) => a * b),
        10 + i,
      ),
    }));
    const parameters = new FlatParameters(device, values, 512);
    const scaler = new GradScaler(device, options, state);
    made.push(parameters, scaler);
    return { parameters, scaler };
  }

  /** A step whose gradients are `slopes`; the first of the bias's is `spoiled`, if given. */
  function step(
    parameters: FlatParameters,
    seed: number,
    { scaler, clipNorm, spoiled }: { scaler?: GradScaler; clipNorm?: number; spoiled?: number } = {},
  ): Promise<number | undefined> {
    return device.scope(async () => {
      parameters.zeroGrad();
      parameters.names.forEach((name, i) => {
        const slopes = uniform(parameters.tensor(name).size, seed + i);
        if (name === 'bias' && spoiled !== undefined) slopes[0] = spoiled;
        const loss = sum(mul(parameters.tensor(name), device.tensor(slopes, shapes[name])));
        device.backward(loss, scaler?.scale);
      });
      const norm = sgdStep(parameters, { ...sgd, clipNorm, scaler });
      return norm?.item();
    });
  }

  const valuesOf = async (parameters: FlatParameters): Promise<number[]> => {
    const values: number[] = [];
    for (const name of parameters.names) {
      values.push(...(await parameters.tensor(name).floats()), ...(await parameters.momentum(name).floats()));
    }
    return values;
  };

  it("starts from torch's scale, which changes neither steps nor the norm that is clipped", async () => {
    for (const clipNorm of [undefined, 0.5]) {
      const { parameters, scaler } = parametersAnd();
      const { parameters: plain } = parametersAnd();
      expect(await scaler.state()).toEqual({ scale: 65536, goodSteps: 0, skippedSteps: 0 });
      for (let i = 0; i < 3; i++) {
        const norm = await step(parameters, 100 * i, { scaler, clipNorm });
        expect(norm).toBe(await step(plain, 100 * i, { clipNorm }));
      }
      // A power of two goes in and out without rounding.
      expect(await valuesOf(parameters)).toEqual(await valuesOf(plain));
      expect(await scaler.state()).toEqual({ scale: 65536, goodSteps: 3, skippedSteps: 0 });
    }
  });

  it.each([
    ['infinite', Number.POSITIVE_INFINITY],
    ['no number', Number.NaN],
    ['infinite once scaled', 1e35],
  ])('leaves a step out and halves the scale where a gradient is %s', async (_, spoiled) => {
    for (const clipNorm of [undefined, 0.5]) {
      const { parameters, scaler } = parametersAnd();
      await step(parameters, 0, { scaler, clipNorm });
      const before = await valuesOf(parameters);
      await step(parameters, 100, { scaler, clipNorm, spoiled });
      expect(await valuesOf(parameters)).toEqual(before);
      expect(await scaler.state()).toEqual({ scale: 32768, goodSteps: 0, skippedSteps: 1 });
      await step(parameters, 200, { scaler, clipNorm });
      expect(await valuesOf(parameters)).not.toEqual(before);
      expect(await scaler.state()).toEqual({ scale: 32768, goodSteps: 1, skippedSteps: 1 });
    }
  });

  it('doubles the scale after the given number of good steps, counted anew after an overflow', async () => {
    const { parameters, scaler } = parametersAnd({ growthInterval: 3 });
    const scales: number[] = [];
    for (let i = 0; i < 9; i++) {
      await step(parameters, i, { scaler, spoiled: i === 4 ? Number.NaN : undefined });
      scales.push((await scaler.state()).scale);
    }
    expect(scales).toEqual([65536, 65536, 131072, 131072, 65536, 65536, 65536, 131072, 131072]);
  });

  it('goes on from a state', async () => {
    const state = { scale: 1024, goodSteps: 1998, skippedSteps: 7 };
    const { parameters, scaler } = parametersAnd({}, state);
    expect(await scaler.state()).toEqual(state);
    await step(parameters, 0, { scaler });
    expect(await scaler.state()).toEqual({ ...state, goodSteps: 1999 });
    await step(parameters, 1, { scaler });
    expect(await scaler.state()).toEqual({ scale: 2048, goodSteps: 0, skippedSteps: 7 });
  });
});
