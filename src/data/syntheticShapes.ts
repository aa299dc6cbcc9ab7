import type { Random } from './random.ts';

/** The three kinds of synthetic cell, in the order of their class labels (1, 2, 3 when sorted by name). */
export const syntheticCellTypes = ['branched', 'round', 'spindle'] as const;
export type SyntheticCellType = (typeof syntheticCellTypes)[number];

/** A round-ended stroke whose radius runs linearly from `ra` at a to `rb` at b. Pixels, relative to the cell's centre. */
interface Stroke {
  ax: number;
  ay: number;
  bx: number;
  by: number;
  ra: number;
  rb: number;
}

/** An outline as a union of strokes whose joints are rounded over `blend` pixels. */
export interface CellShape {
  type: SyntheticCellType;
  strokes: Stroke[];
  blend: number;
  /** Largest distance of the outline from the centre, pixels. */
  reach: number;
}

/** Signed distance to a cell's outline (negative inside), pixels, on a square window around its centre. */
export interface CellField {
  /** Side of the window. */
  size: number;
  /** Row and column of the cell's centre in the window. */
  centre: number;
  /** [size, size] */
  distance: Float32Array;
}

/** A number uniform in [low, high). */
export const uniform = (random: Random, low: number, high: number): number => low + (high - low) * random.next();

/**
 * Draws one outline. Round cells are 26 to 40 px across, spindles 48 to 68 px long and
 * 18 to 24 px wide, branched cells 42 to 62 px from tip to tip.
 */
export function makeCellShape(type: SyntheticCellType, random: Random): CellShape {
  const strokes =
    type === 'round' ? roundCell(random) : type === 'spindle' ? spindleCell(random) : branchedCell(random);
  let reach = 0;
  for (const s of strokes) {
    reach = Math.max(reach, Math.hypot(s.ax, s.ay) + s.ra, Math.hypot(s.bx, s.by) + s.rb);
  }
  return { type, strokes, blend: type === 'branched' ? 7 : 0, reach };
}

/** Nearly a disc: the two ends of its one stroke lie at most a few pixels apart. */
function roundCell(random: Random): Stroke[] {
  const radius = uniform(random, 13, 18);
  const half = uniform(random, 0, 2.5);
  const angle = uniform(random, 0, Math.PI);
  const dx = half * Math.cos(angle);
  const dy = half * Math.sin(angle);
  return [{ ax: -dx, ay: -dy, bx: dx, by: dy, ra: radius, rb: radius * uniform(random, 0.92, 1) }];
}

/** A bent midline whose half width swells from pointed ends to a belly somewhere near the middle. */
function spindleCell(random: Random): Stroke[] {
  const half = uniform(random, 24, 34);
  const belly = uniform(random, 9, 12);
  const tip = uniform(random, 1.5, 2.5);
  const bend = uniform(random, -10, 10);
  const shift = uniform(random, -0.25, 0.25);
  const angle = uniform(random, 0, 2 * Math.PI);
  const cos = Math.cos(angle);
  const sin = Math.sin(angle);
  const joints = 10;
  const points: { x: number; y: number; r: number }[] = [];
  for (let i = 0; i <= joints; i++) {
    const t = (2 * i) / joints - 1;
    const u = half * t;
    const v = bend * (t * t - 0.33);
    // Distance from the belly, 0 … 1 on either side of it.
    const s = t < shift ? (shift - t) / (1 + shift) : (t - shift) / (1 - shift);
    points.push({ x: u * cos - v * sin, y: u * sin + v * cos, r: tip + (belly - tip) * (1 - s ** 1.7) });
  }
  return chain(points);
}

/** A soma with three to five processes that taper outwards, spread evenly but for a jitter. */
function branchedCell(random: Random): Stroke[] {
  const soma = uniform(random, 12, 14.5);
  const strokes: Stroke[] = [];
  const stretch = uniform(random, 0, 4);
  const tilt = uniform(random, 0, Math.PI);
  const sx = stretch * Math.cos(tilt);
  const sy = stretch * Math.sin(tilt);
  strokes.push({ ax: -sx, ay: -sy, bx: sx, by: sy, ra: soma, rb: soma });
  const count = 3 + random.int(3);
  const first = uniform(random, 0, 2 * Math.PI);
  for (let i = 0; i < count; i++) {
    const angle = first + ((i + uniform(random, -0.22, 0.22)) * 2 * Math.PI) / count;
    const length = soma + uniform(random, 9, 17);
    const bend = uniform(random, -0.35, 0.35);
    const base = uniform(random, 6, 8);
    const tip = uniform(random, 2.5, 3.5);
    const points: { x: number; y: number; r: number }[] = [];
    for (let j = 0; j <= 3; j++) {
      const t = j / 3;
      const radius = soma * 0.5 + (length - soma * 0.5) * t;
      points.push({
        x: radius * Math.cos(angle + bend * t * t),
        y: radius * Math.sin(angle + bend * t * t),
        r: base + (tip - base) * Math.sqrt(t),
      });
    }
    strokes.push(...chain(points));
  }
  return strokes;
}

function chain(points: { x: number; y: number; r: number }[]): Stroke[] {
  return points.slice(1).map((b, i) => {
    const a = points[i];
    return { ax: a.x, ay: a.y, bx: b.x, by: b.y, ra: a.r, rb: b.r };
  });
}

/**
 * The signed distance of a shape, exact up to `margin` pixels outside its outline; further out any larger number, or Infinity.
 *
 * @param wobble gives a [size, size] field (pixels) that displaces the outline, so that no cell is geometrically perfect
 */
export function cellField(shape: CellShape, margin: number, wobble: (size: number) => Float32Array): CellField {
  const centre = Math.ceil(shape.reach + margin);
  const size = 2 * centre + 1;
  const distance = new Float32Array(size * size).fill(Infinity);
  for (const stroke of shape.strokes) {
    const { ax, ay, bx, by, ra, rb } = stroke;
    const dx = bx - ax;
    const dy = by - ay;
    const inverse = 1 / Math.max(1e-9, dx * dx + dy * dy);
    // Beyond the margin around a stroke another one decides, or nobody asks.
    const far = Math.max(ra, rb) + margin;
    const [x0, x1] = [Math.floor(Math.min(ax, bx) - far) + centre, Math.ceil(Math.max(ax, bx) + far) + centre];
    const [y0, y1] = [Math.floor(Math.min(ay, by) - far) + centre, Math.ceil(Math.max(ay, by) + far) + centre];
    for (let y = Math.max(0, y0); y <= Math.min(size - 1, y1); y++) {
      const py = y - centre - ay;
      for (let x = Math.max(0, x0); x <= Math.min(size - 1, x1); x++) {
        const px = x - centre - ax;
        const t = Math.min(1, Math.max(0, (px * dx + py * dy) * inverse));
        const ex = px - t * dx;
        const ey = py - t * dy;
        const d = Math.sqrt(ex * ex + ey * ey) - ra - t * (rb - ra);
        const i = y * size + x;
        distance[i] = smoothMinimum(distance[i], d, shape.blend);
      }
    }
  }
  const shifts = wobble(size);
  for (let i = 0; i < distance.length; i++) distance[i] += shifts[i];
  return { size, centre, distance };
}

/** The smaller of two distances, with the crease where they meet rounded over `k` pixels (polynomial smooth minimum). */
function smoothMinimum(a: number, b: number, k: number): number {
  const h = k > 0 ? Math.max(0, k - Math.abs(a - b)) / k : 0;
  return Math.min(a, b) - (h * h * k) / 4;
}
