import type { Reference, RefTensor } from './index.ts';

const scalar = (value: number): RefTensor => ({ shape: [], data: Float64Array.of(value) });

/** Negative mean logarithm of the softmax probability of each row's label; rows of the label -100 do not count. */
export const crossEntropy: Reference = ({ logits, labels }) => {
  const [, classes] = logits.shape;
  let total = 0;
  let counted = 0;
  labels.data.forEach((label, row) => {
    if (label === -100) return;
    const values = Array.from(logits.data.subarray(row * classes, (row + 1) * classes), Math.exp);
    total -= Math.log(values[label] / values.reduce((a, b) => a + b, 0));
    counted++;
  });
  return scalar(counted === 0 ? 0 : total / counted);
};

/** -(t log p + (1 - t) log(1 - p)) with p = 1 / (1 + e^-x), from the definition; elements with a target below 0 do not count. */
export const binaryCrossEntropyWithLogits: Reference = ({ logits, targets }) => {
  let total = 0;
  let counted = 0;
  logits.data.forEach((x, i) => {
    const t = targets.data[i];
    if (t < 0) return;
    total += t * Math.log(1 + Math.exp(-x)) + (1 - t) * Math.log(1 + Math.exp(x));
    counted++;
  });
  return scalar(counted === 0 ? 0 : total / counted);
};

export const smoothL1Loss: Reference = ({ input, target }, params) => {
  const beta = params.beta as number;
  let total = 0;
  for (let i = 0; i < input.data.length; i++) {
    const distance = Math.abs(input.data[i] - target.data[i]);
    total += distance < beta ? distance ** 2 / (2 * beta) : distance - beta / 2;
  }
  return scalar(params.reduction === 'sum' || input.data.length === 0 ? total : total / input.data.length);
};
