import { defineProgram } from '../gpu/program.ts';
import type { Device } from '../tensor/device.ts';

/*
 * One tile of C[rows, columns] = A · B for every matrix product here: matmul, linear, convolution and all their gradients.
 * A lane keeps `rows` × `vectors` vec4 of C in registers. Lanes lie side by side along the columns, so loads of B are coalesced,
 * and every lane of a row of lanes needs the same values of A. On software adapters a load costs far more than arithmetic, so there each lane
 * loads a part of A and `subgroupBroadcast` hands it round; elsewhere each lane loads all of A itself (`direct`).
 *
 * Two programs differ in what A's rows are:
 *   rowTile     C[m, n] = Σ_taps Σ_k A(m, tap, k) · B[tap, k, n]. m is an output position (image, y, x), A is an image [N, H, W, Ci] whose row at
 *               a tap starts at (y · stride + tap · dilation - pad, …), zero outside. A plain matrix is an image of height 1. C's rows may be
 *               spread (target = position · step + offset), for transposed convolution. This serves A·B, convolution, and its gradient by the input.
 *   columnTile  C[m, n] = Σ_p A(p, m) · B[p, n]. p is an output position, m a (tap, channel): Aᵀ·B and the gradient by the weight.
 * Sizes are uniforms; only `TileFlags` change the text.
 */

/** How a device's tile is cut. */
export interface TileShape {
  /** Lanes along the columns: the subgroup size when `spread` is `subgroup`. */
  readonly lanes: number;
  /** Rows of lanes in a workgroup, each with its own tile. */
  readonly lanesDown: number;
  /** Rows of C in a lane's tile; a multiple of `lanes` for `subgroup`, and of 4. */
  readonly rows: number;
  /** vec4 columns of C in a lane's tile. */
  readonly vectors: number;
  readonly spread: 'subgroup' | 'direct';
  /** Workgroups that keep the device busy; long sums are split until there are about so many. */
  readonly parallelism: number;
}

/** 8 lanes: lavapipe. 4 lanes: SwiftShader. Measured best or nearly best, and quick to compile. Their workgroup is one subgroup. */
const subgroupShapes: Readonly<Record<number, TileShape>> = {
  8: { lanes: 8, lanesDown: 1, rows: 16, vectors: 1, spread: 'subgroup', parallelism: 16 },
  4: { lanes: 4, lanesDown: 1, rows: 32, vectors: 2, spread: 'subgroup', parallelism: 16 },
};
const directShape: TileShape = { lanes: 8, lanesDown: 8, rows: 8, vectors: 1, spread: 'direct', parallelism: 1024 };

/**
 * The tile for a device and a number of columns. Lanes are trusted to be one subgroup only where every subgroup has exactly that
 * size. A second vector of columns is left out where all columns fit into the first: half the lane would compute nothing.
 */
export function tileShape(device: Device, columns = Number.POSITIVE_INFINITY): TileShape {
  const { subgroupMinSize, subgroupMaxSize, device: gpuDevice } = device.gpu.opened;
  const fixed = gpuDevice.features.has('subgroups') && subgroupMinSize === subgroupMaxSize;
  const shape = (fixed && subgroupShapes[subgroupMinSize]) || directShape;
  return { ...shape, vectors: Math.min(shape.vectors, Math.max(1, Math.ceil(columns / (shape.lanes * 4)))) };
}

/** Columns of C in a workgroup's tile. */
export function tileColumns(shape: TileShape): number {
  return shape.lanes * shape.vectors * 4;
}

/** Rows of C in a workgroup's tile. */
export function tileRows(shape: TileShape): number {
  return shape.rows * shape.lanesDown;
}

/** Positions that a columnTile takes in one step of its loop. */
export function positionsPerStep(shape: Pick<TileShape, 'spread' | 'lanes'>): number {
  return shape.spread === 'subgroup' ? shape.lanes : 1;
}

/** What changes the text of a tile. */
export type TileFlags = {
  lanes: number;
  lanesDown: number;
  rows: number;
  vectors: number;
  spread: 'subgroup' | 'direct';
  /** A is loaded by vec4: its channels (and so its row lengths) are multiples of 4. */
  vecA: boolean;
  /** B, C and the epilogue's tensors are accessed by vec4: the columns are a multiple of 4. */
  vecB: boolean;
};

export function tileFlags(shape: TileShape, vecA: boolean, vecB: boolean): TileFlags {
  const { lanes, lanesDown, rows, vectors, spread } = shape;
  return { lanes, lanesDown, rows, vectors, spread, vecA, vecB };
}

/** Reduction steps that a rowTile takes in one turn of its loop. */
const UNROLL = 4;
const XYZW = 'xyzw';

const range = (count: number): number[] => Array.from({ length: count }, (_, index) => index);
const lines = (count: number, line: (index: number) => string): string => range(count).map(line).join('\n');
const element = (vector: boolean): 'vec4f' | 'f32' => (vector ? 'vec4f' : 'f32');

function bindings({ vecA, vecB }: TileFlags) {
  return {
    a: ['read', element(vecA)],
    b: ['read', element(vecB)],
    scale: ['read', element(vecB)],
    bias: ['read', element(vecB)],
    residual: ['read', element(vecB)],
    c: ['write', element(vecB)],
  } as const;
}

/** Uniforms of both programs. Units of A: vec4 if vecA, else float. Units of columns: vec4 if vecB, else float. */
const commonUniforms = {
  /** Rows of C, its columns (in units), and how many tiles these make. */
  rows: 'u32',
  columns: 'u32',
  rowTiles: 'u32',
  columnTiles: 'u32',
  /** The grid of positions of one image, the image's height and the length of its rows (in units of A). */
  outHeight: 'u32',
  outWidth: 'u32',
  height: 'u32',
  rowLength: 'u32',
  stride: 'i32',
  padTop: 'i32',
  padLeft: 'i32',
  dilation: 'i32',
  /** Channels of A, in its units. */
  channels: 'i32',
  /** The epilogue: c = relu?(sum · scale? + bias? + residual?), or c += the same. */
  scaled: 'u32',
  biased: 'u32',
  hasResidual: 'u32',
  relu: 'u32',
  accumulate: 'u32',
} as const;

/** Reading columns of B (or of scale and bias) and writing C. `Columns` are a vec4's place: one index, or four clamped ones. */
function columnAccess({ vecB }: TileFlags): string {
  if (vecB) {
    return `
alias Columns = u32;
fn columnsAt(vector: u32) -> Columns { return min(vector, u.columns - 1u); }
fn readB(row: u32, at: Columns) -> vec4f { return b[row * u.columns + at]; }
fn readScale(at: Columns) -> vec4f { return scale[at]; }
fn readBias(at: Columns) -> vec4f { return bias[at]; }
fn store(row: u32, vector: u32, sum: vec4f) {
  if (vector < u.columns) {
    let at = row * u.columns + vector;
    var value = sum;
    if (u.hasResidual == 1u) { value += residual[at]; }
    if (u.relu == 1u) { value = max(value, vec4f()); }
    if (u.accumulate == 1u) { value += c[at]; }
    c[at] = value;
  }
}`;
  }
  const gather = (name: string, base = '') =>
    `vec4f(${[...XYZW].map((component) => `${name}[${base}at.${component}]`).join(', ')})`;
  return `
alias Columns = vec4u;
fn columnsAt(vector: u32) -> Columns { return min(4u * vector + vec4u(0u, 1u, 2u, 3u), vec4u(u.columns - 1u)); }
fn readB(row: u32, at: Columns) -> vec4f { let base = row * u.columns; return ${gather('b', 'base + ')}; }
fn readScale(at: Columns) -> vec4f { return ${gather('scale')}; }
fn readBias(at: Columns) -> vec4f { return ${gather('bias')}; }
fn storeOne(at: u32, column: u32, sum: f32) {
  if (column < u.columns) {
    var value = sum;
    if (u.hasResidual == 1u) { value += residual[at]; }
    if (u.relu == 1u) { value = max(value, 0.0); }
    if (u.accumulate == 1u) { value += c[at]; }
    c[at] = value;
  }
}
fn store(row: u32, vector: u32, sum: vec4f) {
  let at = row * u.columns + 4u * vector;
${lines(4, (i) => `  storeOne(at + ${i}u, 4u * vector + ${i}u, sum.${XYZW[i]});`)}
}`;
}

/** The entry point up to the accumulators. A grid folded into y has tiles too many: their columns lie outside and are not stored. */
function prologue({ lanes, lanesDown, rows, vectors }: TileFlags, splits: boolean): string {
  return `
@compute @workgroup_size(${lanes}, ${lanesDown})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let tile = group.x + group.y * groups.x;
  let lane = local.x;
  let firstRow = ${lanesDown > 1 ? `(tile % u.rowTiles * ${lanesDown}u + local.y)` : 'tile % u.rowTiles'} * ${rows}u;
  let columnTile = tile / u.rowTiles${splits ? ' % u.columnTiles' : ''};
${lines(vectors, (j) => `  let vector${j} = columnTile * ${lanes * vectors}u + ${j * lanes}u + lane; let at${j} = columnsAt(vector${j});`)}
${lines(rows, (r) =>
  range(vectors)
    .map((j) => `  var sum${r}_${j} = vec4f();`)
    .join(''),
)}`;
}

/** sum[r] += A(r, k) · b[k] for all rows and `steps` values of k; `value` gives the expression of A(r, k). Pairs of rows share a loaded b. */
function multiplyAdd(rows: number, vectors: number, steps: number, value: (row: number, k: number) => string): string {
  const text: string[] = [];
  for (let pair = 0; pair < rows; pair += 2) {
    for (const k of range(steps)) {
      for (const row of [pair, pair + 1]) {
        text.push(`    let a${row}_${k} = vec4f(${value(row, k)});`);
        for (const j of range(vectors)) {
          text.push(`    sum${row}_${j} = fma(a${row}_${k}, b${k}_${j}, sum${row}_${j});`);
        }
      }
    }
  }
  return text.join('\n');
}

/**
 * Scale, bias and stores. `target` gives the row of C for the tile's row r. A loop over the rows, where everything else is unrolled: unrolled,
 * the epilogue's loads and stores would make up most of the text, and software adapters would compile for seconds.
 */
function epilogue({ rows, vectors }: TileFlags, target: string): string {
  return `
${lines(
  vectors,
  (j) => `  var scale${j} = vec4f(1.0); if (u.scaled == 1u) { scale${j} = readScale(at${j}); }
  var bias${j} = vec4f(); if (u.biased == 1u) { bias${j} = readBias(at${j}); }`,
)}
  var sums: array<array<vec4f, ${vectors}>, ${rows}>;
${lines(rows, (r) =>
  range(vectors)
    .map((j) => `  sums[${r}][${j}] = sum${r}_${j};`)
    .join(''),
)}
  // How many rows are in use is not known to the compiler, which so does not unroll the loop itself.
  let used = min(limit - min(firstRow, limit), ${rows}u);
  for (var r = 0u; r < used; r++) {
    let place = ${target};
${lines(vectors, (j) => `    store(place, vector${j}, fma(sums[r][${j}], scale${j}, bias${j}));`)}
  }
}`;
}

const directives = ({ spread }: TileFlags): string => (spread === 'subgroup' ? 'enable subgroups;' : '');

export const rowTile = defineProgram({
  name: 'rowTile',
  uniforms: {
    ...commonUniforms,
    /** Taps and, at each, the length of A's run (floats) that meets as many rows of B. */
    tapsDown: 'u32',
    tapsAcross: 'u32',
    run: 'u32',
    /** First row of B of the first tap, and steps from tap to tap. */
    firstTap: 'i32',
    tapStepDown: 'i32',
    tapStepAcross: 'i32',
    /** Position (image, y, x) writes C's row (image, y · step + top, x · step + left) of an image of this height and width. */
    targetHeight: 'u32',
    targetWidth: 'u32',
    targetStep: 'u32',
    targetTop: 'u32',
    targetLeft: 'u32',
  },
  bindings,
  directives,
  code: (flags: TileFlags) => {
    const { lanes, rows, vectors, spread, vecA } = flags;
    const spreads = spread === 'subgroup';
    // Each holder is a row of A whose address a lane keeps: with subgroups a lane holds every lanes-th row, else all.
    const holders = spreads ? rows / lanes : rows;
    const held = (q: number) => (spreads ? `${q * lanes}u + lane` : `${q}u`);
    const fromHolder = (row: number, expression: (q: number) => string): string =>
      spreads ? `subgroupBroadcast(${expression(Math.floor(row / lanes))}, ${row % lanes}u)` : expression(row);
    return `
struct Row { image: i32, y: i32, x: i32, place: u32 }
// A's run at one tap: element k lies at base + k and counts when start <= k < start + span, else it is zero padding.
struct Run { base: u32, start: u32, span: u32 }
fn locate(row: u32) -> Row {
  let line = row / u.outWidth;
  let x = row % u.outWidth;
  let image = line / u.outHeight;
  let y = line % u.outHeight;
  let place = (image * u.targetHeight + y * u.targetStep + u.targetTop) * u.targetWidth + x * u.targetStep + u.targetLeft;
  return Row(i32(image * u.height), i32(y) * u.stride - u.padTop, (i32(x) * u.stride - u.padLeft) * u.channels, place);
}
fn enter(row: Row, down: i32, across: i32) -> Run {
  let y = row.y + down * u.dilation;
  let x = row.x + across * u.dilation * u.channels;
  let start = max(0, -x);
  let end = min(i32(u.run${vecA ? ' / 4u' : ''}), i32(u.rowLength) - x);
  let span = select(0, max(0, end - start), u32(y) < u.height);
  return Run(u32((row.image + y) * i32(u.rowLength) + x), u32(start), u32(span));
}
${
  vecA
    ? `
fn readA(run: Run, k: u32) -> vec4f {
  let inside = k / 4u - run.start < run.span;
  return select(vec4f(), a[select(0u, run.base + k / 4u, inside)], inside);
}`
    : `
fn readOne(run: Run, k: u32) -> f32 {
  let inside = k - run.start < run.span;
  return select(0.0, a[select(0u, run.base + k, inside)], inside);
}
fn readA(run: Run, k: u32) -> vec4f { return vec4f(readOne(run, k), readOne(run, k + 1u), readOne(run, k + 2u), readOne(run, k + 3u)); }`
}
${columnAccess(flags)}
${prologue(flags, false)}
${lines(holders, (q) => `  let row${q} = locate(min(firstRow + ${held(q)}, u.rows - 1u));`)}
  for (var down = 0; down < i32(u.tapsDown); down++) { for (var across = 0; across < i32(u.tapsAcross); across++) {
${lines(holders, (q) => `  let run${q} = enter(row${q}, down, across);`)}
  let firstB = u32(u.firstTap + down * u.tapStepDown + across * u.tapStepAcross);
  for (var k = 0u; k < u.run; k += ${UNROLL}u) {
${lines(holders, (q) => `    let held${q} = readA(run${q}, k);`)}
${lines(UNROLL, (k) => {
  // A run that is no multiple of the unrolling ends with zeros of A; what they meet in B must be numbers, so it is the last row again.
  const row = vecA ? `k + ${k}u` : `min(k + ${k}u, u.run - 1u)`;
  return range(vectors)
    .map((j) => `    let b${k}_${j} = readB(firstB + ${row}, at${j});`)
    .join('\n');
})}
${multiplyAdd(rows, vectors, UNROLL, (row, k) => fromHolder(row, (q) => `held${q}.${XYZW[k]}`))}
  } } }
  let limit = u.rows;
  let places = array<u32, ${holders}>(${range(holders)
    .map((q) => `row${q}.place`)
    .join(', ')});
${epilogue(flags, spreads ? `subgroupShuffle(places[r / ${lanes}u], r % ${lanes}u)` : 'places[r]')}`;
  },
});

export const columnTile = defineProgram({
  name: 'columnTile',
  uniforms: {
    ...commonUniforms,
    /** Positions in all, and how many of them one split sums. C has a copy per split. */
    positions: 'u32',
    chunk: 'u32',
    splits: 'u32',
    /** Channels of A as floats and the taps across, which take a row of C apart. */
    depth: 'u32',
    tapsAcross: 'u32',
    /** positionsPerStep in the mixed radix (image, y, x). */
    stepImage: 'u32',
    stepDown: 'u32',
    stepAcross: 'u32',
  },
  bindings,
  directives,
  code: (flags: TileFlags) => {
    const { rows, vectors, spread, vecA } = flags;
    const spreads = spread === 'subgroup';
    const steps = positionsPerStep(flags);
    const unit = vecA ? 4 : 1;
    const place = (row: number) => (vecA ? `held${row >> 2}.${XYZW[row & 3]}` : `held${row}`);
    return `
// Conditions are joined by &, since && branches, and branches around loads make software adapters compile for minutes.
// What a row of C (a tap and a channel) adds to a position's place in A.
struct Tap { y: i32, x: i32 }
fn tapOf(row: u32) -> Tap {
  let tap = row / u.depth;
  let y = i32(tap / u.tapsAcross) * u.dilation - u.padTop;
  let x = i32(tap % u.tapsAcross) * u.dilation - u.padLeft;
  return Tap(y, x * u.channels + i32(row % u.depth)${vecA ? ' / 4' : ''});
}
struct Position { index: u32, image: u32, y: u32, x: u32 }
fn locate(index: u32) -> Position {
  let line = index / u.outWidth;
  return Position(index, line / u.outHeight, line % u.outHeight, index % u.outWidth);
}
// Adds a step digit by digit, so the loop needs no division.
fn advance(p: Position) -> Position {
  var x = p.x + u.stepAcross;
  let carryX = u32(x >= u.outWidth);
  x -= carryX * u.outWidth;
  var y = p.y + u.stepDown + carryX;
  let carryY = u32(y >= u.outHeight);
  y -= carryY * u.outHeight;
  return Position(p.index + ${steps}u, p.image + u.stepImage + carryY, y, x);
}
fn readA(p: Position, tap: Tap, end: u32) -> ${element(vecA)} {
  let y = i32(p.y) * u.stride + tap.y;
  let x = i32(p.x) * (u.stride * u.channels) + tap.x;
  let inside = (p.index < end) & (u32(y) < u.height) & (u32(x) < u.rowLength);
  let at = (p.image * u.height + u32(y)) * u.rowLength + u32(x);
  return select(${element(vecA)}(), a[select(0u, at, inside)], inside);
}
${columnAccess(flags)}
${prologue(flags, true)}
  let split = tile / (u.rowTiles * u.columnTiles);
${lines(rows / unit, (q) => `  let tap${q} = tapOf(min(firstRow + ${q * unit}u, u.rows - ${unit}u));`)}
  let begin = min(split * u.chunk, u.positions);
  let end = min(begin + u.chunk, u.positions);
  var position = locate(begin${spreads ? ' + lane' : ''});
  for (var k = begin; k < end; k += ${steps}u) {
${lines(rows / unit, (q) => `    let held${q} = readA(position, tap${q}, end);`)}
    position = advance(position);
${lines(steps, (k) =>
  range(vectors)
    .map((j) => `    let b${k}_${j} = readB(min(k + ${k}u, end - 1u), at${j});`)
    .join('\n'),
)}
${multiplyAdd(rows, vectors, steps, (row, k) => (spreads ? `subgroupBroadcast(${place(row)}, ${k}u)` : place(row)))}
  }
  let limit = select(0u, u.rows, split < u.splits);
${epilogue(flags, 'split * u.rows + firstRow + r')}`;
  },
});
