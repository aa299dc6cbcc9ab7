import { workgroupsFor } from '../gpu/program.ts';
import { inParts } from '../tensor/parts.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { batchChannels, FAN_IN, mergeStatistics, runningChannels, shareStatistics } from './batchNormPrograms.ts';
import { channelGroups } from './channels.ts';

/* Statistics of batchNorm.ts, where the mathematics stands. */

export type Inputs = {
  x: Tensor;
  weight: Tensor;
  bias: Tensor;
  residual?: Tensor;
  runningMean?: Tensor;
  runningVar?: Tensor;
  count?: Tensor;
};

export type Params = {
  training: boolean;
  momentum?: number;
  eps?: number;
  relu?: boolean;
  updateRunning?: boolean;
};

/** Rows of a share: enough that partial results are little traffic. */
const ROWS_PER_SHARE = 64;
/** Shares at most: of statistics so many that two merges suffice; of gradients what one lane adds. */
const MOST_SHARES = FAN_IN * FAN_IN;
export const MOST_GRADIENT_SHARES = 256;

export function sharesOf(rows: number, most = MOST_SHARES): { rowsPerShare: number; shares: number } {
  const rowsPerShare = Math.max(ROWS_PER_SHARE, Math.ceil(rows / most));
  return { rowsPerShare, shares: Math.ceil(rows / rowsPerShare) };
}

export function rowsAndChannels(shape: readonly number[]): { rows: number; channels: number } {
  return { rows: shape[0] * shape[1] * shape[2], channels: shape[3] };
}

/** What tells the kernels which rows count, of a part that begins at `firstRow`. */
export function limitOf(shape: readonly number[], count: Tensor | undefined, unread: Tensor, firstRow = 0) {
  return {
    // Something must be bound.
    buffers: { limit: count ?? unread },
    uniforms: { firstRow, perImage: count ? shape[1] * shape[2] : 0 },
  };
}

/** [4, C] of a batch's statistics; moves the running ones if told to. */
export function channelsOfBatch(
  inputs: Inputs,
  { momentum = 0.1, eps = 1e-5 }: Params,
  updateRunning: boolean,
): Tensor {
  const { x, weight, bias, runningMean, runningVar } = inputs;
  const { device } = x;
  const { rows, channels } = rowsAndChannels(x.shape);
  const { flags, groups } = channelGroups(channels);
  const limit = limitOf(x.shape, inputs.count, weight);
  let { rowsPerShare, shares } = sharesOf(rows);
  let means = device.empty([shares, channels]);
  let squares = device.empty([shares, channels]);
  const perUnit = { x: rowsPerShare * channels };
  const options = { operator: 'batch_norm2d', units: shares, perUnit, writes: ['means', 'squares'] };
  inParts({ x, means, squares }, options, (buffers, { first, count }) =>
    device.gpu.dispatch(shareStatistics, {
      flags,
      buffers: { ...buffers, ...limit.buffers },
      uniforms: {
        count: count * groups,
        groups,
        rows: rows - first * rowsPerShare,
        rowsPerShare,
        ...limit.uniforms,
        firstRow: first * rowsPerShare,
      },
      workgroups: workgroupsFor(count * groups),
    }),
  );
  while (shares > FAN_IN) {
    const fewer = Math.ceil(shares / FAN_IN);
    const mergedMeans = device.empty([fewer, channels]);
    const mergedSquares = device.empty([fewer, channels]);
    device.gpu.dispatch(mergeStatistics, {
      buffers: { means, squares, ...limit.buffers, mergedMeans, mergedSquares },
      uniforms: { count: fewer * channels, channels, rows, rowsPerShare, ...limit.uniforms },
      workgroups: workgroupsFor(fewer * channels),
    });
    means.dispose();
    squares.dispose();
    means = mergedMeans;
    squares = mergedSquares;
    shares = fewer;
    rowsPerShare *= FAN_IN;
  }
  const result = device.empty([4, channels]);
  // Where nothing runs along, something that nobody reads is bound.
  const [unusedMean, unusedVar] = updateRunning ? [] : [device.empty([1]), device.empty([1])];
  device.gpu.dispatch(batchChannels, {
    buffers: {
      means,
      squares,
      ...limit.buffers,
      weight,
      bias,
      channels: result,
      runningMean: unusedMean ?? (runningMean as Tensor),
      runningVar: unusedVar ?? (runningVar as Tensor),
    },
    uniforms: {
      count: channels,
      channels,
      rows,
      rowsPerShare,
      ...limit.uniforms,
      eps,
      momentum,
      updateRunning: updateRunning ? 1 : 0,
    },
    workgroups: workgroupsFor(channels),
  });
  for (const tensor of [means, squares, unusedMean, unusedVar]) tensor?.dispose();
  return result;
}

export function channelsOfRunning(operator: string, inputs: Inputs, eps: number): Tensor {
  const { x, weight, bias, runningMean, runningVar } = inputs;
  if (!runningMean || !runningVar) throw new Error(`${operator}: runningMean, runningVar: needed outside of training.`);
  const channels = x.device.empty([4, x.shape[3]]);
  x.device.gpu.dispatch(runningChannels, {
    buffers: { weight, bias, runningMean, runningVar, channels },
    uniforms: { count: x.shape[3], eps },
    workgroups: workgroupsFor(x.shape[3]),
  });
  return channels;
}
