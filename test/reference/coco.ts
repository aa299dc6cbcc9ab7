// COCO's twelve numbers by brute force, from the rules as published (https://cocodataset.org/#detection-eval): for every class,
// size, number of detections and threshold everything is done anew, without IoUs kept, envelopes or run lengths. float64.

export interface RefTruth<Shape> {
  image: number;
  label: number;
  shape: Shape;
  area: number;
  crowd: boolean;
}

export interface RefResult<Shape> {
  image: number;
  label: number;
  shape: Shape;
  area: number;
  score: number;
}

/** Area of a shape, and of what two of one image share. */
export interface Measure<Shape> {
  area(shape: Shape): number;
  shared(a: Shape, b: Shape): number;
}

/** Boxes x, y, width, height. */
export const boxMeasure: Measure<readonly number[]> = {
  area: ([, , w, h]) => w * h,
  shared: ([ax, ay, aw, ah], [bx, by, bw, bh]) =>
    Math.max(0, Math.min(ax + aw, bx + bw) - Math.max(ax, bx)) *
    Math.max(0, Math.min(ay + ah, by + bh) - Math.max(ay, by)),
};

/** Full-size masks, visited pixel by pixel. */
export const maskMeasure: Measure<Uint8Array> = {
  area: (mask) => mask.filter((value) => value !== 0).length,
  shared: (a, b) => a.filter((value, i) => value !== 0 && b[i] !== 0).length,
};

const SIZES: Record<string, [number, number]> = { all: [0, 1e10], s: [0, 1024], m: [1024, 9216], l: [9216, 1e10] };
/** numpy's linspace(.5, .95, 10) and linspace(0, 1, 101), written out as it computes them. */
const THRESHOLDS = [...Array(9).keys()].map((i) => i * ((0.95 - 0.5) / 9) + 0.5).concat(0.95);
const RECALLS = [...Array(100).keys()].map((i) => i * 0.01).concat(1);

/** Order of falling scores; ties as they come. */
function ranked<T extends { score: number }>(items: readonly T[]): T[] {
  const rest = [...items];
  const order: T[] = [];
  while (rest.length > 0) {
    let best = 0;
    rest.forEach((item, i) => {
      if (item.score > rest[best].score) best = i;
    });
    order.push(...rest.splice(best, 1));
  }
  return order;
}

type Outcome = { score: number; hit: boolean };

/** What counts of one image's detections of one class, and how many truths count. */
function judgeImage<Shape>(
  truths: readonly RefTruth<Shape>[],
  results: readonly RefResult<Shape>[],
  [low, high]: [number, number],
  most: number,
  threshold: number,
  measure: Measure<Shape>,
): { outcomes: Outcome[]; truths: number } {
  const inside = (area: number) => low <= area && area <= high;
  const counts = (truth: RefTruth<Shape>) => !truth.crowd && inside(truth.area);
  const overlap = (result: RefResult<Shape>, truth: RefTruth<Shape>) => {
    const shared = measure.shared(result.shape, truth.shape);
    const own = measure.area(result.shape);
    if (shared === 0) return 0;
    return shared / (truth.crowd ? own : own + measure.area(truth.shape) - shared);
  };
  const used = new Set<RefTruth<Shape>>();
  const outcomes: Outcome[] = [];
  for (const result of ranked(results).slice(0, most)) {
    const open = truths
      .filter((truth) => truth.crowd || !used.has(truth))
      .map((truth) => ({ truth, iou: overlap(result, truth) }))
      .filter(({ iou }) => iou >= threshold);
    const counted = open.filter(({ truth }) => counts(truth));
    const from = counted.length > 0 ? counted : open;
    const largest = Math.max(...from.map(({ iou }) => iou));
    const match = from.filter(({ iou }) => iou === largest).pop()?.truth;
    if (match !== undefined) used.add(match);
    if (match === undefined ? inside(result.area) : counts(match)) {
      outcomes.push({ score: result.score, hit: match !== undefined });
    }
  }
  return { outcomes, truths: truths.filter(counts).length };
}

/** Precision at the 101 recalls and the recall that was reached, or null where no truth counts. */
function curve<Shape>(
  truths: readonly RefTruth<Shape>[],
  results: readonly RefResult<Shape>[],
  size: [number, number],
  most: number,
  threshold: number,
  measure: Measure<Shape>,
): { precision: number[]; recall: number } | null {
  const images = [...new Set([...truths, ...results].map(({ image }) => image))].sort((a, b) => a - b);
  const judged = images.map((image) => {
    const ofImage = <T extends { image: number }>(items: readonly T[]) => items.filter((item) => item.image === image);
    return judgeImage(ofImage(truths), ofImage(results), size, most, threshold, measure);
  });
  const total = judged.reduce((sum, image) => sum + image.truths, 0);
  if (total === 0) return null;
  let hits = 0;
  const points = ranked(judged.flatMap(({ outcomes }) => outcomes)).map(({ hit }, rank) => {
    hits += hit ? 1 : 0;
    return { recall: hits / total, precision: hits / (rank + 1) };
  });
  return {
    recall: hits / total,
    precision: RECALLS.map((least) =>
      Math.max(0, ...points.filter(({ recall }) => recall >= least).map(({ precision }) => precision)),
    ),
  };
}

/** AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl; -1 where none is defined. */
export function referenceCoco<Shape>(
  truths: readonly RefTruth<Shape>[],
  results: readonly RefResult<Shape>[],
  labels: readonly number[],
  measure: Measure<Shape>,
): number[] {
  const mean = (values: number[]) =>
    values.length === 0 ? -1 : values.reduce((sum, value) => sum + value, 0) / values.length;
  const curves = (size: string, most: number, thresholds: number[]) =>
    labels.flatMap((label) =>
      thresholds.flatMap((threshold) => {
        const ofClass = <T extends { label: number }>(items: readonly T[]) =>
          items.filter((item) => item.label === label);
        return curve(ofClass(truths), ofClass(results), SIZES[size], most, threshold, measure) ?? [];
      }),
    );
  const precision = (size: string, thresholds = THRESHOLDS) =>
    mean(curves(size, 100, thresholds).flatMap((one) => one.precision));
  const recall = (size: string, most = 100) => mean(curves(size, most, THRESHOLDS).map((one) => one.recall));
  return [
    precision('all'),
    precision('all', [THRESHOLDS[0]]),
    precision('all', [THRESHOLDS[5]]),
    precision('s'),
    precision('m'),
    precision('l'),
    recall('all', 1),
    recall('all', 10),
    recall('all'),
    recall('s'),
    recall('m'),
    recall('l'),
  ];
}
