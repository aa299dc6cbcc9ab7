import Table from 'cli-table3';
import { COCO_STATS } from '../eval/cocoAccumulator.ts';
import type { EvaluationResult } from '../eval/evaluator.ts';

/** What each of COCO's twelve numbers measures, in their order. */
const COCO_MEANINGS: readonly string[] = [
  'IoU .50:.95',
  'IoU .50',
  'IoU .75',
  'small, to 32² pixels',
  'medium, 32² to 96²',
  'large, from 96²',
  'the best detection of an image and class',
  'the 10 best',
  'the 100 best',
  'small',
  'medium',
  'large',
];

const style = { head: [], border: [] };

/** A score, or a dash where none is defined. */
const text = (value: number | null): string => (value === null || value < 0 ? '–' : value.toFixed(4));

/** All scores as three tables: overall, by class, and COCO's twelve numbers. @param classes names of the labels 1 … */
export function scoreTables(scores: EvaluationResult, classes: readonly string[]): string {
  return [overall(scores), byClass(scores, classes), coco(scores)].join('\n');
}

function overall(scores: EvaluationResult): string {
  const table = new Table({ head: ['score', 'value'], style, colAligns: ['left', 'right'] });
  table.push(
    ['competition score (IoU .50:.95)', text(scores.iouMap)],
    ['box mAP (NMS .3, IoU .3)', text(scores.boxMap30)],
    ["the notebook's compute_mAP", text(scores.computeMAP)],
    ['mask AP50', text(scores.maskAP50)],
    ['box AP50', text(scores.boxAP50)],
    ['images', String(scores.images)],
    ['cells', String(scores.instances)],
  );
  return table.toString();
}

function byClass(scores: EvaluationResult, classes: readonly string[]): string {
  const head = ['class', 'cells', 'competition score', 'box mAP', 'mask AP50', 'box AP50', 'COCO AP masks', 'boxes'];
  const table = new Table({ head, style, colAligns: ['left', ...head.slice(1).map(() => 'right' as const)] });
  for (const { label, instances, iouMap, boxMap30, maskAP50, boxAP50, coco } of scores.perClass) {
    const values = [iouMap, boxMap30, maskAP50, boxAP50, coco.segm?.[0] ?? null, coco.bbox[0]];
    table.push([classes[label - 1], String(instances), ...values.map(text)]);
  }
  return table.toString();
}

function coco({ coco: { segm, bbox } }: EvaluationResult): string {
  const head = ['COCO', 'of', 'masks', 'boxes'];
  const table = new Table({ head, style, colAligns: ['left', 'left', 'right', 'right'] });
  COCO_STATS.forEach(({ name }, i) => {
    table.push([name, COCO_MEANINGS[i], text(segm?.[i] ?? null), text(bbox[i])]);
  });
  return table.toString();
}
