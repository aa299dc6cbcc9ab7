import type { Reference, RefTensor } from './index.ts';

const scalar = (value: number): RefTensor => ({ shape: [], data: Float64Array.of(value) });

/** Negative mean logarithm of the softmax probability of each row's label. */
export const crossEntropy: Reference = ({ logits, labels }) => {
  const [rows, classes] = logits.shape;
  let total = 0;
  for (let row = 0; row < rows; row++) {
    const values = Array.from(logits.data.subarray(row * classes, (row + 1) * classes), Math.exp);
    total -= Math.log(values[labels.data[row]] / values.reduce((a, b) => a + b, 0));
  }
  return scalar(rows === 0 ? 0 : total / rows);
};

/** -(t log p + (1 - t) log(1 - p)) with p = 1 / (1 + e^-x), from the definition. */
export const binaryCrossEntropyWithLogits: Reference = ({ logits, targets }) => {
  let total = 0;
  logits.data.forEach((x, i) => {
    const t = targets.data[i];
    total += t * Math.log(1 + Math.exp(-x)) + (1 - t) * Math.log(1 + Math.exp(x));
  });
  return scalar(logits.data.length === 0 ? 0 : total / logits.data.length);
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
