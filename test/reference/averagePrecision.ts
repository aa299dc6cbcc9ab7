// Average precision from its definitions, float64, each written another way than the library.

export interface RefDetection {
  image: number;
  score: number;
  /** Name of the class, where the measure regards it. */
  label?: string;
  /** IoU with each truth of the same image (and class). */
  iou: number[];
}

/**
 * Integral over recall r in (0, 1] of the best precision at recall >= r, as a sum over found truths: the k-th truth
 * adds 1 / truths times the best precision among the ranks at which at least k truths have been found.
 */
export function interpolatedArea(hits: boolean[], truths: number): number {
  const points = hits.map((_, i) => {
    const found = hits.slice(0, i + 1).filter(Boolean).length;
    return { found, precision: found / (i + 1) };
  });
  let area = 0;
  for (let k = 1; k <= truths; k++) {
    const reached = points.filter((point) => point.found >= k).map((point) => point.precision);
    if (reached.length > 0) area += Math.max(...reached) / truths;
  }
  return area;
}

/** AP without regard to class: by score, each detection takes its best free truth with IoU >= threshold. */
export function referenceAveragePrecision(detections: RefDetection[], truthsOf: number[], threshold: number): number {
  const truths = truthsOf.reduce((a, b) => a + b, 0);
  if (truths === 0) return 0;
  const ranked = detections
    .map((detection, index) => ({ detection, index }))
    .sort((a, b) =>
      a.detection.score === b.detection.score ? a.index - b.index : b.detection.score - a.detection.score,
    );
  const used = new Set<string>();
  const hits = ranked.map(({ detection }) => {
    const free = detection.iou
      .map((value, t) => ({ value, key: `${detection.image}/${t}` }))
      .filter(({ value, key }) => value >= threshold && !used.has(key));
    if (free.length === 0) return false;
    const largest = Math.max(...free.map(({ value }) => value));
    used.add(free.find(({ value }) => value === largest)!.key);
    return true;
  });
  return interpolatedArea(hits, truths);
}

/** IoU of two boxes by inclusion-exclusion of interval lengths. */
export function referenceBoxIou(a: number[], b: number[]): number {
  const overlap = (a0: number, a1: number, b0: number, b1: number) => Math.max(0, Math.min(a1, b1) - Math.max(a0, b0));
  const intersection = overlap(a[0], a[2], b[0], b[2]) * overlap(a[1], a[3], b[1], b[3]);
  const union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection;
  return intersection === 0 ? 0 : intersection / union;
}

/** Greedy NMS by repeatedly taking the best remaining box and striking out what overlaps it more than the threshold. */
export function referenceNms(boxes: number[][], scores: number[], threshold: number): number[] {
  let remaining = boxes.map((_, i) => i);
  const kept: number[] = [];
  while (remaining.length > 0) {
    const top = remaining.reduce((best, i) => (scores[i] > scores[best] ? i : best));
    kept.push(top);
    remaining = remaining.filter((i) => i !== top && !(referenceBoxIou(boxes[top], boxes[i]) > threshold));
  }
  return kept;
}
