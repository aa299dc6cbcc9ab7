import type { Random } from './random.ts';
import {
  type CellField,
  type CellShape,
  cellField,
  makeCellShape,
  type SyntheticCellType,
  uniform,
} from './syntheticShapes.ts';

/** One synthetic picture and its truth. */
export interface SyntheticImage {
  width: number;
  height: number;
  /** [height, width] grey, 0 … 255. */
  pixels: Uint8Array;
  /** In the order of painting: later cells lie on top. Masks are [height, width], 0 or 1, disjoint, in one piece each. */
  cells: { type: SyntheticCellType; mask: Uint8Array }[];
}

interface PlacedCell {
  shape: CellShape;
  field: CellField;
  /** Its centre in the image. */
  x: number;
  y: number;
}

/** How a kind of cell looks; contrasts are grey levels of 255. */
interface Appearance {
  /** Bright band outside the outline: height and width (pixels). */
  halo: number;
  haloWidth: number;
  /** Dark band inside the outline: depth and width (pixels). */
  rim: number;
  rimWidth: number;
  /** Mean of the interior against the background, and its spread from cell to cell. */
  offset: number;
  offsetSpread: number;
  /** Texture of the interior: fine granules and coarse shades. */
  fine: number;
  coarse: number;
  /** Brightness of the nucleus against the rest of the interior. */
  nucleus: number;
}

// Round cells stand high and shine; the two flat kinds have thinner halos, and shade off towards the background's grey.
const APPEARANCE: Record<SyntheticCellType, Appearance> = {
  round: {
    halo: 84,
    haloWidth: 3.4,
    rim: 56,
    rimWidth: 2.6,
    offset: 10,
    offsetSpread: 9,
    fine: 13,
    coarse: 10,
    nucleus: 22,
  },
  spindle: {
    halo: 54,
    haloWidth: 2.8,
    rim: 38,
    rimWidth: 2.6,
    offset: -12,
    offsetSpread: 9,
    fine: 20,
    coarse: 11,
    nucleus: 14,
  },
  branched: {
    halo: 44,
    haloWidth: 2.6,
    rim: 34,
    rimWidth: 2.4,
    offset: -10,
    offsetSpread: 9,
    fine: 20,
    coarse: 10,
    nucleus: 16,
  },
};

/** Pixels around an outline that its halo may reach. */
const MARGIN = 14;
const MEAN_GREY = 118;

/**
 * Paints one phase-contrast picture: uneven light, cells with bright halos and textured interiors of about the background's
 * grey (so that no threshold separates them), debris that is no cell, blur and sensor noise.
 *
 * @param types the type of each cell wanted; a cell that finds no place is left out
 */
export function paintSyntheticImage(
  types: readonly SyntheticCellType[],
  width: number,
  height: number,
  random: Random,
): SyntheticImage {
  const { cells, owner } = placeCells(types, width, height, random);
  const light = uneven(random, width, height);
  const image = light.slice();
  paintGround(image, width, height, owner, random);
  const fine = smoothNoise(random, width, height, 2.6, 1);
  const coarse = smoothNoise(random, width, height, 8, 1);
  for (const cell of cells) paintCell(image, light, width, height, cell, fine, coarse, random);
  const blurred = blur(image, width, height);
  const noise = uniform(random, 2.5, 4);
  const pixels = new Uint8Array(width * height);
  for (let i = 0; i < pixels.length; i++) {
    pixels[i] = Math.min(255, Math.max(0, Math.round(blurred[i] + noise * random.normal())));
  }
  const masks = cells.map((cell, index) => {
    const mask = new Uint8Array(width * height);
    for (let i = 0; i < mask.length; i++) mask[i] = Number(owner[i] === index + 1);
    return { type: cell.shape.type, mask };
  });
  return { width, height, pixels, cells: masks };
}

/**
 * Finds a place for each cell. More than half are put against a cell that is already there, overlapping it a little; the
 * others lie free. `owner` is [height, width]: 0 or 1 + index of the topmost cell.
 */
function placeCells(
  types: readonly SyntheticCellType[],
  width: number,
  height: number,
  random: Random,
): { cells: PlacedCell[]; owner: Uint8Array } {
  const owner = new Uint8Array(width * height);
  const cells: PlacedCell[] = [];
  const areas: number[] = [];
  for (const type of types) {
    const shape = makeCellShape(type, random);
    const field = cellField(shape, MARGIN, (size) => smoothNoise(random, size, size, 9, type === 'round' ? 0.6 : 1));
    const touching = cells.length > 0 && random.next() < 0.5;
    const neighbour = touching ? cells[random.int(cells.length)] : undefined;
    for (let attempt = 0; attempt < 60; attempt++) {
      // After a while the neighbour is given up for any free place.
      const beside = attempt < 30 ? neighbour : undefined;
      let x = random.int(width);
      let y = random.int(height);
      if (beside !== undefined) {
        const angle = uniform(random, 0, 2 * Math.PI);
        const gap = uniform(random, 0.35, 1) * (beside.shape.reach + shape.reach);
        x = Math.round(beside.x + gap * Math.cos(angle));
        y = Math.round(beside.y + gap * Math.sin(angle));
        if (x < 0 || y < 0 || x >= width || y >= height) continue;
      }
      const cell = { shape, field, x, y };
      const area = claim(cell, owner, areas, width, height, cells.length + 1, beside !== undefined);
      if (area === 0) continue;
      cells.push(cell);
      areas.push(area);
      break;
    }
  }
  return { cells, owner };
}

/** Calls back for each pixel of the image in a cell's window with its signed distance and its column and row. */
function visit(
  { field, x, y }: PlacedCell,
  width: number,
  height: number,
  pixel: (distance: number, x: number, y: number) => void,
): void {
  const { size, centre, distance } = field;
  const left = Math.max(0, x - centre);
  const right = Math.min(width, x - centre + size);
  const bottom = Math.min(height, y - centre + size);
  for (let row = Math.max(0, y - centre); row < bottom; row++) {
    const start = (row - y + centre) * size - x + centre;
    for (let column = left; column < right; column++) pixel(distance[start + column], column, row);
  }
}

/**
 * Enters a cell into `owner` if it may lie there: it shows most of itself, covers little of any other (and something of one, if
 * it must touch), and leaves each of them in one piece.
 *
 * @param areas of the earlier cells when they were placed, pixels
 * @returns its area in pixels, or 0 if it may not; then `owner` is as before
 */
function claim(
  cell: PlacedCell,
  owner: Uint8Array,
  areas: readonly number[],
  width: number,
  height: number,
  id: number,
  mustTouch: boolean,
): number {
  const own: number[] = [];
  const covered = new Map<number, number>();
  let border = 0;
  visit(cell, width, height, (d, x, y) => {
    if (d >= 0) return;
    const pixel = y * width + x;
    own.push(pixel);
    if (x === 0 || y === 0 || x === width - 1 || y === height - 1) border++;
    if (owner[pixel] !== 0) covered.set(owner[pixel], (covered.get(owner[pixel]) ?? 0) + 1);
  });
  // A cell cut by the image's edge along more than a third of its girth shows too little to tell its type.
  if (own.length < 250 || border * border > own.length) return 0;
  if (mustTouch !== covered.size > 0) return 0;
  for (const [other, pixels] of covered) {
    if (pixels > 0.1 * Math.min(own.length, areas[other - 1])) return 0;
  }
  const before = own.map((pixel) => owner[pixel]);
  for (const pixel of own) owner[pixel] = id;
  const whole = [...covered.keys()].every((other) => {
    const { total, piece } = pieces(owner, width, height, other);
    return total >= 0.8 * areas[other - 1] && piece === total;
  });
  if (!whole || pieces(owner, width, height, id).piece !== own.length) {
    own.forEach((pixel, i) => {
      owner[pixel] = before[i];
    });
    return 0;
  }
  return own.length;
}

/** Pixels of a cell, and of the 4-connected piece of it that holds its first pixel. */
function pieces(owner: Uint8Array, width: number, height: number, id: number): { total: number; piece: number } {
  const first = owner.indexOf(id);
  let total = 0;
  for (let i = Math.max(0, first); i < owner.length; i++) if (owner[i] === id) total++;
  if (total === 0) return { total, piece: 0 };
  const stack = [first];
  const seen = new Set(stack);
  const step = (next: number, inside: boolean) => {
    if (!inside || owner[next] !== id || seen.has(next)) return;
    seen.add(next);
    stack.push(next);
  };
  for (let pixel = stack.pop(); pixel !== undefined; pixel = stack.pop()) {
    const x = pixel % width;
    step(pixel - 1, x > 0);
    step(pixel + 1, x < width - 1);
    step(pixel - width, pixel >= width);
    step(pixel + width, pixel < width * (height - 1));
  }
  return { total, piece: seen.size };
}

/** Background light: a slope, a dome and slow clouds around the mean grey. */
function uneven(random: Random, width: number, height: number): Float32Array {
  const light = smoothNoise(random, width, height, 90, 6);
  const angle = uniform(random, 0, 2 * Math.PI);
  const slope = uniform(random, 8, 20);
  const dome = uniform(random, -14, 14);
  const mean = MEAN_GREY + uniform(random, -6, 6);
  for (let y = 0, i = 0; y < height; y++) {
    const v = (2 * y) / height - 1;
    for (let x = 0; x < width; x++, i++) {
      const u = (2 * x) / width - 1;
      light[i] +=
        mean +
        slope * (u * Math.cos(angle) + v * Math.sin(angle)) +
        dome * (0.5 - u * u * v * v - 0.25 * (u * u + v * v));
    }
  }
  return light;
}

/** What lies on the ground and is no cell: a faint grain, smears of granules, bright and dark specks, rings out of focus. */
function paintGround(image: Float32Array, width: number, height: number, owner: Uint8Array, random: Random): void {
  const grain = smoothNoise(random, width, height, 5, 1.6);
  for (let i = 0; i < image.length; i++) image[i] += grain[i];
  const disc = (x: number, y: number, reach: number, value: (distance: number) => number) => {
    const y1 = Math.min(height, Math.ceil(y + reach) + 1);
    const x1 = Math.min(width, Math.ceil(x + reach) + 1);
    for (let row = Math.max(0, Math.floor(y - reach)); row < y1; row++) {
      for (let column = Math.max(0, Math.floor(x - reach)); column < x1; column++) {
        image[row * width + column] += value(Math.hypot(column - x, row - y));
      }
    }
  };
  const free = (x: number, y: number) => owner[Math.floor(y) * width + Math.floor(x)] === 0;
  const specks = 10 + random.int(14);
  for (let i = 0; i < specks; i++) {
    const x = uniform(random, 0, width);
    const y = uniform(random, 0, height);
    const radius = uniform(random, 0.9, 2.6);
    const core = (random.next() < 0.6 ? -1 : 1) * uniform(random, 25, 60);
    if (!free(x, y)) continue;
    disc(x, y, radius * 4, (d) => core * gauss(d, radius) - 0.35 * core * gauss(d - 2.2 * radius, radius * 0.8));
  }
  const smears = 1 + random.int(3);
  for (let i = 0; i < smears; i++) {
    let x = uniform(random, 0, width);
    let y = uniform(random, 0, height);
    const heading = uniform(random, 0, 2 * Math.PI);
    const granules = 18 + random.int(30);
    for (let j = 0; j < granules; j++) {
      x += 1.6 * Math.cos(heading) + 3 * random.normal();
      y += 1.6 * Math.sin(heading) + 2 * random.normal();
      const core = (j % 3 === 0 ? 1 : -1) * uniform(random, 6, 20);
      const radius = uniform(random, 0.8, 1.7);
      if (x < 0 || y < 0 || x >= width || y >= height || !free(x, y)) continue;
      disc(x, y, radius * 3, (d) => core * gauss(d, radius));
    }
  }
  const rings = random.int(3);
  for (let i = 0; i < rings; i++) {
    const x = uniform(random, 0, width);
    const y = uniform(random, 0, height);
    const radius = uniform(random, 5, 10);
    const contrast = uniform(random, 5, 11);
    disc(x, y, radius + 8, (d) => contrast * (gauss(d - radius, 1.6) - gauss(d, radius * 0.55)));
  }
}

/** Lays one cell over the picture: its interior hides what is there, its halo brightens what lies around it. */
function paintCell(
  image: Float32Array,
  light: Float32Array,
  width: number,
  height: number,
  cell: PlacedCell,
  fine: Float32Array,
  coarse: Float32Array,
  random: Random,
): void {
  const look = APPEARANCE[cell.shape.type];
  const { shape } = cell;
  const strength = uniform(random, 0.75, 1.25);
  const halo = look.halo * strength;
  const rim = look.rim * strength;
  const offset = look.offset + look.offsetSpread * uniform(random, -1, 1);
  // Light falls in a little from one side, as where the phase ring is not quite centred.
  const angle = uniform(random, 0, 2 * Math.PI);
  const sideX = (0.3 * Math.cos(angle)) / shape.reach;
  const sideY = (0.3 * Math.sin(angle)) / shape.reach;
  // Every cell has its own piece of the texture, so that overlapping ones do not run into each other.
  const shift = random.int(fine.length);
  const nucleusX = cell.x + uniform(random, -2.5, 2.5);
  const nucleusY = cell.y + uniform(random, -2.5, 2.5);
  const nucleusRadius = shape.type === 'round' ? uniform(random, 5, 8) : uniform(random, 4, 5.5);
  visit(cell, width, height, (d, x, y) => {
    if (d > MARGIN) return;
    const at = y * width + x;
    const side = 1 + sideX * (x - cell.x) + sideY * (y - cell.y);
    if (d > 0) {
      // The bright fringe, and the weak dark one behind it.
      image[at] += halo * side * (gauss(d - 0.6, look.haloWidth * 0.6) - 0.16 * gauss(d - 3 * look.haloWidth, 2.5));
    }
    if (d > 0.5) return;
    const texture = (at + shift) % fine.length;
    const fromNucleus = Math.hypot(x - nucleusX, y - nucleusY);
    const tip = shape.type === 'round' ? 0 : Math.max(0, Math.hypot(x - cell.x, y - cell.y) / shape.reach - 0.65);
    const inside =
      light[at] +
      offset +
      look.fine * fine[texture] +
      look.coarse * coarse[texture] +
      look.nucleus * gauss(fromNucleus, nucleusRadius) -
      2.2 * look.nucleus * gauss(fromNucleus, 1.5) -
      45 * tip -
      rim * side * gauss(d + look.rimWidth * 0.5, look.rimWidth * 0.6);
    // Pixels on the outline are part cell, part surroundings.
    image[at] += Math.min(1, 0.5 - d) * (inside - image[at]);
  });
}

const gauss = (distance: number, sigma: number): number => Math.exp((-0.5 * distance * distance) / (sigma * sigma));

/**
 * Noise without details smaller than `cell` pixels: normal numbers on a lattice, joined by smooth steps.
 *
 * @param deviation standard deviation at the lattice's points; about .6 of it over all pixels
 * @returns [height, width]
 */
function smoothNoise(random: Random, width: number, height: number, cell: number, deviation: number): Float32Array {
  const columns = Math.ceil(width / cell) + 2;
  const rows = Math.ceil(height / cell) + 2;
  const lattice = Float32Array.from({ length: columns * rows }, () => deviation * random.normal());
  const dx = random.next();
  const dy = random.next();
  const noise = new Float32Array(width * height);
  const step = (t: number) => t * t * (3 - 2 * t);
  for (let y = 0, i = 0; y < height; y++) {
    const v = y / cell + dy;
    const row = Math.floor(v);
    const fv = step(v - row);
    for (let x = 0; x < width; x++, i++) {
      const u = x / cell + dx;
      const column = Math.floor(u);
      const fu = step(u - column);
      const at = row * columns + column;
      const upper = lattice[at] + fu * (lattice[at + 1] - lattice[at]);
      const lower = lattice[at + columns] + fu * (lattice[at + columns + 1] - lattice[at + columns]);
      noise[i] = upper + fv * (lower - upper);
    }
  }
  return noise;
}

/** The optics' slight blur: the binomial kernel 1 2 1 / 4 on both axes (standard deviation .7 pixel), edges repeated. */
function blur(image: Float32Array, width: number, height: number): Float32Array {
  const across = new Float32Array(image.length);
  const result = new Float32Array(image.length);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      across[i] = (image[x > 0 ? i - 1 : i] + 2 * image[i] + image[x < width - 1 ? i + 1 : i]) / 4;
    }
  }
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      result[i] = (across[y > 0 ? i - width : i] + 2 * across[i] + across[y < height - 1 ? i + width : i]) / 4;
    }
  }
  return result;
}
