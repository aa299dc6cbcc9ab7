import { beforeAll, describe, expect, it } from 'vitest';
import { Profiler } from '../../src/gpu/profiler.ts';
import { add, mul } from '../../src/kernels/arithmetic.ts';
import { mapList } from '../../src/kernels/listParts.ts';
import { matmul } from '../../src/kernels/matmul.ts';
import { sum } from '../../src/kernels/reduce.ts';
import type { Device } from '../../src/tensor/device.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { uniform } from '../support/random.ts';

const [ROWS, DEPTH, COLUMNS, STEP] = [8, 12, 20, 3];

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

/** Whatever is lent next holds no number. */
function spoil(): void {
  device.scope(() => {
    for (const size of [16, 96, 240, 2000, 4000])
      for (let i = 0; i < 12; i++) device.full([size], Number.MAX_VALUE * 2);
  });
}

const rowsIn = (count: number): number => Math.min(Math.ceil(count / STEP) * STEP, ROWS);
const values = uniform(ROWS * DEPTH, 1, -1, 1);
const weights = uniform(DEPTH * COLUMNS, 2, -1, 1);
const outer = uniform(ROWS * COLUMNS, 3, -1, 1);

/** x · w for the rows of the parts that `count` reaches into, and the gradients of Σ y · outer, in float64. */
function reference(count: number): { y: Float64Array; dx: Float64Array; dw: Float64Array } {
  const y = new Float64Array(ROWS * COLUMNS);
  const dx = new Float64Array(ROWS * DEPTH);
  const dw = new Float64Array(DEPTH * COLUMNS);
  for (let i = 0; i < rowsIn(count); i++)
    for (let k = 0; k < DEPTH; k++)
      for (let j = 0; j < COLUMNS; j++) {
        y[i * COLUMNS + j] += values[i * DEPTH + k] * weights[k * COLUMNS + j];
        dx[i * DEPTH + k] += outer[i * COLUMNS + j] * weights[k * COLUMNS + j];
        dw[k * COLUMNS + j] += values[i * DEPTH + k] * outer[i * COLUMNS + j];
      }
  return { y, dx, dw };
}

const inParts = (x: Tensor, w: Tensor, count: number): Tensor =>
  mapList({ count: device.tensor(Uint32Array.of(count), [1]), step: STEP }, x, (part) => matmul(part, w));

describe('a list in parts', () => {
  it.each([0, 1, 3, 4, 6, 8])(
    'of 8 with %i entries is computed, forwards and backwards, as far as it reaches',
    async (count) => {
      const x = device.parameter(values, [ROWS, DEPTH], 'x');
      const w = device.parameter(weights, [DEPTH, COLUMNS], 'w');
      const wanted = reference(count);
      await device.scope(async () => {
        spoil();
        const y = inParts(x, w, count);
        expectClose(await y.floats(), wanted.y, 1e-6, 'y');
        // The list's length must outlive the scope that it was made in.
        const loss = device.scope(() => sum(mul(inParts(x, w, count), device.tensor(outer, [ROWS, COLUMNS]))));
        spoil();
        device.backward(loss);
        expectClose(await x.grad!.floats(), wanted.dx, 1e-6, 'dx');
        expectClose(await w.grad!.floats(), wanted.dw, 1e-6, 'dw');
        // What was packed for parts that did not run serves others.
        const whole = reference(ROWS);
        const again = device.parameter(values, [ROWS, DEPTH], 'again');
        device.backward(sum(mul(matmul(again, w), device.tensor(outer, [ROWS, COLUMNS]))));
        expectClose(await again.grad!.floats(), whole.dx, 1e-6, 'dx of all rows');
        expectClose(
          await w.grad!.floats(),
          wanted.dw.map((value, i) => value + whole.dw[i]),
          1e-6,
          'both dw',
        );
        for (const tensor of [again, again.grad!]) tensor.dispose();
      });
      for (const tensor of [x, w, x.grad!, w.grad!]) tensor.dispose();
    },
  );

  it.each([0, 5, 8])('adds nothing to gradients that others share, where it does not run (%i of 8)', async (count) => {
    const x = device.parameter(values, [ROWS, DEPTH], 'x');
    const other = device.parameter(values, [ROWS, DEPTH], 'other');
    const w = device.parameter(weights, [DEPTH, COLUMNS], 'w');
    const factors = uniform(ROWS * DEPTH, 4, -1, 1);
    const wanted = reference(count);
    await device.scope(async () => {
      const [h, g] = [x, other].map((tensor) => mul(tensor, device.full([ROWS, DEPTH], 1)));
      spoil();
      const y = inParts(h, w, count);
      // An addition gives one gradient to both sides; it is visited first.
      const both = mul(add(h, g), device.tensor(factors, [ROWS, DEPTH]));
      device.backward([sum(mul(y, device.tensor(outer, [ROWS, COLUMNS]))), sum(both)]);
      expectClose(await other.grad!.floats(), factors, 1e-6, 'the other side');
      expectClose(
        await x.grad!.floats(),
        wanted.dx.map((value, i) => value + factors[i]),
        1e-6,
        'dx',
      );
    });
    for (const tensor of [x, other, w, x.grad!, other.grad!, w.grad!]) tensor.dispose();
  });

  it('leaves out of a profile what did not run', async (context) => {
    if (!device.gpu.device.features.has('timestamp-query')) context.skip('the adapter has no timestamp queries');
    const profiler = new Profiler(device.gpu.device);
    device.gpu.profileWith(profiler);
    try {
      await device.scope(async () => {
        const [x, w] = [device.tensor(values, [ROWS, DEPTH]), device.tensor(weights, [DEPTH, COLUMNS])];
        inParts(x, w, 4);
        const products = (await profiler.collect(device.gpu)).filter(({ flops }) => flops > 0);
        expect(products.map(({ flops }) => flops)).toEqual(Array(2).fill(2 * STEP * DEPTH * COLUMNS));
      });
    } finally {
      device.gpu.profileWith(null);
      profiler.destroy();
    }
  });
});
