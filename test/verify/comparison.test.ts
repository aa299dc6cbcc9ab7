import { describe, expect, test } from 'vitest';
import { pastedBox } from '../../src/verify/detections.ts';
import { joinOrders, matchRows, orderAmong, reorderRows } from '../../src/verify/matching.ts';
import { failureSentence, renderCase } from '../../src/verify/report.ts';
import { compareExactly, compareTensors, compareValues } from '../../src/verify/rows.ts';

const comparison = { name: 'x', stage: 's', tolerance: 1e-4 };

describe('compareExactly', () => {
  test('counts what differs and names the first, long texts by their beginning', () => {
    expect(compareExactly([1, 'a', 3], [1, 'a', 3], comparison)).toMatchObject({ ok: true, error: 0, tolerance: 0 });
    expect(compareExactly([1, 'b', 4], [1, 'a', 3], comparison)).toMatchObject({
      ok: false,
      error: 2,
      note: 'at 1: "b", expected "a"',
    });
    expect(compareExactly(['x'.repeat(50)], [1], comparison).note).toBe(`at 0: "${'x'.repeat(39)}…", expected 1`);
    expect(compareExactly([1], [1, 2], comparison)).toMatchObject({ ok: false, note: '1 values, expected 2' });
  });
});

describe('compareValues', () => {
  test('is relative to the largest expected value and names the worst place', () => {
    const row = compareValues([1, -200.1, 3], [1, -200, 3], comparison);
    expect(row.error).toBeCloseTo(0.1 / 200, 10);
    expect(row).toMatchObject({ name: 'x', ok: false, note: 'at 1: -200.1, expected -200' });
    expect(compareValues([1, -200.01, 3], [1, -200, 3], comparison)).toMatchObject({ ok: true });
    expect(compareValues([1.5], [1], { ...comparison, scale: 10 }).error).toBeCloseTo(0.05, 10);
  });

  test('a value that is not a number, or off an expectation of zeros, never holds', () => {
    expect(compareValues([Number.NaN, 1], [0.5, 1], comparison)).toMatchObject({
      ok: false,
      error: Number.POSITIVE_INFINITY,
    });
    expect(compareValues([0.5, Number.NaN, 0.6], [0.5, 1, 2], comparison).note).toContain('at 1');
    expect(compareValues([1e-30], [0], comparison)).toMatchObject({ ok: false, error: Number.POSITIVE_INFINITY });
    expect(compareValues([0, -0], [0, 0], comparison)).toMatchObject({ ok: true, error: 0 });
    expect(compareValues([1], [1, 1], comparison).ok).toBe(false);
    expect(compareValues([], [], comparison)).toMatchObject({ ok: true, error: 0 });
  });

  test('shapes must agree, save that a scalar is stored as [1]', () => {
    const data = Float32Array.of(1, 2, 3, 4);
    expect(compareTensors({ shape: [2, 2], data }, { shape: [4, 1], data }, comparison)).toMatchObject({
      ok: false,
      note: 'shape [2,2], expected [4,1]',
    });
    const one = Float32Array.of(1);
    expect(compareTensors({ shape: [], data: one }, { shape: [1], data: one }, comparison).ok).toBe(true);
  });
});

describe('matchRows', () => {
  const rows = (...boxes: number[][]): Float32Array => Float32Array.from(boxes.flat());

  test('finds swapped neighbours', () => {
    const a = [0, 0, 10, 10];
    const b = [5, 5, 20, 20];
    const c = [0, 0, 10, 12];
    const order = matchRows(rows(a, c, b), rows(a, b, c), 4);
    expect(order).toEqual(Int32Array.of(0, 2, 1));
    expect(reorderRows(rows(a, c, b), 4, order as Int32Array)).toEqual(rows(a, b, c));
  });

  test('equal rows keep their places, and every row is used once', () => {
    const a = [1, 2, 3, 4];
    expect(matchRows(rows(a, a, a), rows(a, a, a), 4)).toEqual(Int32Array.of(0, 1, 2));
    const nan = [Number.NaN, 0, 0, 0];
    expect([...(matchRows(rows(nan, nan), rows(a, a), 4) as Int32Array)].sort()).toEqual([0, 1]);
    expect(matchRows(rows(a), rows(a, a), 4)).toBeNull();
    expect(matchRows(rows(), rows(), 4)).toEqual(new Int32Array(0));
  });

  test('joins images and keeps to the positives', () => {
    expect(joinOrders([Int32Array.of(1, 0), Int32Array.of(), Int32Array.of(0, 1)])).toEqual(Int32Array.of(1, 0, 2, 3));
    const positive = [false, true, false, true];
    const swapped = Int32Array.of(0, 3, 2, 1);
    const keep = (row: number): boolean => positive[row];
    expect(orderAmong(swapped, keep, keep)).toEqual(Int32Array.of(1, 0));
    expect(orderAmong(Int32Array.of(1, 0, 2, 3), keep, keep)).toBeNull();
  });
});

test('a pasted box grows by 30 / 28 and is truncated towards zero', () => {
  expect(pastedBox([10, 20, 38, 48])).toEqual([9, 19, 39, 49]);
  expect(pastedBox([0, 0, 14, 7])).toEqual([0, 0, 14, 7]);
});

describe('report', () => {
  const row = (name: string, error: number, ok = true) => ({ name, stage: 'gradients', error, tolerance: 1e-3, ok });
  const cases = [
    { name: 'tiny', kind: 'model' as const, rows: [row('a', 1e-5), row('b', 2e-4), row('c', 0.5, false)] },
  ];

  test('sums up what holds and lists what does not', () => {
    const text = renderCase(cases[0]);
    expect(text).toContain('2 tensors, worst b');
    expect(text).toMatch(/c .*0\.50 .*OFF/);
    expect(text.split('\n').filter((line) => line.includes('gradients'))).toHaveLength(2);
    expect(
      renderCase(cases[0], true)
        .split('\n')
        .filter((line) => line.includes('gradients')),
    ).toHaveLength(3);
  });

  test('names the tensors that are off', () => {
    expect(failureSentence(cases)).toBe('1 of 3 tensors is off: tiny c.');
    expect(failureSentence([{ ...cases[0], rows: [row('a', 0)] }])).toBeUndefined();
  });
});
