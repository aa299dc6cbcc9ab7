import { stringify } from 'csv-stringify/sync';
import { submissionRows } from '../../eval/submission.ts';
import type { ImagePrediction } from '../prediction.ts';

/**
 * The competition's `submission.csv` in parts, an image at a time: the same text as `writeSubmission` writes for all rows.
 * @throws Error for cells without masks
 */
export function* submissionCsv(predictions: Iterable<ImagePrediction>): Generator<string> {
  yield stringify([], { header: true, columns: ['id', 'predicted'] });
  for (const { id, cells, width } of predictions) {
    const instances = cells.map(({ mask }) => {
      if (mask === undefined) throw new Error('submissionCsv: a box-only model has no masks');
      return { mask };
    });
    yield stringify(submissionRows(id, instances, width));
  }
}
