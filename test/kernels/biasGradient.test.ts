import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { conv2d } from '../../src/kernels/conv2d.ts';
import {
  familyChoice,
  type KernelChoice,
  kernelChoice,
  setKernelChoice,
  subgroupTile,
} from '../../src/kernels/kernelChoice.ts';
import { linear } from '../../src/kernels/linear.ts';
import type { TileShape } from '../../src/kernels/tile.ts';
import type { Device } from '../../src/tensor/device.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { uniform } from '../support/random.ts';

/** Σ over rows of g [rows, columns], in float64. */
function columnSums(g: ArrayLike<number>, columns: number): Float64Array {
  const sums = new Float64Array(columns);
  for (let i = 0; i < g.length; i++) sums[i % columns] += g[i];
  return sums;
}

/** A layer without a ReLU whose gradient of the weight sums the columns of g on its way. */
interface Layer {
  name: string;
  x: number[];
  weight: number[];
  run(x: Tensor, weight: Tensor, bias: Tensor): Tensor;
}

const layers: Layer[] = [
  { name: 'rows in splits, columns that are no whole vectors', x: [1503, 6], weight: [6, 10], run: linear },
  { name: 'few rows, several tiles of columns', x: [7, 8], weight: [8, 140], run: linear },
  { name: 'several tiles of rows', x: [41, 300], weight: [300, 36], run: linear },
  {
    name: 'a convolution in splits, with stride and padding',
    x: [2, 41, 39, 4],
    weight: [3, 3, 4, 12],
    run: (x, weight, bias) => conv2d(x, weight, { bias, stride: 2, padding: 1 }),
  },
  {
    name: 'a convolution of odd channels',
    x: [1, 17, 19, 5],
    weight: [1, 1, 5, 3],
    run: (x, weight, bias) => conv2d(x, weight, { bias }),
  },
];

const directTile: TileShape = {
  lanes: 4,
  lanesDown: 2,
  rows: 8,
  vectors: 1,
  spread: 'direct',
  source: 'buffer',
  parallelism: 16,
};

describe('the gradient of a bias', () => {
  let device: Device;
  let table: KernelChoice;
  beforeAll(async () => {
    device = await testDevice();
    table = kernelChoice(device);
  });
  afterEach(() => setKernelChoice(device, table));

  const choices: Record<string, () => KernelChoice | null> = {
    table: () => table,
    'workgroup tile': () => familyChoice(device, 'tile'),
    'subgroup tile': () => (subgroupTile(device) ? familyChoice(device, 'subgroup') : null),
    'direct tile': () => ({ ...table, product: () => directTile }),
    naive: () => familyChoice(device, 'naive'),
  };

  for (const [name, choose] of Object.entries(choices)) {
    it(`is the sum over rows beside that of the weight: ${name}`, async ({ skip }) => {
      const choice = choose();
      if (!choice) skip();
      setKernelChoice(device, choice as KernelChoice);
      for (const layer of layers) {
        await device.scope(async () => {
          const x = device.tensor(
            uniform(
              layer.x.reduce((a, b) => a * b, 1),
              1,
            ),
            layer.x,
          );
          const weight = device.tensor(
            uniform(
              layer.weight.reduce((a, b) => a * b, 1),
              2,
            ),
            layer.weight,
          );
          const columns = layer.weight[layer.weight.length - 1];
          const bias = device.tensor(uniform(columns, 3), [columns]);
          const backward = async (trainsWeight: boolean): Promise<{ bias: Float32Array; weight?: Float32Array }> => {
            weight.requiresGrad = trainsWeight;
            bias.requiresGrad = true;
            const y = layer.run(x, weight, bias);
            device.backward(y, device.tensor(uniform(y.size, 4), y.shape));
            return { bias: await bias.grad!.floats(), weight: await weight.grad?.floats() };
          };
          const clear = (): void => {
            for (const leaf of [weight, bias]) {
              leaf.grad?.dispose();
              leaf.grad = null;
            }
          };
          const g = uniform(layer.run(x, weight, bias).size, 4);
          const sums = columnSums(g, columns);
          const first = await backward(true);
          expectClose(first.bias, sums, 2e-6, layer.name);
          // Added to what is there.
          const twice = await backward(true);
          expectClose(
            twice.bias,
            sums.map((sum) => 2 * sum),
            2e-6,
            `${layer.name}, twice`,
          );
          clear();
          expect(await backward(true), `${layer.name}, again`).toEqual(first);
          clear();
          // Without the weight's gradient nothing sums on its way.
          expectClose((await backward(false)).bias, sums, 2e-6, `${layer.name}, frozen weight`);
          clear();
        });
      }
    });
  }

  it('holds for products in parts', async () => {
    const { gpu } = device;
    const limit = gpu.bindingLimit;
    await device.scope(async () => {
      const [rows, columns] = [900, 12];
      const x = device.tensor(uniform(rows * 8, 1), [rows, 8]);
      const weight = device.tensor(uniform(8 * columns, 2), [8, columns]);
      const bias = device.tensor(uniform(columns, 3), [columns]);
      for (const leaf of [weight, bias]) leaf.requiresGrad = true;
      const g = uniform(rows * columns, 4);
      gpu.bindingLimit = 16 * 1024;
      try {
        device.backward(linear(x, weight, bias), device.tensor(g, [rows, columns]));
        expectClose(await bias.grad!.floats(), columnSums(g, columns), 2e-6);
      } finally {
        gpu.bindingLimit = limit;
        for (const leaf of [weight, bias]) leaf.grad?.dispose();
      }
    });
  });
});
