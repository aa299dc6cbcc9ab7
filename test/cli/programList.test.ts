import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { compileKnown, keepProgramList, programListFile, readProgramList } from '../../src/cli/programList.ts';
import { defineProgram, perElement } from '../../src/gpu/program.ts';
import { Device } from '../../src/tensor/device.ts';
import { testDevice } from '../support/device.ts';

const named = defineProgram({
  name: 'testListed',
  uniforms: { count: 'u32' },
  bindings: { y: 'write' },
  code: ({ by }: { by: number }) => perElement(`y[i] = ${by}.0;`),
});

describe('programs that a kind of work dispatched the last time', () => {
  const before = process.env.XDG_CACHE_HOME;
  let folder: string;
  let device: Device;
  beforeEach(async () => {
    const { opened } = (await testDevice()).gpu;
    device = new Device(await opened.reopen());
    folder = mkdtempSync(join(tmpdir(), 'programs-'));
    process.env.XDG_CACHE_HOME = folder;
  });
  afterEach(async () => {
    if (before === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = before;
    rmSync(folder, { recursive: true, force: true });
    await device.gpu.close();
  });

  const dispatch = (on: Device, by: number): Promise<Float32Array> =>
    on.scope(() => {
      const y = on.empty([2]);
      on.gpu.dispatch(named, { flags: { by }, buffers: { y }, uniforms: { count: 2 }, workgroups: 1 });
      return y.floats();
    });
  const silent = (line: string): void => expect.fail(line);

  it('are compiled at once the next time, before they are dispatched', async () => {
    await compileKnown(device.gpu, 'test');
    expect(device.gpu.counters().pipelines).toBe(0);
    await dispatch(device, 1);
    await dispatch(device, 2);
    keepProgramList(device.gpu, 'test', silent);

    const next = new Device(await device.gpu.opened.reopen());
    try {
      await compileKnown(next.gpu, 'other work');
      expect(next.gpu.counters().pipelines).toBe(0);
      await compileKnown(next.gpu, 'test');
      expect(next.gpu.counters().pipelines).toBe(2);
      expect([...(await dispatch(next, 2))]).toEqual([2, 2]);
      expect(next.gpu.counters().pipelines).toBe(2);
      // What was not dispatched this time is not compiled the next.
      keepProgramList(next.gpu, 'test', silent);
      expect(readProgramList(programListFile(next.gpu.opened, 'test'))).toEqual([{ program: named, flags: { by: 2 } }]);
    } finally {
      await next.gpu.close();
    }
  });

  it('are left out when they have changed, and so is a file that is no list', async () => {
    await dispatch(device, 1);
    await dispatch(device, 2);
    keepProgramList(device.gpu, 'test', silent);
    const path = programListFile(device.gpu.opened, 'test');
    const list = JSON.parse(readFileSync(path, 'utf8')) as { name: string; text: string }[];
    expect(list).toHaveLength(2);
    list[0].text = '00000000';
    writeFileSync(path, JSON.stringify([...list, { ...list[1], name: 'testNobodyDeclares' }]));
    expect(readProgramList(path)).toEqual([{ program: named, flags: { by: 2 } }]);
    for (const text of ['', '[{', '{}', '[1]']) {
      writeFileSync(path, text);
      expect(readProgramList(path)).toEqual([]);
    }
    rmSync(folder, { recursive: true });
    writeFileSync(folder, 'no folder');
    const told: string[] = [];
    keepProgramList(device.gpu, 'test', (line) => told.push(line));
    expect(told).toEqual([expect.stringMatching(/^The list of kernels for the next start cannot be kept: /)]);
  });
});
