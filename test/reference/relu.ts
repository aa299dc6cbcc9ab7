import type { Reference } from './index.ts';

export const relu: Reference = ({ x }) => ({ shape: x.shape, data: x.data.map((value) => (value > 0 ? value : 0)) });
