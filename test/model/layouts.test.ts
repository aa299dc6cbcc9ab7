import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { deviceShape, type Layout, permuted, toDeviceLayout, toTorchLayout } from '../../src/model/layouts.ts';

const count = (shape: readonly number[]): number => shape.reduce((product, side) => product * side, 1);
const iota = (shape: readonly number[]): Float32Array => Float32Array.from({ length: count(shape) }, (_, i) => i);

describe('layouts', () => {
  it('conv: torch [out, in, kh, kw] at o, i, y, x is the device’s [kh, kw, in, out] at y, x, i, o', () => {
    const [O, I, H, W] = [3, 2, 4, 5];
    const device = toDeviceLayout(iota([O, I, H, W]), [O, I, H, W], { kind: 'conv' });
    expect(deviceShape([O, I, H, W], { kind: 'conv' })).toEqual([H, W, I, O]);
    for (let o = 0; o < O; o++)
      for (let i = 0; i < I; i++)
        for (let y = 0; y < H; y++)
          for (let x = 0; x < W; x++) {
            expect(device[((y * W + x) * I + i) * O + o]).toBe(((o * I + i) * H + y) * W + x);
          }
  });

  it('stem: as conv, with a fourth input channel of zeros that is dropped on the way back', () => {
    const shape = [2, 3, 1, 2];
    const layout: Layout = { kind: 'stem' };
    expect(deviceShape(shape, layout)).toEqual([1, 2, 4, 2]);
    const device = toDeviceLayout(iota(shape), shape, layout);
    // Tap 0: in 0 (out 0, out 1), in 1, in 2, in 3; then tap 1.
    expect([...device]).toEqual([0, 6, 2, 8, 4, 10, 0, 0, 1, 7, 3, 9, 5, 11, 0, 0]);
    expect([...toTorchLayout(device, shape, layout)]).toEqual([...iota(shape)]);
  });

  it('convTranspose: torch [in, out, kh, kw] is the device’s [kh, kw, in, out]', () => {
    const shape = [2, 3, 1, 2];
    expect(deviceShape(shape, { kind: 'convTranspose' })).toEqual([1, 2, 2, 3]);
    // in 0: out 0 (0, 1), out 1 (2, 3), out 2 (4, 5); in 1: 6 … 11.
    expect([...toDeviceLayout(iota(shape), shape, { kind: 'convTranspose' })]).toEqual([
      0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11,
    ]);
  });

  it('linear: torch [out, in] is the device’s [in, out]', () => {
    expect(deviceShape([2, 3], { kind: 'linear' })).toEqual([3, 2]);
    expect([...toDeviceLayout(iota([2, 3]), [2, 3], { kind: 'linear' })]).toEqual([0, 3, 1, 4, 2, 5]);
  });

  it('linearOverMaps: rows follow maps flattened with channels last', () => {
    const layout: Layout = { kind: 'linearOverMaps', maps: [2, 2, 3] };
    const shape = [2, 12];
    expect(deviceShape(shape, layout)).toEqual([12, 2]);
    const device = toDeviceLayout(iota(shape), shape, layout);
    for (let o = 0; o < 2; o++)
      for (let c = 0; c < 2; c++)
        for (let y = 0; y < 2; y++)
          for (let x = 0; x < 3; x++) {
            expect(device[((y * 3 + x) * 2 + c) * 2 + o]).toBe(o * 12 + (c * 2 + y) * 3 + x);
          }
  });

  it('go to the device and back without a change', () => {
    const side = fc.integer({ min: 1, max: 5 });
    const cases = fc.oneof(
      fc.tuple(fc.constantFrom<Layout>({ kind: 'conv' }, { kind: 'convTranspose' }), fc.tuple(side, side, side, side)),
      fc.tuple(fc.constant<Layout>({ kind: 'linear' }), fc.tuple(side, side)),
      fc.tuple(fc.constant<Layout>({ kind: 'plain' }), fc.tuple(side)),
      fc
        .tuple(side, side, side, side)
        .map(([out, c, h, w]): [Layout, number[]] => [{ kind: 'linearOverMaps', maps: [c, h, w] }, [out, c * h * w]]),
    );
    const property = fc.property(cases, ([layout, shape]) => {
      const values = iota(shape);
      const device = toDeviceLayout(values, shape, layout);
      expect(device).toHaveLength(count(deviceShape(shape, layout)));
      expect(toTorchLayout(device, shape, layout)).toEqual(values);
    });
    fc.assert(property, { seed: 4, numRuns: 200 });
  });

  it('permuted: output axis k is input axis order[k]', () => {
    expect([...permuted(iota([2, 3, 2]), [2, 3, 2], [1, 2, 0])]).toEqual([0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]);
  });
});
