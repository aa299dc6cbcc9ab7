import { defineProgram, perElement } from '../gpu/program.ts';
import { type ChannelFlags, floatsOf } from './channels.ts';

/*
 * The kernels of batchNorm.ts; the mathematics stands there. x is seen as [rows, C]. The passes over x are bound by memory, so an
 * invocation takes `ROWS` rows (or a whole share) of one group of channels and loads what belongs to the channels once.
 * `channels` is [4, C]: mean, 1/√(var + eps), weight, bias.
 */
const ROWS = 4;

/** Invocations of the passes that write one value per value of x. */
export function rowBlocks(rows: number): number {
  return Math.ceil(rows / ROWS);
}

/**
 * Rows of a list's padding do not count: `limit[0]` images of `perImage` rows do, of which `firstRow` lie before the part that is bound. Without
 * a limit `perImage` is 0.
 */
const limitUniforms = { firstRow: 'u32', perImage: 'u32' } as const;
const limitWgsl = `
fn countedRows() -> u32 {
  let counted = max(limit[0] * u.perImage, u.firstRow) - u.firstRow;
  return select(min(counted, u.rows), u.rows, u.perImage == 0u);
}
`;

/** How many partial results `mergeWgsl` joins at a time. */
export const FAN_IN = 64;

/** A share's mean and sum of squared deviations, shifted by its first value so that nothing cancels. */
export const shareStatistics = defineProgram({
  name: 'batchNormShareStatistics',
  uniforms: { count: 'u32', groups: 'u32', rows: 'u32', rowsPerShare: 'u32', ...limitUniforms },
  bindings: (flags: ChannelFlags) => ({
    x: ['read', floatsOf(flags)],
    limit: ['read', 'u32'],
    means: ['write', floatsOf(flags)],
    squares: ['write', floatsOf(flags)],
  }),
  code: (flags) =>
    limitWgsl +
    perElement(`
    let first = i / u.groups * u.rowsPerShare;
    let end = max(min(first + u.rowsPerShare, countedRows()), first);
    var at = first * u.groups + i % u.groups;
    let shift = x[at];
    var sum = ${floatsOf(flags)}();
    var sumOfSquares = ${floatsOf(flags)}();
    for (var row = first; row < end; row++) {
      let d = x[at] - shift;
      sum += d;
      sumOfSquares += d * d;
      at += u.groups;
    }
    let offset = sum / f32(max(end - first, 1u));
    means[i] = shift + offset;
    squares[i] = max(sumOfSquares - sum * offset, ${floatsOf(flags)}());`),
});

/**
 * `merged(c, share)`: mean and sum of squared deviations of up to FAN_IN partial results of channel c, the first of them at
 * `share`. Chan, Golub, LeVeque 1983: M2 = Σ (M2_s + n_s (mean_s - mean)²). All partial results stand for `rowsPerShare`
 * rows but the last, which has what is left.
 */
const mergeWgsl = `${limitWgsl}
fn merged(c: u32, share: u32) -> vec2f {
  let rows = countedRows();
  let end = min(share + ${FAN_IN}u, (rows + u.rowsPerShare - 1u) / u.rowsPerShare);
  if (share >= end) { return vec2f(); }
  let anchor = means[share * u.channels + c];
  var weighted = 0.0;
  for (var s = share; s < end; s++) {
    let n = f32(min(u.rowsPerShare, rows - s * u.rowsPerShare));
    weighted += n * (means[s * u.channels + c] - anchor);
  }
  let offset = weighted / f32(min(end * u.rowsPerShare, rows) - share * u.rowsPerShare);
  var m2 = 0.0;
  for (var s = share; s < end; s++) {
    let n = f32(min(u.rowsPerShare, rows - s * u.rowsPerShare));
    let d = means[s * u.channels + c] - anchor - offset;
    m2 += squares[s * u.channels + c] + n * d * d;
  }
  return vec2f(anchor + offset, m2);
}`;

export const mergeStatistics = defineProgram({
  name: 'batchNormMergeStatistics',
  uniforms: { count: 'u32', channels: 'u32', rows: 'u32', rowsPerShare: 'u32', ...limitUniforms },
  bindings: { means: 'read', squares: 'read', limit: ['read', 'u32'], mergedMeans: 'write', mergedSquares: 'write' },
  code: () => `${mergeWgsl}
${perElement(`
    let result = merged(i % u.channels, i / u.channels * ${FAN_IN}u);
    mergedMeans[i] = result.x;
    mergedSquares[i] = result.y;`)}`,
});

/** The last merge: `channels` of a batch, and the running statistics moved towards it. */
export const batchChannels = defineProgram({
  name: 'batchNormBatchChannels',
  uniforms: {
    count: 'u32',
    channels: 'u32',
    rows: 'u32',
    rowsPerShare: 'u32',
    ...limitUniforms,
    eps: 'f32',
    momentum: 'f32',
    updateRunning: 'u32',
  },
  bindings: {
    means: 'read',
    squares: 'read',
    limit: ['read', 'u32'],
    weight: 'read',
    bias: 'read',
    channels: 'write',
    runningMean: 'write',
    runningVar: 'write',
  },
  code: () => `${mergeWgsl}
${perElement(`
    let result = merged(i, 0u);
    channels[i] = result.x;
    let rows = countedRows();
    channels[i + u.channels] = 1.0 / sqrt(result.y / f32(max(rows, 1u)) + u.eps);
    channels[i + 2u * u.channels] = weight[i];
    channels[i + 3u * u.channels] = bias[i];
    if (u.updateRunning == 1u && rows > 0u) {
      runningMean[i] = (1.0 - u.momentum) * runningMean[i] + u.momentum * result.x;
      runningVar[i] = (1.0 - u.momentum) * runningVar[i] + u.momentum * result.y / f32(rows - 1u);
    }`)}`,
});

/** `channels` from running statistics. */
export const runningChannels = defineProgram({
  name: 'batchNormRunningChannels',
  uniforms: { count: 'u32', eps: 'f32' },
  bindings: { weight: 'read', bias: 'read', runningMean: 'read', runningVar: 'read', channels: 'write' },
  code: () =>
    perElement(`
    channels[i] = runningMean[i];
    channels[i + u.count] = 1.0 / sqrt(runningVar[i] + u.eps);
    channels[i + 2u * u.count] = weight[i];
    channels[i + 3u * u.count] = bias[i];`),
});

/** What the passes over x load of one group of channels. */
const loadChannels = `
    let group = i % u.groups;
    let first = i / u.groups * ${ROWS}u;
    let mean = channels[group];
    let inverse = channels[group + u.groups];
    let scale = inverse * channels[group + 2u * u.groups];`;

/** `body` for each of an invocation's rows, straight-line; `at` is the place in x. */
function perRow(body: string): string {
  return Array.from(
    { length: ROWS },
    (_, row) => `
    if (first + ${row}u < u.rows) {
      let at = (first + ${row}u) * u.groups + group;
      ${body}
    }`,
  ).join('');
}

export const normalize = defineProgram({
  name: 'batchNormNormalize',
  uniforms: { count: 'u32', groups: 'u32', rows: 'u32', residual: 'u32', relu: 'u32', ...limitUniforms },
  bindings: (flags: ChannelFlags) => ({
    x: ['read', floatsOf(flags)],
    limit: ['read', 'u32'],
    channels: ['read', floatsOf(flags)],
    residual: ['read', floatsOf(flags)],
    y: ['write', floatsOf(flags)],
  }),
  code: (flags) =>
    limitWgsl +
    perElement(`${loadChannels}
    let bias = channels[group + 3u * u.groups];
    let counted = countedRows();
    ${perRow(`
      var value = (x[at] - mean) * scale + bias;
      if (u.residual == 1u) { value += residual[at]; }
      if (u.relu == 1u) { value = max(value, ${floatsOf(flags)}()); }
      y[at] = select(${floatsOf(flags)}(), value, at / u.groups < counted);`)}`),
});

/** Where the upstream gradient passes: everywhere; where y > 0; or the same told from x, which saves reading y. */
export const MASK = { none: 0, y: 1, x: 2 } as const;

/** `let g = …`: the upstream gradient behind the ReLU. */
const maskedUpstream = (type: string): string => `
      let d = x[at] - mean;
      var g = dy[at];
      if (u.mask == ${MASK.x}u) { g = select(${type}(), g, d * scale + bias > ${type}()); }
      if (u.mask == ${MASK.y}u) { g = select(${type}(), g, y[at] > ${type}()); }`;

/** A share's Σ g and Σ g·x̂, and g itself where the residual's gradient is wanted. */
export const gradientShares = defineProgram({
  name: 'batchNormGradientShares',
  uniforms: {
    count: 'u32',
    groups: 'u32',
    rows: 'u32',
    rowsPerShare: 'u32',
    mask: 'u32',
    keepMasked: 'u32',
    ...limitUniforms,
  },
  bindings: (flags: ChannelFlags) => ({
    x: ['read', floatsOf(flags)],
    limit: ['read', 'u32'],
    y: ['read', floatsOf(flags)],
    dy: ['read', floatsOf(flags)],
    channels: ['read', floatsOf(flags)],
    sumsG: ['write', floatsOf(flags)],
    sumsGX: ['write', floatsOf(flags)],
    masked: ['write', floatsOf(flags)],
  }),
  code: (flags) =>
    limitWgsl +
    perElement(`
    let group = i % u.groups;
    let first = i / u.groups * u.rowsPerShare;
    let end = min(first + u.rowsPerShare, countedRows());
    let mean = channels[group];
    let inverse = channels[group + u.groups];
    let scale = inverse * channels[group + 2u * u.groups];
    let bias = channels[group + 3u * u.groups];
    var sumG = ${floatsOf(flags)}();
    var sumGX = ${floatsOf(flags)}();
    for (var row = first; row < end; row++) {
      let at = row * u.groups + group;
      ${maskedUpstream(floatsOf(flags))}
      if (u.keepMasked == 1u) { masked[at] = g; }
      sumG += g;
      sumGX += g * d;
    }
    sumsG[i] = sumG;
    sumsGX[i] = sumGX * inverse;`),
});

/** The last sums: Σ g and Σ g·x̂ of each channel in `sums` [2, C], and added to the gradients of bias and weight where these are there already. */
export const gradientChannels = defineProgram({
  name: 'batchNormGradientChannels',
  uniforms: { count: 'u32', shares: 'u32', addWeight: 'u32', addBias: 'u32' },
  bindings: { sumsG: 'read', sumsGX: 'read', sums: 'write', weight: 'write', bias: 'write' },
  code: () =>
    perElement(`
    var g = 0.0;
    var gx = 0.0;
    var at = i;
    for (var s = 0u; s < u.shares; s++) {
      g += sumsG[at];
      gx += sumsGX[at];
      at += u.count;
    }
    sums[i] = g;
    sums[i + u.count] = gx;
    if (u.addWeight == 1u) { weight[i] += gx; }
    if (u.addBias == 1u) { bias[i] += g; }`),
});

/** dx; `inverseRows` is 0 where the statistics are constants, and told by the limit where there is one. */
export const inputGradient = defineProgram({
  name: 'batchNormInputGradient',
  uniforms: {
    count: 'u32',
    groups: 'u32',
    rows: 'u32',
    mask: 'u32',
    inverseRows: 'f32',
    accumulate: 'u32',
    ...limitUniforms,
  },
  bindings: (flags: ChannelFlags) => ({
    x: ['read', floatsOf(flags)],
    limit: ['read', 'u32'],
    y: ['read', floatsOf(flags)],
    dy: ['read', floatsOf(flags)],
    channels: ['read', floatsOf(flags)],
    sums: ['read', floatsOf(flags)],
    dx: ['write', floatsOf(flags)],
  }),
  code: (flags) =>
    limitWgsl +
    perElement(`${loadChannels}
    let bias = channels[group + 3u * u.groups];
    let counted = countedRows();
    let inverseRows = select(1.0 / f32(max(limit[0] * u.perImage, 1u)), u.inverseRows, u.perImage == 0u);
    let meanG = sums[group] * inverseRows;
    let meanGX = sums[group + u.groups] * inverseRows * inverse;
    ${perRow(`
      ${maskedUpstream(floatsOf(flags))}
      var value = select(${floatsOf(flags)}(), scale * (g - meanG - d * meanGX), at / u.groups < counted);
      if (u.accumulate == 1u) { value += dx[at]; }
      dx[at] = value;`)}`),
});
