import { describe, expect, it } from 'vitest';
import { busyMs, chromeTrace, Profiler, profileTable, type Span } from '../../src/gpu/profiler.ts';
import { matmul } from '../../src/kernels/matmul.ts';
import { sum } from '../../src/kernels/reduce.ts';
import { testDevice } from '../support/device.ts';

const span = (kernel: string, module: string, start: number, end: number): Span => ({
  kernel,
  module,
  start: start * 1e6,
  end: end * 1e6,
  bytes: 10,
  flops: 100,
});
const spans = [span('a', 'x', 5, 7), span('b', 'y', 6, 9), span('a', 'y', 20, 21), span('b', 'y', 20.25, 20.5)];

describe('spans', () => {
  it('are summed by name, the longest first', () => {
    expect(profileTable(spans, ({ kernel }) => kernel)).toEqual([
      { name: 'b', calls: 2, ms: 3.25, flops: 200, bytes: 20 },
      { name: 'a', calls: 2, ms: 3, flops: 200, bytes: 20 },
    ]);
  });

  it('that overlap are busy once', () => {
    expect(busyMs(spans)).toBe(5);
    expect(busyMs([])).toBe(0);
  });

  it('become a Chrome trace in microseconds, a row for each part of the model', () => {
    const { traceEvents } = JSON.parse(chromeTrace(spans)) as { traceEvents: Record<string, unknown>[] };
    expect(traceEvents.filter(({ ph }) => ph === 'M').map(({ args }) => (args as { name: string }).name)).toEqual([
      'x',
      'y',
    ]);
    const timed = traceEvents.filter(({ ph }) => ph === 'X');
    expect(timed.map(({ name, tid, ts, dur }) => [name, tid, ts, dur])).toEqual([
      ['a', 0, 0, 2000],
      ['b', 1, 1000, 3000],
      ['a', 1, 15000, 1000],
      ['b', 1, 15250, 250],
    ]);
  });
});

describe('a profiled device', () => {
  it('times every dispatch under its part of the model, backward too, and computes the same', async (context) => {
    const device = await testDevice();
    if (!device.gpu.device.features.has('timestamp-query')) {
      expect(() => new Profiler(device.gpu.device)).toThrow('timestamp-query');
      context.skip(`${device.gpu.opened.info.name} has no timestamp queries`);
    }
    const values = (n: number): Float32Array => Float32Array.from({ length: n }, (_, i) => Math.sin(i));
    const w = device.parameter(values(64 * 40), [64, 40], 'w');
    const step = async (): Promise<{ y: Float32Array; gradient: Float32Array }> =>
      device.scope(async () => {
        const y = device.labelled('head', () => matmul(device.tensor(values(70 * 64), [70, 64]), w));
        device.backward(device.labelled('loss', () => sum(y)));
        const read = { y: await y.floats(), gradient: await w.grad!.floats() };
        w.grad!.dispose();
        w.grad = null;
        return read;
      });
    const plain = await step();
    const before = device.gpu.counters().dispatches;
    const profiler = new Profiler(device.gpu.device);
    device.gpu.profileWith(profiler);
    try {
      // More dispatches than fit into one submit.
      for (let i = 0; i < 20; i++) expect(await step()).toEqual(plain);
      const timed = await profiler.collect(device.gpu);
      expect(timed).toHaveLength(device.gpu.counters().dispatches - before);
      const modules = new Set(timed.map(({ module }) => module));
      for (const name of ['head', 'head, backward', 'loss', 'loss, backward']) expect(modules).toContain(name);
      for (const { start, end } of timed) expect(end).toBeGreaterThanOrEqual(start);
      const forward = timed.filter(({ module, flops }) => module === 'head' && flops > 0);
      expect(forward.map(({ flops }) => flops)).toEqual(Array(20).fill(2 * 70 * 64 * 40));
      expect(await profiler.collect(device.gpu)).toEqual([]);
    } finally {
      device.gpu.profileWith(null);
      profiler.destroy();
      w.dispose();
    }
    expect(device.gpu.label).toBe('');
  });
});
