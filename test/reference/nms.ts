import { type Box, iou } from './boxes.ts';
import { topIndices } from './topK.ts';

/**
 * Greedy suppression by definition, in torchvision's float32: a box joins the kept ones unless it overlaps one of them
 * (of its own class) too much. Boxes of score -Infinity are absent.
 */
export function greedyNms(
  boxes: readonly Box[],
  scores: ArrayLike<number>,
  threshold: number,
  classes?: ArrayLike<number>,
): number[] {
  const kept: number[] = [];
  for (const candidate of topIndices(scores, boxes.length)) {
    if (scores[candidate] === Number.NEGATIVE_INFINITY) continue;
    const suppressed = kept.some(
      (better) =>
        (!classes || classes[better] === classes[candidate]) &&
        iou(boxes[better], boxes[candidate], Math.fround) > threshold,
    );
    if (!suppressed) kept.push(candidate);
  }
  return kept;
}
