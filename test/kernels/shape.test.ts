import { beforeAll, describe, expect, it } from 'vitest';
import { mul } from '../../src/kernels/arithmetic.ts';
import { sum } from '../../src/kernels/reduce.ts';
import {
  cat,
  gatherClass,
  indexSelect,
  narrow,
  permute,
  reshape,
  selectChannel,
  selectClassBoxes,
} from '../../src/kernels/shape.ts';
import type { Device } from '../../src/tensor/device.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { expectGolden, haveGoldens, opsCases } from '../support/goldens.ts';
import { uniform } from '../support/random.ts';

const counting = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

describe('moving elements', () => {
  let device: Device;
  beforeAll(async () => {
    device = await testDevice();
  });

  /** The gradient of Σ y² / 2 is y moved back to where it came from. */
  async function gradientOf(x: Tensor, move: (x: Tensor) => Tensor): Promise<number[]> {
    x.requiresGrad = true;
    const y = move(x);
    device.backward(sum(mul(y, y)));
    const gradient = (await x.grad!.floats()).map((value) => value / 2);
    x.grad!.dispose();
    x.grad = null;
    return [...gradient];
  }

  it('reshape infers one extent, shares memory, and refuses what does not fit', async () => {
    await device.scope(async () => {
      const x = device.tensor(counting(12), [3, 4]);
      const y = reshape(x, [2, -1, 3]);
      expect([...y.shape]).toEqual([2, 2, 3]);
      expect(y.buffer).toBe(x.buffer);
      expect(await gradientOf(x, (t) => reshape(t, [12]))).toEqual(counting(12));
      expect(() => reshape(x, [5, -1])).toThrow('reshape: x: expected a tensor that fills [5,-1], got f32[3, 4].');
      expect(() => reshape(x, [-1, -1])).toThrow(/reshape/);
      expect([...reshape(device.zeros([0, 4]), [0, 2, 2]).shape]).toEqual([0, 2, 2]);
      expect(() => reshape(device.zeros([0, 4]), [0, -1])).toThrow(/reshape/);
    });
  });

  it('permute copies floats and integers bit for bit', async () => {
    await device.scope(async () => {
      const labels = device.tensor(Int32Array.of(-1, 2, 2147483647, -2147483648, 5, 0x7f800001), [2, 3], 'i32');
      const turned = permute(labels, [1, 0]);
      expect(turned.dtype).toBe('i32');
      expect([...(await turned.ints())]).toEqual([-1, -2147483648, 2, 5, 2147483647, 0x7f800001]);
      expect([...(await permute(device.tensor([4], []), []).floats())]).toEqual([4]);
      expect([...permute(device.zeros([2, 0, 3]), [2, 1, 0]).shape]).toEqual([3, 0, 2]);
      expect(() => permute(labels, [0, 0])).toThrow('permute: dims: expected each of 2 dimensions once, got [0,0].');
    });
  });

  it('permute moves beyond 65535 workgroups', async () => {
    const rows = 65537;
    await device.scope(async () => {
      const host = uniform(rows * 65, 1);
      const y = await permute(device.tensor(host, [rows, 65]), [1, 0]).floats();
      for (const i of [0, 1, rows - 1, rows, 64 * rows, 65 * rows - 1]) {
        expect(y[i]).toBe(host[(i % rows) * 65 + Math.floor(i / rows)]);
      }
    });
  });

  it('moves vectors where runs are whole and aligned, and the same elements where they are not', async () => {
    await device.scope(async () => {
      const x = device.tensor(counting(2 * 3 * 5 * 8), [2, 3, 5, 8]);
      const at = (image: number, row: number, column: number, channel: number) =>
        ((image * 3 + row) * 5 + column) * 8 + channel;
      const box = (columns: number[], channels: number[]) =>
        [0, 1].flatMap((n) => [0, 1, 2].flatMap((r) => columns.flatMap((c) => channels.map((ch) => at(n, r, c, ch)))));
      expect([...(await narrow(x, 2, 1, 3).floats())]).toEqual(box([1, 2, 3], counting(8)));
      expect([...(await narrow(x, 3, 4, 4).floats())]).toEqual(box(counting(5), [4, 5, 6, 7]));
      expect([...(await narrow(x, 3, 3, 4).floats())]).toEqual(box(counting(5), [3, 4, 5, 6]));
      const turned = counting(5).flatMap((c) =>
        [0, 1].flatMap((n) => [0, 1, 2].flatMap((r) => counting(8).map((ch) => at(n, r, c, ch)))),
      );
      expect([...(await permute(x, [2, 0, 1, 3]).floats())]).toEqual(turned);
      const twice = (t: Tensor) => cat([narrow(t, 2, 0, 4), narrow(t, 2, 3, 2)], 2);
      // Column 3 is in both parts.
      const used = (i: number) => (Math.floor(i / 8) % 5 === 3 ? 2 : 1);
      expect(await gradientOf(x, twice)).toEqual(counting(x.size).map((i) => used(i) * i));
    });
  });

  it('narrow takes a part; the rest of its gradient is 0', async () => {
    await device.scope(async () => {
      const x = device.tensor(counting(12), [3, 4]);
      expect([...(await narrow(x, 1, 1, 2).floats())]).toEqual([1, 2, 5, 6, 9, 10]);
      expect([...(await narrow(x, -2, 2, 1).floats())]).toEqual([8, 9, 10, 11]);
      expect([...narrow(x, 0, 3, 0).shape]).toEqual([0, 4]);
      expect(await gradientOf(x, (t) => narrow(t, 1, 1, 2))).toEqual([0, 1, 2, 0, 0, 5, 6, 0, 0, 9, 10, 0]);
      expect(await gradientOf(x, (t) => narrow(t, 0, 1, 0))).toEqual(counting(12).map(() => 0));
      expect(() => narrow(x, 1, 3, 2)).toThrow('narrow: x: expected at least 3 + 2 along dimension 1, got f32[3, 4].');
    });
  });

  it('narrow adds its gradient to one that is already there', async () => {
    await device.scope(async () => {
      const x = device.tensor(counting(5), [5]);
      expect(await gradientOf(x, (t) => cat([narrow(t, 0, 0, 3), narrow(t, 0, 2, 3), t]))).toEqual([0, 2, 6, 6, 8]);
    });
  });

  it('cat joins integers, empty parts and one tensor with itself', async () => {
    await device.scope(async () => {
      const a = device.tensor(Int32Array.of(1, -2), [2], 'i32');
      const joined = cat([a, device.zeros([0], 'i32'), a, device.tensor(Int32Array.of(7), [1], 'i32')]);
      expect([...(await joined.ints())]).toEqual([1, -2, 1, -2, 7]);
      const x = device.tensor([1, 2, 3, 4], [2, 2]);
      expect(await gradientOf(x, (t) => cat([t, t], 1))).toEqual([2, 4, 6, 8]);
      expect([...cat([device.zeros([2, 0]), device.zeros([2, 0])], 0).shape]).toEqual([4, 0]);
      expect(() => cat([x, device.zeros([2, 3])], 0)).toThrow(
        'cat: tensors: expected f32[2, 2] but for dimension 0, got f32[2, 3].',
      );
      expect(() => cat([x, joined])).toThrow(/cat: tensors/);
      expect(() => cat([])).toThrow(/at least one/);
    });
  });

  it('indexSelect gives zeros for indices outside, of integers too, and of nothing nothing', async () => {
    await device.scope(async () => {
      const x = device.tensor(
        counting(6).map((i) => i + 1),
        [3, 2],
      );
      const index = device.tensor(Int32Array.of(2, -1, 3, 0, 2), [5], 'i32');
      expect([...(await indexSelect(x, index).floats())]).toEqual([5, 6, 0, 0, 0, 0, 1, 2, 5, 6]);
      expect(await gradientOf(x, (t) => indexSelect(t, index))).toEqual([1, 2, 0, 0, 10, 12]);
      const none = device.zeros([0], 'i32');
      expect([...indexSelect(x, none).shape]).toEqual([0, 2]);
      expect(await gradientOf(x, (t) => indexSelect(t, none))).toEqual([0, 0, 0, 0, 0, 0]);
      const labels = device.tensor(Int32Array.of(9, -7, 5), [3], 'i32');
      expect([...(await indexSelect(labels, index).ints())]).toEqual([5, 0, 0, 9, 5]);
      expect(() => indexSelect(x, device.zeros([2]))).toThrow('index_select: index: expected i32[K], got f32[2].');
    });
  });

  it("indexSelect's gradient adds many equal indices in one fixed order", async () => {
    await device.scope(async () => {
      const rows = 37;
      const places = 3000;
      const chosen = Int32Array.from(uniform(places, 5, 0, rows), Math.floor);
      const index = device.tensor(chosen, [places], 'i32');
      const upstream = uniform(places * 3, 6);
      const expected = new Float64Array(rows * 3);
      upstream.forEach((value, i) => {
        expected[chosen[Math.floor(i / 3)] * 3 + (i % 3)] += value;
      });
      let first: Float32Array | null = null;
      for (let i = 0; i < 2; i++) {
        const x = device.zeros([rows, 3]);
        x.requiresGrad = true;
        device.backward(indexSelect(x, index), device.tensor(upstream, [places, 3]));
        const gradient = await x.grad!.floats();
        x.grad!.dispose();
        expectClose(gradient, expected, 1e-5);
        if (first) expect(gradient).toEqual(first);
        first = gradient;
      }
    });
  });

  it('selects the channel and the boxes of the labelled class', async () => {
    await device.scope(async () => {
      const masks = device.tensor(counting(2 * 2 * 2 * 3), [2, 2, 2, 3]);
      const labels = device.tensor(Int32Array.of(2, 0), [2], 'i32');
      const chosen = selectChannel(masks, labels);
      expect([...chosen.shape]).toEqual([2, 2, 2]);
      expect([...(await chosen.floats())]).toEqual([2, 5, 8, 11, 12, 15, 18, 21]);
      const gradient = await gradientOf(masks, (t) => selectChannel(t, labels));
      expect(gradient).toEqual(counting(24).map((i) => ([2, 5, 8, 11, 12, 15, 18, 21].includes(i) ? i : 0)));
      const boxes = device.tensor(counting(2 * 12), [2, 12]);
      expect([...(await selectClassBoxes(boxes, labels).floats())]).toEqual([8, 9, 10, 11, 12, 13, 14, 15]);
      const nothing = selectClassBoxes(device.zeros([0, 12]), device.zeros([0], 'i32'));
      expect([...nothing.shape]).toEqual([0, 4]);
      expect(() => gatherClass(device.zeros([2, 1, 3, 4]), device.zeros([3], 'i32'))).toThrow(
        'gather_class: labels: expected i32[2], got i32[3].',
      );
      expect(() => selectClassBoxes(device.zeros([2, 5]), labels)).toThrow(/boxRegression: expected \[N, 4·C\]/);
    });
  });

  describe.skipIf(!haveGoldens)('goldens', () => {
    const apply: Record<string, (inputs: Record<string, Tensor>, params: Record<string, unknown>) => Tensor> = {
      cat: ({ a, b }, { dim }) => cat([a, b], dim as number),
      permute: ({ x }, { dims }) => permute(x, dims as number[]),
      index_select: ({ x, index }, { dim }) => indexSelect(x, index, dim as number),
    };
    for (const golden of opsCases('cat', 'permute', 'index_select')) {
      it(`${golden.index} ${golden.op}`, () =>
        expectGolden(device, golden, (inputs) => apply[golden.op](inputs, golden.params)));
    }
  });
});
