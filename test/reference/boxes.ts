/** Box arithmetic by definition, in float64 or, with `round = Math.fround`, operation by operation as float32 does it. */
import { seeded } from '../support/random.ts';

export type Box = readonly [number, number, number, number];
type Round = (x: number) => number;
const exact: Round = (x) => x;

export function rowsOf(data: ArrayLike<number>): Box[] {
  return Array.from({ length: data.length / 4 }, (_, i) => [
    data[4 * i],
    data[4 * i + 1],
    data[4 * i + 2],
    data[4 * i + 3],
  ]);
}

export function iou(a: Box, b: Box, round: Round = exact): number {
  const area = ([x1, y1, x2, y2]: Box) => round(round(x2 - x1) * round(y2 - y1));
  const width = Math.max(0, round(Math.min(a[2], b[2]) - Math.max(a[0], b[0])));
  const height = Math.max(0, round(Math.min(a[3], b[3]) - Math.max(a[1], b[1])));
  const intersection = round(width * height);
  if (intersection === 0) return 0;
  return round(intersection / round(round(area(a) + area(b)) - intersection));
}

/** Row-major [a.length, b.length]. */
export function iouMatrix(a: readonly Box[], b: readonly Box[], round: Round = exact): number[] {
  return a.flatMap((first) => b.map((second) => iou(first, second, round)));
}

export function clip([x1, y1, x2, y2]: Box, height: number, width: number): Box {
  const into = (value: number, end: number) => Math.max(0, Math.min(value, end));
  return [into(x1, width), into(y1, height), into(x2, width), into(y2, height)];
}

/** Centre, then sides. */
function centred([x1, y1, x2, y2]: Box): Box {
  return [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1];
}

export function encode(truth: Box, proposal: Box, weights: Box): Box {
  const [tx, ty, tw, th] = centred(truth);
  const [px, py, pw, ph] = centred(proposal);
  return [
    (weights[0] * (tx - px)) / pw,
    (weights[1] * (ty - py)) / ph,
    weights[2] * Math.log(tw / pw),
    weights[3] * Math.log(th / ph),
  ];
}

export function decode(code: Box, box: Box, weights: Box, limit: number): Box {
  const [cx, cy, w, h] = centred(box);
  const x = cx + (code[0] / weights[0]) * w;
  const y = cy + (code[1] / weights[1]) * h;
  const width = w * Math.exp(Math.min(code[2] / weights[2], limit));
  const height = h * Math.exp(Math.min(code[3] / weights[3], limit));
  return [x - width / 2, y - height / 2, x + width / 2, y + height / 2];
}

/** Boxes of sides 1 … 60 in a square of about 150 pixels, rounded to float32; whole numbers when `whole`. */
export function randomBoxes(count: number, seed: number, whole = false): Box[] {
  const next = seeded(seed);
  const round = whole ? Math.round : Math.fround;
  return Array.from({ length: count }, () => {
    const [x, y] = [round(next() * 100), round(next() * 100)];
    return [x, y, round(x + 1 + next() * 59), round(y + 1 + next() * 59)];
  });
}
