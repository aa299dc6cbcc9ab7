import type { Dataset, ImageRecord } from '../data/dataset.ts';
import { Loader } from '../data/loader.ts';
import type { Detections, Sample } from '../data/types.ts';
import { startProgress } from '../train/progress.ts';
import type { StoredModel } from './loadModel.ts';
import { interruptible } from './session.ts';

export interface DetectSamplesOptions {
  /** On its device. */
  stored: StoredModel;
  dataset: Dataset;
  /** Images to look at, some of the data set's. */
  records: readonly ImageRecord[];
  batchSize: number;
  /** Names the operation in its progress. */
  label: string;
  /** Load crowds too, for what scores them by their own rules; default false. */
  crowds?: boolean;
}

/**
 * What the model finds in annotated images, loaded at the size that it was validated at, in their order, with progress.
 * @returns false where the user stopped it before the last image
 */
export async function detectSamples(
  { stored, dataset, records, batchSize, label, crowds }: DetectSamplesOptions,
  visit: (detections: Detections, sample: Sample) => void,
): Promise<boolean> {
  const { resize } = stored.info;
  const loader = new Loader({ dataset, records, batchSize, random: 0, resize, crowds, workers: 1 });
  const bar = startProgress(label, records.length);
  const interrupt = interruptible();
  let done = 0;
  try {
    for await (const batch of loader) {
      const detections = await stored.model.predict(batch.map(({ image }) => image));
      for (const [i, sample] of batch.entries()) visit(detections[i], sample);
      done += batch.length;
      bar.update(done);
      if (interrupt.stopping()) break;
    }
  } finally {
    bar.stop();
    interrupt.done();
    await loader.close();
  }
  return done === records.length;
}
