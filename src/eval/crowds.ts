/** How metrics that know no crowds leave them out. */

/** What counts of one image: some of its detections against the truths that are no crowds. */
export interface CountedTable {
  /** Rows of the given table that count, in their order. */
  detections: number[];
  /** [detections, truths that are no crowds] IoU, row-major. */
  iou: Float64Array;
  /** Number of truths that are no crowds. */
  truth: number;
}

/** Share of a detection inside a crowd from which on it lies there: the least of COCO's thresholds. */
const SHARE = 0.5;

/**
 * Takes crowds out of a table. A crowd is no truth; and a detection of which half or more lies inside one crowd is left out, as if
 * it had not been made, unless it overlaps a truth by `leastIou`. Classes do not matter. (COCO's own numbers have a rule that goes
 * further, see `matchCoco`: it regards the class, and lets a crowd take also what found a truth that was taken already.)
 *
 * @param overlap [detections, truths] IoU; share of the detection in the columns of crowds
 * @param crowds [truths] not 0 for a crowd
 * @param count number of detections
 * @param leastIou from which on a detection belongs to a truth: the metric's least threshold
 */
export function withoutCrowds(
  overlap: Float64Array,
  crowds: ArrayLike<number>,
  count: number,
  leastIou: number,
): CountedTable {
  const columns = Array.from({ length: crowds.length }, (_, t) => t).filter((t) => !crowds[t]);
  if (columns.length === crowds.length) {
    return { detections: Array.from({ length: count }, (_, d) => d), iou: overlap, truth: columns.length };
  }
  const detections: number[] = [];
  for (let d = 0; d < count; d++) {
    const row = d * crowds.length;
    let lies = false;
    let finds = false;
    for (let t = 0; t < crowds.length; t++) {
      if (crowds[t]) lies ||= overlap[row + t] >= SHARE;
      else finds ||= overlap[row + t] >= leastIou;
    }
    if (finds || !lies) detections.push(d);
  }
  const iou = new Float64Array(detections.length * columns.length);
  let at = 0;
  for (const d of detections) for (const t of columns) iou[at++] = overlap[d * crowds.length + t];
  return { detections, iou, truth: columns.length };
}
