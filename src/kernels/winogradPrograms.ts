import { defineProgram } from '../gpu/program.ts';
import { lines, range } from './tile.ts';

/*
 * The linear maps of Winograd's minimal filtering F(4×4, 3×3) (Lavin, Gray 2016, "Fast Algorithms for Convolutional Neural Networks"). A 6 × 6
 * patch d of the input and a 3 × 3 kernel g give a 4 × 4 tile of the output:
 *   y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A
 * Each program below computes L · X · Lᵀ of a small matrix X for one of these L, or its transpose, four channels at a time. The 36 entries of
 * what lies in between are 36 planes, each a matrix over (tile, channel) or (channel, channel).
 *
 * The points of interpolation are 0, ±11/16, ±23/16, ∞. They decide how much of the products cancels in Aᵀ and so how far rounding is magnified
 * (Barabasz et al. 2020, "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks"). Of all pairs of
 * sixteenths these have the smallest product of largest error and root mean square, in all three directions together: a third and a half of what
 * Lavin's 0, ±1, ±2, ∞ have; oneDNN's ±5/8, ±3/2 come near. All coefficients of A and B are exact in float32.
 */
export const TILE = 4;
export const PATCH = 6;
export const PLANES = PATCH * PATCH;

type Matrix = readonly (readonly number[])[];

const [NEAR, FAR] = [11 / 16, 23 / 16];

/** The polynomials of degree 5 that vanish at all finite points but one; the last, of degree 5, at all five. */
function inputMatrix(): Matrix {
  const [p, q] = [NEAR ** 2, FAR ** 2];
  const pair = (point: number, other: number) =>
    [1, -1].map((sign) => [0, -sign * point * other, -other, sign * point, 1, 0]);
  return [[p * q, 0, -(p + q), 0, 1, 0], ...pair(NEAR, q), ...pair(FAR, p), [0, p * q, 0, -(p + q), 0, 1]];
}

/** The first powers of each point, divided by `weight`; of ∞ the highest power alone. */
function powers(count: number, weight: (point: number) => number): Matrix {
  const rows = [0, NEAR, -NEAR, FAR, -FAR].map((point) => range(count).map((k) => point ** k / weight(point)));
  return [...rows, range(count).map((k) => (k === count - 1 ? 1 : 0))];
}

const B = inputMatrix();
const A = powers(TILE, () => 1);
/** Divided by the products of a point's distances from the others. */
const G = powers(3, (point) => {
  const others = [0, NEAR, -NEAR, FAR, -FAR].filter((other) => other !== point);
  return others.reduce((product, other) => product * (point - other), 1);
});

const grid = (size: number): [number, number][] => range(size * size).map((i) => [Math.floor(i / size), i % size]);

/** Σ coefficients[k] · names[k] without what is 0. Terms without a factor come first, the others are fused multiply-adds. */
function combination(coefficients: readonly number[], names: readonly string[]): string {
  const terms = coefficients.flatMap((factor, k) => (factor === 0 ? [] : [{ factor, name: names[k] }]));
  terms.sort((a, b) => Number(a.factor !== 1) - Number(b.factor !== 1));
  return terms.reduce((sum, { factor, name }) => {
    if (factor === 1) return sum ? `(${sum} + ${name})` : name;
    const size = factor.toPrecision(9);
    return sum ? `fma(vec4f(${size}), ${name}, ${sum})` : `(${size} * ${name})`;
  }, '');
}

/** The first of each pair of opposite points: powers of -p are the even ones of p and the odd ones negated, so the two share their sums. */
const PAIRS = [1, 3];
const ofParity = (coefficients: readonly number[], parity: number) =>
  coefficients.map((factor, k) => (k % 2 === parity ? factor : 0));

/** Declares to{i} = Σ_k matrix[i, k] · from[k]: six entries, one for each point. */
function evaluate(matrix: Matrix, from: readonly string[], to: readonly string[]): string {
  const single = [0, 5].map((i) => `    let ${to[i]} = ${combination(matrix[i], from)};`);
  const pairs = PAIRS.map((i) => {
    const [even, odd] = [0, 1].map((parity) => combination(ofParity(matrix[i], parity), from));
    return `    let ${to[i]}even = ${even}; let ${to[i]}odd = ${odd};
    let ${to[i]} = ${to[i]}even + ${to[i]}odd; let ${to[i + 1]} = ${to[i]}even - ${to[i]}odd;`;
  });
  return [...single, ...pairs].join('\n');
}

/** Declares to{i} = Σ_k matrix[k, i] · from[k]: the transpose of {@link evaluate}, of six entries. */
function gather(matrix: Matrix, from: readonly string[], to: readonly string[]): string {
  const pairs = PAIRS.map(
    (k) =>
      `    let ${to[0]}sum${k} = ${from[k]} + ${from[k + 1]}; let ${to[0]}difference${k} = ${from[k]} - ${from[k + 1]};`,
  );
  const sums = to.map((name, i) => {
    const part = i % 2 === 0 ? 'sum' : 'difference';
    const terms = [from[0], ...PAIRS.map((k) => `${to[0]}${part}${k}`), from[5]];
    const coefficients = [0, ...PAIRS, 5].map((k) => matrix[k][i]);
    return `    let ${name} = ${combination(coefficients, terms)};`;
  });
  return [...pairs, ...sums].join('\n');
}

/** Declares out{i}_{j} = (L · X · Lᵀ)[i, j], where X[i, j] are the variables x{i}_{j}, of an L that is the matrix or its transpose. */
function sandwich(map: typeof evaluate, matrix: Matrix): string {
  const [points, powersOfPoint] = [range(matrix.length), range(matrix[0].length)];
  const [to, from] = map === evaluate ? [points, powersOfPoint] : [powersOfPoint, points];
  const columns = from.map((j) => {
    const [column, half] = [from.map((k) => `x${k}_${j}`), to.map((k) => `half${j}_${k}`)];
    return map(matrix, column, half);
  });
  const rows = to.map((i) => {
    const [half, row] = [from.map((k) => `half${k}_${i}`), to.map((k) => `out${i}_${k}`)];
    return map(matrix, half, row);
  });
  return [...columns, ...rows].join('\n');
}

export type WinogradFlags = {
  /** Where maps and planes are read. They are written to buffers: copying one into a texture costs a tenth of storing to the texture. */
  source: 'buffer' | 'texture';
};

const place = (source: WinogradFlags['source']) => (source === 'texture' ? 'texture' : 'vec4f');

/** `load(i)` from `name`. Outside of a texture a load is harmless. */
const load = (source: WinogradFlags['source'], name: string): string =>
  `fn load(i: u32) -> vec4f { return ${source === 'texture' ? `textureLoad(${name}, texel(i))` : `${name}[i]`}; }`;
/**
 * An entry point without a branch, behind which software adapters would test every lane at every load: surplus invocations repeat the last
 * element. `fresh` is false in them.
 */
const entry = (body: string): string => `
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let index = (group.x + group.y * groups.x) * 64u + lane;
  let i = min(index, u.count - 1u);
  let fresh = index < u.count;
${body}
}`;

/** Where tiles lie in maps [images, height, width, vectors]; `count` is tiles of a chunk × vectors. */
const tileUniforms = {
  count: 'u32',
  firstTile: 'u32',
  tilesDown: 'u32',
  tilesAcross: 'u32',
  height: 'u32',
  width: 'u32',
  vectors: 'u32',
  /** The number of planes, unknown to the compiler. */
  planes: 'u32',
} as const;

const tilePlace = `
  let vector = i % u.vectors;
  let tile = u.firstTile + i / u.vectors;
  let top = tile / u.tilesAcross % u.tilesDown * ${TILE}u;
  let left = tile % u.tilesAcross * ${TILE}u;
  let image = tile / (u.tilesAcross * u.tilesDown);`;

/** Reads a square of `size` pixels, of which the first lies `pad` before the tile; outside the map it is 0. */
const readSquare = (size: number, pad: number): string => `
${lines(size, (i) => `  let y${i} = i32(top) + ${i - pad}; let x${i} = i32(left) + ${i - pad};`)}
${grid(size)
  .map(
    ([i, j]) => `  let inside${i}_${j} = (u32(y${i}) < u.height) & (u32(x${j}) < u.width);
  let at${i}_${j} = ((image * u.height + u32(y${i})) * u.width + u32(x${j})) * u.vectors + vector;
  let x${i}_${j} = select(vec4f(), load(select(0u, at${i}_${j}, inside${i}_${j})), inside${i}_${j});`,
  )
  .join('\n')}`;

/** A loop whose length is not known to the compiler: unrolled, stores to buffers take software adapters seconds to compile. */
const savePlanes = `
  var outs = array<vec4f, ${PLANES}>(${grid(PATCH)
    .map(([i, j]) => `out${i}_${j}`)
    .join(', ')});
  for (var plane = 0u; plane < u.planes; plane++) { planes[plane * u.count + i] = outs[plane]; }`;

const readPlanes = grid(PATCH)
  .map(([i, j]) => `  let x${i}_${j} = load(${i * PATCH + j}u * u.count + i);`)
  .join('\n');

/** V = Bᵀ d B of the patches of x: planes of [tile, channel]. */
export const winogradInput = defineProgram({
  name: 'winogradInput',
  uniforms: tileUniforms,
  bindings: ({ source }: WinogradFlags) => ({ x: ['read', place(source)], planes: ['write', 'vec4f'] }) as const,
  code: ({ source }) => `
${load(source, 'x')}
${entry(`${tilePlace}
${readSquare(PATCH, 1)}
${sandwich(evaluate, B)}
${savePlanes}`)}`,
});

/** A g Aᵀ of the tiles of the upstream gradient g: planes of [tile, channel]. */
export const winogradUpstream = defineProgram({
  name: 'winogradUpstream',
  uniforms: tileUniforms,
  bindings: ({ source }: WinogradFlags) => ({ x: ['read', place(source)], planes: ['write', 'vec4f'] }) as const,
  code: ({ source }) => `
${load(source, 'x')}
${entry(`${tilePlace}
${readSquare(TILE, 0)}
${sandwich(evaluate, A)}
${savePlanes}`)}`,
});

/**
 * U = G g Gᵀ of all kernels: planes of [k, n]. A kernel's tap lies at tap · tapStride + k · strideK + n · strideN of the weights; the taps of
 * a flipped kernel are counted from the last.
 */
export const winogradWeights = defineProgram({
  name: 'winogradWeights',
  uniforms: {
    count: 'u32',
    vectors: 'u32',
    planes: 'u32',
    tapStride: 'u32',
    strideK: 'u32',
    strideN: 'u32',
    flip: 'u32',
    scaled: 'u32',
  },
  bindings: { weight: 'read', scale: 'read', planes: ['write', 'vec4f'] },
  code: () => `
fn tapAt(tap: u32, first: u32) -> vec4f {
  let at = first + select(tap, 8u - tap, u.flip == 1u) * u.tapStride;
  return vec4f(weight[at], weight[at + u.strideN], weight[at + 2u * u.strideN], weight[at + 3u * u.strideN]);
}
${entry(`
  let k = i / u.vectors;
  let first = k * u.strideK + i % u.vectors * 4u * u.strideN;
  var factor = 1.0;
  if (u.scaled == 1u) { factor = scale[k]; }
${grid(3)
  .map(([i, j]) => `  let x${i}_${j} = factor * tapAt(${i * 3 + j}u, first);`)
  .join('\n')}
${sandwich(evaluate, G)}
${savePlanes}`)}`,
});

/** y = relu?(Aᵀ M A · scale? + bias? + residual?), or y += the same, of planes M of [tile, channel]. */
export const winogradOutput = defineProgram({
  name: 'winogradOutput',
  uniforms: { ...tileUniforms, scaled: 'u32', biased: 'u32', hasResidual: 'u32', relu: 'u32', accumulate: 'u32' },
  bindings: ({ source }: WinogradFlags) =>
    ({
      planes: ['read', place(source)],
      scale: ['read', 'vec4f'],
      bias: ['read', 'vec4f'],
      residual: ['read', 'vec4f'],
      y: ['write', 'vec4f'],
    }) as const,
  code: ({ source }) => `
${load(source, 'planes')}
${entry(`${tilePlace}
${readPlanes}
${sandwich(gather, A)}
  var factor = vec4f(1.0);
  if (u.scaled == 1u) { factor = scale[vector]; }
  var shift = vec4f();
  if (u.biased == 1u) { shift = bias[vector]; }
  var tileOut = array<vec4f, ${TILE * TILE}>(${grid(TILE)
    .map(([i, j]) => `out${i}_${j}`)
    .join(', ')});
  // A loop like that over planes.
  let rowsIn = select(0u, min(u.height - top, ${TILE}u), fresh);
  let columnsIn = min(u.width - left, ${TILE}u);
  for (var p = 0u; p < rowsIn * columnsIn; p++) {
    let dy = p / columnsIn;
    let dx = p % columnsIn;
    let at = ((image * u.height + top + dy) * u.width + left + dx) * u.vectors + vector;
    var value = fma(tileOut[dy * ${TILE}u + dx], factor, shift);
    if (u.hasResidual == 1u) { value += residual[at]; }
    if (u.relu == 1u) { value = max(value, vec4f()); }
    if (u.accumulate == 1u) { value += y[at]; }
    y[at] = value;
  }`)}`,
});

/** dw = Gᵀ P G · scale?, or dw += the same, of planes P of [channel, channel]: the transpose of {@link winogradWeights}. */
export const winogradWeightGradient = defineProgram({
  name: 'winogradWeightGradient',
  uniforms: { count: 'u32', vectors: 'u32', taps: 'u32', scaled: 'u32', accumulate: 'u32' },
  bindings: ({ source }: WinogradFlags) =>
    ({ planes: ['read', place(source)], scale: ['read', 'vec4f'], dw: ['write', 'vec4f'] }) as const,
  code: ({ source }) => `
${load(source, 'planes')}
${entry(`
${readPlanes}
${sandwich(gather, G)}
  var factor = vec4f(1.0);
  if (u.scaled == 1u) { factor = scale[i % u.vectors]; }
  var outs = array<vec4f, 9>(${grid(3)
    .map(([i, j]) => `out${i}_${j}`)
    .join(', ')});
  // A loop like that over planes.
  let taps = select(0u, u.taps, fresh);
  for (var tap = 0u; tap < taps; tap++) {
    let at = tap * u.count + i;
    var value = factor * outs[tap];
    if (u.accumulate == 1u) { value += dw[at]; }
    dw[at] = value;
  }`)}`,
});
