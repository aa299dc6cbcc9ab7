import type { Reference, RefTensor } from './index.ts';

/** Mean and biased variance of each channel of [N, H, W, C]: two passes over lists of the channel's values. */
export function channelStatistics({ shape, data }: RefTensor): { mean: number[]; variance: number[] } {
  const channels = shape[3];
  const lists = Array.from({ length: channels }, (_, c) => [...data].filter((_value, i) => i % channels === c));
  const average = (list: number[]): number => list.reduce((sum, value) => sum + value, 0) / list.length;
  const mean = lists.map(average);
  return { mean, variance: lists.map((list, c) => average(list.map((value) => (value - mean[c]) ** 2))) };
}

export const batchNorm: Reference = ({ count, ...inputs }, params) => {
  if (count) return ofFirst(count.data[0], inputs, params);
  const { x, weight, bias, residual } = inputs;
  const { training = false, eps = 1e-5, relu = false } = params as { training?: boolean; eps?: number; relu?: boolean };
  const { mean, variance } = training
    ? channelStatistics(x)
    : { mean: inputs.runningMean.data, variance: inputs.runningVar.data };
  const data = x.data.map((value, i) => {
    const c = i % x.shape[3];
    const y =
      ((value - mean[c]) / Math.sqrt(variance[c] + eps)) * weight.data[c] + bias.data[c] + (residual?.data[i] ?? 0);
    return relu ? Math.max(y, 0) : y;
  });
  return { shape: x.shape, data };
};

/** The first images as a batch of their own, and zeros behind. */
const ofFirst = (images: number, inputs: Record<string, RefTensor>, params: Record<string, unknown>): RefTensor => {
  const { shape, data } = inputs.x;
  const first = data.slice(0, (images * data.length) / shape[0]);
  const alone = batchNorm({ ...inputs, x: { shape: [images, ...shape.slice(1)], data: first } }, params);
  const padded = new Float64Array(data.length);
  padded.set(alone.data);
  return { shape, data: padded };
};
