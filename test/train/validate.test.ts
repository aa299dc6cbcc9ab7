import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { allocateRun } from '../../src/train/run.ts';
import { type Validation, validate } from '../../src/train/validate.ts';
import { removeFolders, temporaryFolder } from '../data/folders.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { blobDataset, smallestRun } from './tinyRun.ts';

afterAll(removeFolders);

it('tells the same losses and finds the same cells, however many images of one size are predicted at once', async () => {
  const device = await testDevice();
  const run = smallestRun(blobDataset(), join(temporaryFolder(), 'never written'), { batchSize: 2 });
  await allocateRun(run, device);
  const { model, dataset, options, thresholds } = run;
  const records = dataset.images.slice(0, 5);
  try {
    const batches: number[] = [];
    const validated = async (validationBatchSize: number | null): Promise<Validation> => {
      batches.length = 0;
      let before = 0;
      const progress = {
        update: (done: number) => {
          batches.push(done - before);
          before = done;
        },
        stop: () => {},
      };
      const given = { ...options, validationBatchSize };
      return validate({ model, dataset, records, options: given, thresholds, progress });
    };
    const two = await validated(null);
    expect(batches).toEqual([2, 2, 1]);
    const four = await validated(3);
    expect(batches).toEqual([4, 1]);
    const all = await validated(100);
    expect(batches).toEqual([5]);
    const found = two.evaluator.samples.reduce((sum, { detections }) => sum + detections.scores.length, 0);
    expect(found).toBeGreaterThan(0);
    for (const other of [four, all]) {
      expect(other.losses).toEqual(two.losses);
      for (const [i, { detections }] of other.evaluator.samples.entries()) {
        const expected = two.evaluator.samples[i].detections;
        expect([...detections.labels]).toEqual([...expected.labels]);
        expectClose(detections.scores, expected.scores, 1e-5);
        expectClose(detections.boxes, expected.boxes, 1e-3);
      }
    }
  } finally {
    model.dispose();
  }
});
