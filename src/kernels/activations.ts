import { defineUnary } from './unary.ts';

/** max(x, 0), elementwise; any shape. The gradient passes where the output is above 0. Source: torch.nn.functional.relu. */
export const relu = defineUnary('relu', {
  value: 'return max(x, 0.0);',
  gradient: 'select(0.0, dy, y > 0.0)',
  range: [-1, 1],
});

/**
 * 1 / (1 + e^-x), elementwise; any shape. Written with e^-|x|, so that nothing overflows: for x < 0 it is e^x / (1 + e^x).
 * dx = dy · y · (1 - y). Source: torch.sigmoid.
 */
export const sigmoid = defineUnary('sigmoid', {
  value: 'let small = exp(-abs(x)); return select(1.0, small, x < 0.0) / (1.0 + small);',
  gradient: 'dy * y * (1.0 - y)',
  range: [-4, 4],
});
