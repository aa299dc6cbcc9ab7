import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { Profiler } from '../../src/gpu/profiler.ts';
import { profileRun } from '../../src/train/profileRun.ts';
import { allocateRun } from '../../src/train/run.ts';
import { removeFolders, temporaryFolder } from '../data/folders.ts';
import { testDevice } from '../support/device.ts';
import { blobDataset, smallestRun } from './tinyRun.ts';

afterAll(removeFolders);

it('times the kernels of whole steps under the parts of the model, and leaves the device as it was', async (context) => {
  const device = await testDevice();
  if (!device.gpu.device.features.has('timestamp-query')) {
    expect(() => new Profiler(device.gpu.device)).toThrow('timestamp-query');
    context.skip(`${device.gpu.opened.info.name} has no timestamp queries`);
  }
  const before = device.gpu.counters().inUse;
  const run = smallestRun(blobDataset(), join(temporaryFolder(), 'never written'));
  await allocateRun(run, device);
  try {
    const told: number[] = [];
    const progress = (done: number): void => void told.push(done);
    const trained = await profileRun(run, { mode: 'train', steps: 2, warmUp: 1, progress });
    expect(told).toEqual([1, 2, 3]);
    expect(trained.spans).toHaveLength(trained.dispatches * 2);
    const parts = new Set(trained.spans.map(({ module }) => module));
    for (const part of ['backbone.body', 'backbone.body, backward', 'rpn', 'roi_heads.mask, backward', 'sgd']) {
      expect(parts).toContain(part);
    }
    expect(trained.busyMs).toBeGreaterThan(0);
    expect(trained.busyMs).toBeLessThanOrEqual(trained.wallMs);
    expect(trained.peakByTag.parameters).toBeGreaterThan(0);
    expect(trained.peakByTag.activations).toBeGreaterThan(0);
    expect(trained.steps).toBe(2);
    const predicted = await profileRun(run, { mode: 'predict', steps: 1, warmUp: 0 });
    expect(predicted.spans.length).toBeGreaterThan(0);
    expect(predicted.spans.some(({ module }) => module.includes('backward'))).toBe(false);
  } finally {
    run.model.dispose();
  }
  expect(device.gpu.counters().inUse).toBe(before);
});
