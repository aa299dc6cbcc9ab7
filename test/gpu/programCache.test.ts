import { beforeAll, describe, expect, it } from 'vitest';
import { defineProgram, perElement } from '../../src/gpu/program.ts';
import type { ProgramUse } from '../../src/gpu/programCache.ts';
import type { Device } from '../../src/tensor/device.ts';
import { testDevice } from '../support/device.ts';

const scaled = defineProgram({
  name: 'testScaled',
  uniforms: { count: 'u32' },
  bindings: { y: 'write' },
  code: ({ by }: { by: number }) => perElement(`y[i] = ${by}.0 * f32(i);`),
});
const use = (program: unknown, flags: ProgramUse['flags']): ProgramUse => ({ program, flags }) as ProgramUse;

describe('programs compiled before their first dispatch', () => {
  let device: Device;
  beforeAll(async () => {
    device = await testDevice();
  });

  const compute = (by: number): Promise<Float32Array> =>
    device.scope(() => {
      const y = device.empty([4]);
      device.gpu.dispatch(scaled, { flags: { by }, buffers: { y }, uniforms: { count: 4 }, workgroups: 1 });
      return y.floats();
    });

  it('are not compiled again', async () => {
    const before = device.gpu.counters().pipelines;
    let ready = 0;
    const compiled: number[] = [];
    device.gpu.onCompile = (count) => compiled.push(count);
    try {
      const verdicts = await device.gpu.prepare([use(scaled, { by: 2 }), use(scaled, { by: 3 })], (count) => {
        ready = count;
      });
      expect(verdicts).toEqual([null, null]);
      expect(ready).toBe(2);
      expect(await device.gpu.prepare([use(scaled, { by: 2 })])).toEqual([null]);
      expect([...(await compute(2))]).toEqual([0, 2, 4, 6]);
      expect([...(await compute(3))]).toEqual([0, 3, 6, 9]);
      expect(device.gpu.counters().pipelines).toBe(before + 2);
      expect(compiled).toEqual([]);
      expect([...(await compute(5))]).toEqual([0, 5, 10, 15]);
      expect(compiled).toEqual([before + 3]);
    } finally {
      device.gpu.onCompile = null;
    }
    const flags = device.gpu.programsUsed
      .filter(({ program }) => program.name === 'testScaled')
      .map((used) => used.flags);
    expect(flags).toEqual([{ by: 2 }, { by: 3 }, { by: 5 }]);
  });

  it('are others for arrays of float16', async (context) => {
    context.skip(!device.hasHalves, `${device.gpu.opened.info.name} lacks shader-f16`);
    const before = device.gpu.counters().pipelines;
    expect(await device.gpu.prepare([{ ...use(scaled, { by: 11 }), halves: 'y ' }])).toEqual([null]);
    const values = await device.scope(() => {
      const y = device.empty([4], 'f16');
      device.gpu.dispatch(scaled, { flags: { by: 11 }, buffers: { y }, uniforms: { count: 4 }, workgroups: 1 });
      return y.floats();
    });
    expect([...values]).toEqual([0, 11, 22, 33]);
    expect(device.gpu.counters().pipelines).toBe(before + 1);
    expect(device.gpu.programsUsed.at(-1)).toMatchObject({ flags: { by: 11 }, halves: 'y ' });
  });

  it('tell what is wrong with them, and leave the device as it was', async () => {
    const broken = defineProgram({
      name: 'testPreparedBroken',
      uniforms: { count: 'u32' },
      bindings: { y: 'write' },
      code: () => perElement('y[i] = nothingOfThatName;'),
    });
    const wide = defineProgram({
      name: 'testPreparedWide',
      uniforms: { count: 'u32' },
      bindings: { y: 'write' },
      code: () => perElement('y[i] = 1.0;', 65_536),
    });
    const [text, size, right] = await device.gpu.prepare([use(broken, {}), use(wide, {}), use(scaled, { by: 7 })]);
    expect(text?.message).toMatch(/WGSL of testPreparedBroken does not compile:\n.*nothingOfThatName/);
    expect(size?.message).toMatch(/testPreparedWide/);
    expect(right).toBeNull();
    expect([...(await compute(7))]).toEqual([0, 7, 14, 21]);
  });
});
