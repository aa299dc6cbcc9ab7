import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import '../../src/kernels/index.ts';
import { UserError } from '../../src/cli/errors.ts';
import {
  familyChoice,
  type KernelChoice,
  type KernelFamily,
  kernelChoice,
  kernelFamilies,
  parseKernelFamily,
  setKernelChoice,
  subgroupTile,
} from '../../src/kernels/kernelChoice.ts';
import { matmul } from '../../src/kernels/matmul.ts';
import { winogradConvolution, winogradWeightGradients } from '../../src/kernels/winograd.ts';
import type { Device } from '../../src/tensor/device.ts';
import { type Example, type Inputs, type Params, registeredOperators } from '../../src/tensor/operator.ts';
import { sizeOf, type Tensor } from '../../src/tensor/tensor.ts';
import { conv2d as convReference } from '../reference/conv2d.ts';
import { type RefTensor, references } from '../reference/index.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { uniform } from '../support/random.ts';

const images = (shape: number[], params: Params, weight: number[]): Example<Inputs, Params> => ({
  inputs: { x: { shape }, weight: { shape: weight }, bias: { shape: [weight[3]] } } as Example<
    Inputs,
    Params
  >['inputs'],
  params,
});

/** More than the operators' own: several tiles with ragged edges, odd channels, maps that end inside a tile of Winograd's. */
const more: Readonly<Record<string, Example<Inputs, Params>[]>> = {
  conv2d: [
    images([2, 13, 15, 12], { padding: 1 }, [3, 3, 12, 72]),
    images([1, 18, 17, 68], { padding: 1 }, [3, 3, 68, 8]),
    images([1, 13, 11, 7], { stride: 2, padding: 3 }, [7, 7, 7, 9]),
    images([2, 9, 10, 20], { stride: 2, padding: 1 }, [3, 3, 20, 36]),
  ],
  conv_transpose2d: [images([1, 9, 11, 20], { stride: 2 }, [2, 2, 20, 12])],
  matmul: [
    { inputs: { a: { shape: [131, 70] }, b: { shape: [70, 67] } }, params: {} },
    { inputs: { a: { shape: [300, 68] }, b: { shape: [300, 40] } }, params: { transposeA: true } },
    { inputs: { a: { shape: [70, 36] }, b: { shape: [50, 36] } }, params: { transposeB: true } },
  ],
};

interface Computed {
  output: Float32Array;
  gradients: Map<string, Float32Array>;
}

/** An operator's output and its gradients, each added twice to itself. */
async function compute(device: Device, name: string, { inputs, params }: Example<Inputs, Params>): Promise<Computed> {
  const operator = registeredOperators().get(name);
  if (!operator) throw new Error(`There is no operator ${name}.`);
  return device.scope(async () => {
    const tensors: Record<string, Tensor> = {};
    for (const [i, [key, sample]] of Object.entries(inputs).entries()) {
      if (!sample) continue;
      const [low, high] = sample.range ?? [-1, 1];
      const values = sample.values ?? uniform(sizeOf(sample.shape), i + 1, low, high);
      tensors[key] = device.tensor(Float32Array.from(values), sample.shape);
      tensors[key].requiresGrad = sample.differentiable !== false;
    }
    let output: Tensor | null = null;
    for (let pass = 0; pass < 2; pass++) {
      output = operator(tensors, params);
      device.backward(output, device.tensor(uniform(output.size, 99), output.shape));
    }
    const gradients = new Map<string, Float32Array>();
    for (const [key, tensor] of Object.entries(tensors)) {
      if (!tensor.grad) continue;
      gradients.set(key, await tensor.grad.floats());
      tensor.grad.dispose();
    }
    return { output: await (output as Tensor).floats(), gradients };
  });
}

function expected(name: string, { inputs, params }: Example<Inputs, Params>): Float64Array {
  const given: Record<string, RefTensor> = {};
  for (const [i, [key, sample]] of Object.entries(inputs).entries()) {
    if (!sample) continue;
    const [low, high] = sample.range ?? [-1, 1];
    const values = sample.values ?? uniform(sizeOf(sample.shape), i + 1, low, high);
    given[key] = { shape: [...sample.shape], data: Float64Array.from(values) };
  }
  return references[name](given, params).data;
}

describe('kernel families', () => {
  let device: Device;
  let table: KernelChoice;
  beforeAll(async () => {
    device = await testDevice();
    table = kernelChoice(device);
  });
  afterEach(() => setKernelChoice(device, table));

  const families = kernelFamilies.filter((family): family is Exclude<KernelFamily, 'auto'> => family !== 'auto');
  for (const family of families) {
    for (const name of ['conv2d', 'conv_transpose2d', 'matmul', 'linear']) {
      it(`${family} computes ${name} and its gradients`, async ({ skip }) => {
        if (family === 'subgroup' && !subgroupTile(device)) skip();
        const examples = [...(registeredOperators().get(name)?.definition.examples ?? []), ...(more[name] ?? [])];
        for (const [i, example] of examples.entries()) {
          // The table's own gradients are checked against central differences elsewhere.
          setKernelChoice(device, table);
          const known = await compute(device, name, example);
          setKernelChoice(device, familyChoice(device, family));
          const found = await compute(device, name, example);
          expectClose(found.output, expected(name, example), 2e-5, `example ${i}: output`);
          expect([...found.gradients.keys()]).toEqual([...known.gradients.keys()]);
          for (const [key, gradient] of known.gradients) {
            expectClose(found.gradients.get(key) as Float32Array, gradient, 2e-5, `example ${i}: gradient of ${key}`);
          }
          expect(await compute(device, name, example), `example ${i}: a second run`).toEqual(found);
        }
      });
    }
  }

  it('reads the other kind of memory than the table says, with the same result', async () => {
    const example = more.conv2d[0];
    const known = await compute(device, 'conv2d', example);
    setKernelChoice(device, {
      ...table,
      convolution: () => 'direct',
      product(problem) {
        const tile = table.product(problem);
        if (tile === 'naive') return tile;
        return { ...tile, source: tile.source === 'texture' ? 'buffer' : 'texture' };
      },
    });
    const found = await compute(device, 'conv2d', example);
    expectClose(found.output, known.output, 2e-5);
    for (const [key, gradient] of known.gradients)
      expectClose(found.gradients.get(key) as Float32Array, gradient, 2e-5, key);
  });

  it('cuts Winograd into chunks that add up', async () => {
    const [x, weight] = [
      [2, 9, 10, 8],
      [3, 3, 8, 4],
    ].map((shape, i) => ({
      shape,
      data: Float64Array.from(uniform(sizeOf(shape), i + 1)),
    }));
    await device.scope(async () => {
      const [input, w] = [x, weight].map(({ shape, data }) => device.tensor([...data], shape));
      const y = device.empty([2, 9, 10, 4]);
      // 36 planes of 8 channels of one tile take 1152 bytes: five tiles at a time, of 18.
      winogradConvolution(input, { tensor: w, taps: 9, depth: 8, columns: 4 }, y, {}, 6000);
      expectClose(await y.floats(), convReference({ x, weight }, { padding: 1 }).data, 1e-5);
      const g = device.tensor(uniform(y.size, 7), y.shape);
      const [whole, inChunks] = [device.empty(weight.shape), device.empty(weight.shape)];
      winogradWeightGradients(input, g, whole, {});
      winogradWeightGradients(input, g, inChunks, {}, 6000);
      // Another order of sums, whose rounding the transforms enlarge; a chunk left out or taken twice would be off by its share.
      expectClose(await inChunks.floats(), await whole.floats(), 1e-5);
    });
  });

  it('sees that an operand was written to since it was last prepared', async () => {
    await device.scope(async () => {
      const a = device.full([2, 4], 1);
      const b = device.full([4, 5], 1);
      expect([...(await matmul(a, b).floats())]).toEqual(new Array(10).fill(4));
      device.gpu.write(b.buffer, new Float32Array(20).fill(2));
      expect([...(await matmul(a, b).floats())]).toEqual(new Array(10).fill(8));
      device.gpu.clear(a.buffer, 32);
      expect([...(await matmul(a, b).floats())]).toEqual(new Array(10).fill(0));
    });
  });

  it('names the families where another is asked for', () => {
    expect(parseKernelFamily('winograd')).toBe('winograd');
    expect(() => parseKernelFamily('fastest')).toThrow(
      new UserError('Unknown kernels "fastest": expected one of auto, naive, tile, subgroup, winograd.'),
    );
  });
});
