import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { relu, sigmoid } from '../../src/kernels/activations.ts';
import { add, mul, sub } from '../../src/kernels/arithmetic.ts';
import { binaryCrossEntropyWithLogits } from '../../src/kernels/losses.ts';
import { sum } from '../../src/kernels/reduce.ts';
import { reshape } from '../../src/kernels/shape.ts';
import type { Device } from '../../src/tensor/device.ts';
import { defineOperator } from '../../src/tensor/operator.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';

const ruleless = defineOperator<{ x: Tensor }, Record<string, never>>({
  name: 'test_without_rule',
  forward: ({ x }) => ({ output: x.device.adopt(x.view(x.shape)) }),
});

describe('scopes', () => {
  let device: Device;
  const inUse = (): number => device.gpu.counters().inUse;
  beforeAll(async () => {
    device = await testDevice();
  });

  it('free what they made, also when they throw', () => {
    const before = inUse();
    device.scope(() => {
      device.zeros([1000]);
      device.scope(() => {
        device.zeros([1000]);
      });
      expect(inUse()).toBeGreaterThan(before);
    });
    expect(inUse()).toBe(before);
    expect(() =>
      device.scope(() => {
        device.zeros([1000]);
        throw new Error('on the way');
      }),
    ).toThrow('on the way');
    expect(inUse()).toBe(before);
  });

  it('keep what is returned, in arrays, maps and objects, for the scope around them', async () => {
    const before = inUse();
    await device.scope(async () => {
      const kept = device.scope(() => {
        device.zeros([10]);
        return { list: [device.full([2], 1)], map: new Map([['a', { deep: device.full([2], 2) }]]) };
      });
      expect([...(await kept.list[0].floats()), ...(await kept.map.get('a')!.deep.floats())]).toEqual([1, 1, 2, 2]);
    });
    expect(inUse()).toBe(before);
  });

  it('take asynchronous bodies, also those that reject', async () => {
    const before = inUse();
    const value = await device.scope(async () => {
      const x = device.full([3], 2);
      return (await x.floats())[2];
    });
    expect(value).toBe(2);
    await expect(
      device.scope(async () => {
        device.zeros([5]);
        await Promise.resolve();
        throw new Error('later');
      }),
    ).rejects.toThrow('later');
    expect(inUse()).toBe(before);
  });

  it('leave alone what was disowned, until it is disposed', () => {
    const before = inUse();
    const kept = device.scope(() => device.detached(() => device.zeros([100])));
    expect(inUse()).toBeGreaterThan(before);
    kept.dispose();
    kept.dispose();
    expect(inUse()).toBe(before);
    expect(() => kept.buffer).toThrow('A disposed tensor f32[100] was used.');
    expect(() => relu(kept)).toThrow('A disposed tensor');
    expect(() => kept.view([10, 10])).toThrow('A disposed tensor');
  });

  it('share a buffer between views until the last is disposed', async () => {
    const before = inUse();
    const whole = device.detached(() => device.full([6], 3));
    const view = whole.view([2, 3]);
    whole.dispose();
    expectClose(await view.floats(), new Array(6).fill(3), 0);
    view.dispose();
    expect(inUse()).toBe(before);
  });

  it('100 forwards without a backward hold nothing', () => {
    const x = device.parameter(new Float32Array(500).fill(0.5), [500], 'x');
    let after = 0;
    for (let i = 0; i < 100; i++) {
      device.scope(() => {
        sum(sigmoid(mul(relu(x), x)));
      });
      if (i === 0) after = inUse();
    }
    expect(inUse()).toBe(after);
    x.dispose();
  });

  it('memory is flat over training steps, and no buffer is made after the first', async () => {
    const x = device.parameter(new Float32Array(500).fill(0.5), [500], 'x');
    const losses: number[] = [];
    let steady: object = {};
    for (let step = 0; step < 6; step++) {
      const loss = await device.scope(async () => {
        const y = sum(mul(sigmoid(x), x));
        device.backward(y);
        return y.item();
      });
      losses.push(loss);
      x.grad?.dispose();
      x.grad = null;
      const { inUse: used, held, created, byTag } = device.gpu.counters();
      if (step === 1) steady = { inUse: used, held, created, byTag };
      if (step > 1) expect({ inUse: used, held, created, byTag }).toEqual(steady);
    }
    expect(new Set(losses).size).toBe(1);
    x.dispose();
  });

  it('a graph returned from a scope lives on and can be run backwards outside', async () => {
    const before = inUse();
    const x = device.parameter(Float32Array.of(3), [1], 'x');
    const y = device.scope(() => mul(x, mul(x, x)));
    device.backward(y);
    expectClose(await x.grad!.floats(), [27], 1e-6);
    for (const tensor of [y, x.grad!, x]) tensor.dispose();
    expect(inUse()).toBe(before);
  });
});

describe('the tape', () => {
  let device: Device;
  beforeAll(async () => {
    device = await testDevice();
  });
  // Dawn aborts a process that ends while it still owes answers; the last test here reads nothing back.
  afterAll(() => device.gpu.sync());

  /** The gradient of `f` at `values`, with every buffer given back. */
  async function gradient(values: number[], f: (x: Tensor) => Tensor): Promise<number[]> {
    const before = device.gpu.counters().inUse;
    const x = device.parameter(Float32Array.from(values), [values.length], 'x');
    device.scope(() => device.backward(f(x)));
    const result = [...(await x.grad!.floats())];
    x.grad!.dispose();
    x.dispose();
    expect(device.gpu.counters().inUse).toBe(before);
    return result;
  }

  it('adds gradients that meet, whether they share memory or not', async () => {
    const cases: [string, (x: Tensor) => Tensor, (x: number) => number][] = [
      ['x + x: one view of the upstream gradient on both sides', (x) => sum(add(x, x)), () => 2],
      ['x + x + x', (x) => sum(add(add(x, x), x)), () => 3],
      ['x - x', (x) => sum(sub(x, x)), () => 0],
      ['a reshape that meets its origin', (x) => sum(add(reshape(reshape(x, [1, -1]), [-1]), x)), () => 2],
      ['a pass-through, then a kernel that adds', (x) => sum(add(x, mul(x, x))), (x) => 1 + 2 * x],
      ['a kernel, then a pass-through', (x) => sum(add(mul(x, x), x)), (x) => 1 + 2 * x],
      [
        'a diamond below another node',
        (x) => {
          const y = mul(x, x);
          return sum(add(add(y, reshape(y, y.shape)), mul(y, x)));
        },
        (x) => 4 * x + 3 * x * x,
      ],
      [
        'a node that is used by three later ones of different kinds',
        (x) => {
          const y = add(x, x);
          return sum(add(add(mul(y, y), y), reshape(y, y.shape)));
        },
        (x) => 8 * x + 4,
      ],
    ];
    const values = [-2, 0.5, 3];
    for (const [what, f, slope] of cases) {
      expectClose(await gradient(values, f), values.map(slope), 1e-6, what);
    }
  });

  it('adds to the gradient of an earlier backward pass, and never changes the upstream gradient', async () => {
    await device.scope(async () => {
      const upstream = device.tensor([1, 2], [2]);
      const [a, b] = [device.zeros([2]), device.zeros([2])];
      a.requiresGrad = true;
      b.requiresGrad = true;
      for (let pass = 1; pass <= 3; pass++) {
        device.backward(add(a, b), upstream);
        device.backward(add(a, a), upstream);
        expectClose(await a.grad!.floats(), [3 * pass, 6 * pass], 0);
        expectClose(await b.grad!.floats(), [pass, 2 * pass], 0);
        expectClose(await upstream.floats(), [1, 2], 0);
      }
      a.grad!.dispose();
      b.grad!.dispose();
    });
  });

  it('computes no gradient that nobody needs', async () => {
    await device.scope(async () => {
      const x = device.tensor([2, 3], [2]);
      const constant = device.tensor([5, 7], [2]);
      x.requiresGrad = true;
      device.backward(sum(mul(x, relu(constant))));
      expectClose(await x.grad!.floats(), [5, 7], 0);
      expect(constant.grad).toBeNull();
      x.grad!.dispose();
    });
  });

  it('goes back from several losses as from their sum, in one pass', async () => {
    await device.scope(async () => {
      const x = device.tensor([2, 3], [2]);
      x.requiresGrad = true;
      const squares = mul(x, x);
      const [first, second] = [sum(squares), sum(mul(squares, x))];
      // The third is computed from the first, and the first is given twice.
      device.backward([first, second, mul(first, first), first]);
      // 2·2x + 3x² + 2·13·2x
      expectClose(await x.grad!.floats(), [8 + 12 + 104, 12 + 27 + 156], 1e-5);
      x.grad!.dispose();
    });
  });

  it('starts from one upstream gradient for all losses, and leaves it as it is', async () => {
    await device.scope(async () => {
      const x = device.tensor([2, 3], [2]);
      x.requiresGrad = true;
      const scale = device.full([], 4);
      const first = sum(mul(x, x));
      device.backward([first, sum(x), first], scale);
      expectClose(await x.grad!.floats(), [4 * (8 + 1), 4 * (12 + 1)], 1e-6);
      expect(await scale.item()).toBe(4);
      x.grad!.dispose();
    });
  });

  it('refuses a second pass over one graph, a root without graph, and an upstream that is missing', () => {
    device.scope(() => {
      const x = device.full([2], 1);
      x.requiresGrad = true;
      const y = sum(mul(x, x));
      device.backward(y);
      expect(() => device.backward(y)).toThrow(/was already consumed \(at sum\)/);
      expect(() => device.backward(device.zeros([1]))).toThrow(
        /was not computed from anything that requires a gradient/,
      );
      expect(() => device.backward(mul(x, x))).toThrow(/has 2 elements and needs an upstream gradient/);
      x.grad!.dispose();
    });
  });

  it('names the operator that has no rule, and the input that has none', () => {
    device.scope(() => {
      const x = device.full([2], 1);
      x.requiresGrad = true;
      expect(() => device.backward(sum(ruleless({ x }, {})))).toThrow('test_without_rule has no backward rule.');
      const loss = binaryCrossEntropyWithLogits(device.zeros([2]), x);
      expect(() => device.backward(loss)).toThrow(
        'binary_cross_entropy_with_logits has no gradient rule for its input targets.',
      );
    });
  });

  it('noGrad records nothing, also across awaits, and detach cuts the graph', async () => {
    await device.scope(async () => {
      const x = device.full([2], 2);
      x.requiresGrad = true;
      const y = device.noGrad(() => mul(x, x));
      expect([y.requiresGrad, y.node]).toEqual([false, null]);
      await device.noGrad(async () => {
        await Promise.resolve();
        expect(mul(x, x).node).toBeNull();
      });
      expect(() =>
        device.noGrad(() => {
          throw new Error('inside');
        }),
      ).toThrow('inside');
      expect(device.gradEnabled).toBe(true);
      const cut = mul(x, x).detach();
      expect([cut.requiresGrad, cut.node]).toEqual([false, null]);
      device.backward(sum(mul(cut, x)));
      expectClose(await x.grad!.floats(), [4, 4], 0);
      x.grad!.dispose();
    });
  });

  it('frees saved tensors as soon as a node is consumed', async () => {
    // A pool that holds larger buffers of other tests would lend those.
    await device.gpu.trim();
    const x = device.parameter(new Float32Array(64 * 1024), [64 * 1024], 'x');
    device.scope(() => {
      const forward = device.gpu.counters().inUse;
      const y = device.scope(() => sum(sigmoid(sigmoid(sigmoid(x)))));
      const saved = device.gpu.counters().inUse - forward;
      expect(saved).toBeGreaterThanOrEqual(3 * 256 * 1024);
      device.backward(y);
      // What is left is the leaf's gradient and the scalar.
      expect(device.gpu.counters().inUse - forward).toBeLessThanOrEqual(256 * 1024 + 4096);
    });
    x.grad!.dispose();
    x.dispose();
  });
});
