import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AdapterChoice } from '../../src/gpu/adapter.ts';
import { GpuError } from '../../src/gpu/gpu.ts';
import { openDevice } from '../../src/gpu/nodeAdapter.ts';
import { sizeClass } from '../../src/gpu/pool.ts';
import { defineProgram, perElement } from '../../src/gpu/program.ts';
import { add } from '../../src/kernels/arithmetic.ts';
import { Device } from '../../src/tensor/device.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { testDevice } from '../support/device.ts';

const increment = defineProgram({
  name: 'testIncrement',
  uniforms: { count: 'u32', step: 'f32' },
  bindings: { x: 'read', y: 'write' },
  code: () => perElement('y[i] = x[i] + u.step;'),
});

describe('commands and memory', () => {
  let device: Device;
  beforeAll(async () => {
    device = await testDevice();
  });

  it('keeps the order of dispatches, clears, copies and writes over many submits', async () => {
    await device.scope(async () => {
      let x = device.tensor([0, 10], [2]);
      const submits = device.gpu.counters().submits;
      // Three times what one submit holds; each dispatch has uniforms of its own.
      for (let i = 1; i <= 400; i++) {
        const y = device.empty([2]);
        device.gpu.dispatch(increment, { buffers: { x, y }, uniforms: { count: 2, step: i }, workgroups: 1 });
        x.dispose();
        x = y;
      }
      expect(device.gpu.counters().submits - submits).toBeGreaterThanOrEqual(3);
      const copy = device.empty([2]);
      device.gpu.copy(x.buffer, copy.buffer, 4, 4, 0);
      device.gpu.write(copy.buffer, Float32Array.of(7), 4);
      device.gpu.clear(x.buffer, 4);
      expect([...(await x.floats())]).toEqual([0, 80210]);
      expect([...(await copy.floats())]).toEqual([80210, 7]);
    });
  });

  it('keeps small uploads in order with what is around them, without a submit for each', async () => {
    await device.scope(async () => {
      await device.gpu.sync();
      const submits = device.gpu.counters().submits;
      const x = device.zeros([2]);
      const seen: Tensor[] = [];
      for (let i = 1; i <= 20; i++) {
        const host = Float32Array.of(i, -i);
        device.gpu.write(x.buffer, host);
        host.fill(Number.NaN);
        const y = device.empty([2]);
        device.gpu.dispatch(increment, { buffers: { x, y }, uniforms: { count: 2, step: 100 }, workgroups: 1 });
        seen.push(y);
      }
      expect(device.gpu.counters().submits).toBe(submits);
      const values = await device.readAll(seen);
      expect(values.map(([a, b]) => [a, b])).toEqual(seen.map((_, i) => [101 + i, 99 - i]));
    });
  });

  it('takes uploads beyond what a submit carries, and bytes that fill no whole word', async () => {
    await device.scope(async () => {
      const floats = 50_000;
      const tensors = Array.from({ length: 4 }, (_, i) => {
        const tensor = device.zeros([floats]);
        device.gpu.write(tensor.buffer, new Float32Array(floats).fill(i + 1));
        return tensor;
      });
      const bytes = device.full([2], 1);
      device.gpu.write(bytes.buffer, Uint8Array.of(0, 0, 64, 64, 255));
      for (const [i, values] of (await device.readAll(tensors)).entries())
        expect(new Set(values)).toEqual(new Set([i + 1]));
      // 0x40400000 is 3; of the last word the rest is 0.
      expect(new Uint32Array((await bytes.floats()).buffer)).toEqual(Uint32Array.of(0x40400000, 255));
    });
  });

  it('reads several tensors at once, integers and empty ones too', async () => {
    await device.scope(async () => {
      const values = Int32Array.of(-5, 2147483647, 0);
      const tensors = [device.tensor(values, [3], 'i32'), device.tensor([1.5], []), device.zeros([0, 4])];
      const [integers, scalar, nothing] = await Promise.all(tensors.map((tensor) => tensor.data()));
      expect(integers).toEqual(values);
      expect([...scalar]).toEqual([1.5]);
      expect(nothing.length).toBe(0);
      await expect(tensors[0].floats()).rejects.toThrow('i32[3] holds no floats.');
      await expect(tensors[0].item()).rejects.toThrow('item() needs one element');
    });
  });

  it('folds grids beyond 65535 workgroups and reaches the last element', async () => {
    const size = 65535 * 64 + 3;
    await device.scope(async () => {
      const x = device.full([size], 2);
      const last = device.empty([4]);
      device.gpu.copy(x.buffer, last.buffer, 16, (size - 4) * 4, 0);
      expect([...(await last.floats())]).toEqual([2, 2, 2, 2]);
    });
  });

  it('refuses a grid, a uniform or a binding that is wrong, by the name of the program', () => {
    device.scope(() => {
      const [x, y] = [device.zeros([2]), device.zeros([2])];
      const good = { buffers: { x, y }, uniforms: { count: 2, step: 1 } };
      expect(() => device.gpu.dispatch(increment, { ...good, workgroups: [65536, 1, 1] })).toThrow(
        'testIncrement: grid 65536×1×1 passes the limit of 65535 workgroups per dimension.',
      );
      const uniforms = { count: 2, step: Number.NaN };
      expect(() => device.gpu.dispatch(increment, { ...good, uniforms, workgroups: 1 })).toThrow(
        'testIncrement: the uniform step is NaN.',
      );
      const buffers = { x } as { x: typeof x; y: typeof y };
      expect(() => device.gpu.dispatch(increment, { ...good, buffers, workgroups: 1 })).toThrow(
        'testIncrement: the binding y was given no buffer.',
      );
      expect(() => device.empty([2, -1])).toThrow('[2,-1] is no shape.');
      expect(() => device.tensor([1, 2, 3], [2])).toThrow('3 values do not fill [2].');
    });
  });

  it('says how large a tensor may be when one is too large', () => {
    const limit = device.gpu.limits.maxBufferSize;
    expect(() => device.empty([limit, 2])).toThrow(GpuError);
    expect(() => device.empty([limit, 2])).toThrow(
      new RegExp(`A tensor of \\d+ bytes was asked for, but a buffer of this adapter holds at most ${limit} bytes`),
    );
  });

  it('size classes waste at most a fifth and hold what was asked for', () => {
    for (let bytes = 1; bytes < 1e8; bytes = Math.ceil(bytes * 1.0371)) {
      const size = sizeClass(bytes);
      expect(size).toBeGreaterThanOrEqual(bytes);
      expect(size % 4).toBe(0);
      if (bytes > 4096) expect(size - bytes).toBeLessThanOrEqual(size / 5);
      expect(sizeClass(size)).toBe(size);
    }
  });

  it('gives memory back to the system when asked', async () => {
    device.scope(() => {
      device.zeros([300_001]);
    });
    const before = device.gpu.counters();
    await device.gpu.trim();
    const after = device.gpu.counters();
    expect(after.held).toBeLessThan(before.held);
    expect(after.held).toBe(after.inUse);
    await device.scope(async () => {
      expect([...(await add(device.full([2], 1), device.full([2], 2)).floats())]).toEqual([3, 3]);
    });
  });
});

/** A device that reported an error stays failed, so each of these has its own. */
describe('errors of the device', () => {
  const opened: Device[] = [];
  const fresh = async (): Promise<Device> => {
    const device = new Device(await openDevice((process.env.WEBGPU_ADAPTER ?? 'auto') as AdapterChoice));
    opened.push(device);
    return device;
  };
  afterAll(async () => {
    for (const device of opened) await device.gpu.close();
  });

  it('a program that does not compile shows its numbered source at the next read', async () => {
    const device = await fresh();
    const broken = defineProgram({
      name: 'testBroken',
      uniforms: { count: 'u32' },
      bindings: { y: 'write' },
      code: () => perElement('y[i] = nothingOfThatName;'),
    });
    const y = device.zeros([2]);
    device.gpu.dispatch(broken, { buffers: { y }, uniforms: { count: 2 }, workgroups: 1 });
    const message = await y.floats().then(
      () => 'no error',
      (error: Error) => error.message,
    );
    expect(message).toMatch(/WGSL of testBroken does not compile/);
    expect(message).toMatch(/nothingOfThatName/);
    expect(message).toMatch(/^ +\d+ {2}.*y\[i\] = nothingOfThatName;$/m);
    expect(() => device.zeros([2]) && device.full([2], 1)).toThrow(GpuError);
  });

  it('a command that the device refuses is an error at the next read, not zeros', async () => {
    const device = await fresh();
    const x = device.full([4], 1);
    // One buffer may not be read and written in one dispatch.
    device.gpu.dispatch(increment, { buffers: { x, y: x }, uniforms: { count: 4, step: 1 }, workgroups: 1 });
    await expect(x.floats()).rejects.toThrow(GpuError);
    await expect(device.gpu.sync()).rejects.toThrow(GpuError);
  });

  it('asynchronous scopes that interleave are an error', async () => {
    const device = await fresh();
    let finish = (): void => {};
    const first = device.scope(
      () =>
        new Promise<void>((resolve) => {
          finish = resolve;
        }),
    );
    const second = device.scope(() => new Promise<void>(() => {}));
    finish();
    await expect(first).rejects.toThrow('Scopes interleave: an asynchronous scope was not awaited.');
    expect(second).toBeInstanceOf(Promise);
  });

  it('a device that was destroyed says so', async () => {
    const device = await fresh();
    const x = device.full([4], 1);
    await x.floats();
    device.gpu.device.destroy();
    await device.gpu.device.lost;
    await Promise.resolve();
    await expect(x.floats()).rejects.toThrow(/The device was lost/);
  });
});
