import type { BindingType } from '../gpu/program.ts';

/*
 * One tile of C[rows, columns] = A · B for every matrix product here: matmul, linear, convolution and all their gradients.
 * A lane keeps `rows` × `vectors` vec4 of C in registers. Lanes lie side by side along the columns, so loads of B are coalesced,
 * and every lane of a row of lanes needs the same values of A. How these reach it is the tile's `spread`:
 *   subgroup   each lane loads a part of A and `subgroupBroadcast` hands it round. For software adapters, where a load costs far more
 *              than arithmetic.
 *   direct     each lane loads all of A itself, and trusts caches.
 *   workgroup  the lanes of a workgroup load a block of A and of B into workgroup memory and all read it there: the classic tile of GPUs.
 * A and B come from buffers or, where that is cheaper, from textures (`source`).
 *
 * Two programs differ in what A's rows are:
 *   rowTile     C[m, n] = Σ_taps Σ_k A(m, tap, k) · B[tap, k, n]. m is an output position (image, y, x), A is an image [N, H, W, Ci] whose row at
 *               a tap starts at (y · stride + tap · dilation - pad, …), zero outside. A plain matrix is an image of height 1. C's rows may be
 *               spread (target = position · step + offset), for transposed convolution. This serves A·B, convolution, and its gradient by the input.
 *   columnTile  C[m, n] = Σ_p A(p, m) · B[p, n]. p is an output position, m a (tap, channel): Aᵀ·B and the gradient by the weight.
 * Both compute a batch of products that lie one after another. Sizes are uniforms; only `TileFlags` change the text.
 */

/** How a tile is cut. */
export interface TileShape {
  /** Lanes along the columns: the subgroup size when `spread` is `subgroup`. */
  readonly lanes: number;
  /** Rows of lanes in a workgroup, each with its own tile. */
  readonly lanesDown: number;
  /** Rows of C in a lane's tile; a multiple of `lanes` for `subgroup`, and of 4. */
  readonly rows: number;
  /** vec4 columns of C in a lane's tile. */
  readonly vectors: number;
  readonly spread: 'subgroup' | 'direct' | 'workgroup';
  /** Where A and B are read. */
  readonly source: 'buffer' | 'texture';
  /** Workgroups that keep the device busy; long sums are split until there are about so many. */
  readonly parallelism: number;
}

/** Columns of C in a workgroup's tile. */
export function tileColumns(shape: Pick<TileShape, 'lanes' | 'vectors'>): number {
  return shape.lanes * shape.vectors * 4;
}

/** Rows of C in a workgroup's tile. */
export function tileRows(shape: Pick<TileShape, 'rows' | 'lanesDown'>): number {
  return shape.rows * shape.lanesDown;
}

/** What changes the text of a tile. */
export type TileFlags = {
  lanes: number;
  lanesDown: number;
  rows: number;
  vectors: number;
  spread: TileShape['spread'];
  source: TileShape['source'];
  /** A is loaded by vec4: its channels (and so its row lengths) are multiples of 4. Of a texture always. */
  vecA: boolean;
  /** C, the epilogue's tensors and, in a buffer, B are accessed by vec4: the columns are a multiple of 4. */
  vecB: boolean;
  /** So many elements of each vec4 of A can be other than 0: fewer than 4 where a vec4 is a pixel of fewer channels. */
  steps: number;
  /** Products of these steps are added up before they meet the sum, see `multiplyAdd`. */
  grouped: boolean;
};

export function tileFlags(
  shape: TileShape,
  {
    vecA,
    vecB,
    steps = 4,
    grouped = false,
  }: Pick<TileFlags, 'vecA' | 'vecB'> & Partial<Pick<TileFlags, 'steps' | 'grouped'>>,
): TileFlags {
  const { lanes, lanesDown, rows, vectors, spread, source } = shape;
  return { lanes, lanesDown, rows, vectors, spread, source, vecA: vecA || source === 'texture', vecB, steps, grouped };
}

export const XYZW = 'xyzw';

export const range = (count: number): number[] => Array.from({ length: count }, (_, index) => index);
export const lines = (count: number, line: (index: number) => string): string => range(count).map(line).join('\n');
export const element = (vector: boolean): 'vec4f' | 'f32' => (vector ? 'vec4f' : 'f32');

export function bindings({ vecA, vecB, source }: TileFlags) {
  const from = (vector: boolean): BindingType => (source === 'texture' ? 'texture' : element(vector));
  return {
    a: ['read', from(vecA)],
    b: ['read', from(vecB)],
    scale: ['read', element(vecB)],
    bias: ['read', element(vecB)],
    residual: ['read', element(vecB)],
    c: ['write', element(vecB)],
  } as const;
}

export const directives = ({ spread }: TileFlags): string => (spread === 'subgroup' ? 'enable subgroups;' : '');

/** Uniforms of both programs. Units of A: vec4 if vecA, else float. Units of columns: vec4 if vecB, else float. */
export const commonUniforms = {
  /** Rows of C, its columns (in units), and how many tiles these make. */
  rows: 'u32',
  columns: 'u32',
  rowTiles: 'u32',
  columnTiles: 'u32',
  /** Length of B's rows: in units, or of a texture in vec4. */
  columnsB: 'u32',
  /** Products, and from one to the next: units of A and rows of B. Their C lie one after another. */
  batches: 'u32',
  batchA: 'u32',
  batchB: 'u32',
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

/** `loadA(i)`: the i-th unit of A, zero unless `inside`. */
export function loadA({ source, vecA }: TileFlags): string {
  // Outside of a texture a load is harmless.
  const load = source === 'texture' ? 'textureLoad(a, texel(at))' : 'a[select(0u, at, inside)]';
  return `fn loadA(at: u32, inside: bool) -> ${element(vecA)} { return select(${element(vecA)}(), ${load}, inside); }`;
}

/** Reading columns of B. `Columns` are a vec4's place: one index, or four clamped ones. */
export function readB({ source, vecB }: TileFlags): string {
  if (source === 'texture' || vecB) {
    const load = source === 'texture' ? 'textureLoad(b, texel(row * u.columnsB + at))' : 'b[row * u.columnsB + at]';
    return `
alias Columns = u32;
fn columnsAt(vector: u32) -> Columns { return min(vector, u.columnsB - 1u); }
fn readB(row: u32, at: Columns) -> vec4f { return ${load}; }`;
  }
  return `
alias Columns = vec4u;
fn columnsAt(vector: u32) -> Columns { return min(4u * vector + vec4u(0u, 1u, 2u, 3u), vec4u(u.columnsB - 1u)); }
fn readB(row: u32, at: Columns) -> vec4f { let base = row * u.columnsB; return ${gather('b', 'base + ')}; }`;
}

const gather = (name: string, base = ''): string =>
  `vec4f(${[...XYZW].map((component) => `${name}[${base}at.${component}]`).join(', ')})`;

/** Reading scale and bias, and writing C. */
function store({ vecB }: TileFlags): string {
  if (vecB) {
    return `
fn readScale(vector: u32) -> vec4f { return scale[min(vector, u.columns - 1u)]; }
fn readBias(vector: u32) -> vec4f { return bias[min(vector, u.columns - 1u)]; }
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
  return `
fn channelsOf(vector: u32) -> vec4u { return min(4u * vector + vec4u(0u, 1u, 2u, 3u), vec4u(u.columns - 1u)); }
fn readScale(vector: u32) -> vec4f { let at = channelsOf(vector); return ${gather('scale')}; }
fn readBias(vector: u32) -> vec4f { let at = channelsOf(vector); return ${gather('bias')}; }
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

/**
 * The entry point up to the accumulators, with what it needs. A grid folded into y has tiles too many: their `plane`, the count of whole
 * products before the tile, lies outside.
 */
export function prologue(flags: TileFlags): string {
  const { lanes, lanesDown, rows, vectors } = flags;
  return `
${store(flags)}
@compute @workgroup_size(${lanes}, ${lanesDown})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let tile = group.x + group.y * groups.x;
  let lane = local.x;
  let blockRow = tile % u.rowTiles * ${lanesDown * rows}u;
  let firstRow = ${lanesDown > 1 ? `blockRow + local.y * ${rows}u` : 'blockRow'};
  let blockVector = tile / u.rowTiles % u.columnTiles * ${lanes * vectors}u;
  let plane = tile / (u.rowTiles * u.columnTiles);
${lines(vectors, (j) => `  let vector${j} = blockVector + ${j * lanes}u + lane; let at${j} = columnsAt(vector${j});`)}
${lines(rows, (r) =>
  range(vectors)
    .map((j) => `  var sum${r}_${j} = vec4f();`)
    .join(''),
)}`;
}

/**
 * sum[r] += A(r, k) · b[k] for all rows and `steps` values of k; `value` gives the expression of A(r, k). A sum is finished with before the next is
 * begun: lanes have more sums than a CPU has registers, and so each is fetched once (measured on lavapipe, 5 % less than k outside of the sums).
 *
 * `grouped` adds the products of these steps up before they meet the sum, whose rounding then is half as large, see `groupsSums`.
 */
export function multiplyAdd(
  { rows, vectors, steps, grouped }: Pick<TileFlags, 'rows' | 'vectors' | 'steps' | 'grouped'>,
  value: (row: number, k: number) => string,
): string {
  const sumOf = (row: number, j: number): string => {
    const product = (k: number): string => `a${row}_${k}, b${k}_${j}`;
    if (!grouped || steps === 1) {
      return lines(steps, (k) => `    sum${row}_${j} = fma(${product(k)}, sum${row}_${j});`);
    }
    const first = `a${row}_0 * b0_${j}`;
    return `    sum${row}_${j} += ${range(steps).reduce((sum, k) => (k === 0 ? sum : `fma(${product(k)}, ${sum})`), first)};`;
  };
  return lines(rows, (row) =>
    [
      ...range(steps).map((k) => `    let a${row}_${k} = vec4f(${value(row, k)});`),
      ...range(vectors).map((j) => sumOf(row, j)),
    ].join('\n'),
  );
}

/**
 * Scale, bias and stores of the rows below `limit`. `target` gives the row of C for the tile's row r. A loop over the rows, where everything else is
 * unrolled: unrolled, the epilogue's loads and stores would make up most of the text, and software adapters would compile for seconds.
 */
export function epilogue({ rows, vectors }: TileFlags, target: string): string {
  return `
${lines(
  vectors,
  (j) => `  var scale${j} = vec4f(1.0); if (u.scaled == 1u) { scale${j} = readScale(vector${j}); }
  var bias${j} = vec4f(); if (u.biased == 1u) { bias${j} = readBias(vector${j}); }`,
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
