import type { Reference } from './index.ts';

export const sigmoid: Reference = ({ x }) => ({
  shape: x.shape,
  data: x.data.map((value) => 1 / (1 + Math.exp(-value))),
});
