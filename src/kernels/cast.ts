import type { BufferSource } from '../gpu/gpu.ts';
import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { defineOperator, expectShape } from '../tensor/operator.ts';
import type { DType, Tensor } from '../tensor/tensor.ts';

/* y = x in another float type, and so dx = dy in x's. The conversions themselves are those of bindings, see `gpu/halves.ts`. */
const program = defineProgram({
  name: 'cast',
  uniforms: { count: 'u32', accumulate: 'u32' },
  bindings: { x: 'read', y: 'write' },
  code: () =>
    perElement(`
    var value = x[i];
    if (u.accumulate == 1u) { value += y[i]; }
    y[i] = value;`),
});

/** Writes the elements of x to y, or adds them, in the float type of y. */
export function copyElements(x: Tensor, y: BufferSource, accumulate = false): void {
  x.device.gpu.dispatch(program, {
    buffers: { x, y },
    uniforms: { count: x.size, accumulate: accumulate ? 1 : 0 },
    workgroups: workgroupsFor(x.size),
  });
}

type Floats = Extract<DType, 'f32' | 'f16'>;

const operator = defineOperator<{ x: Tensor }, { dtype: Floats }>({
  name: 'cast',
  halves: ['x'],
  forward({ x }, { dtype }) {
    expectShape(x.dtype === 'f32' || x.dtype === 'f16', 'cast', 'x', 'floats', x);
    const y = x.device.empty(x.shape, dtype);
    copyElements(x, y);
    return { output: y };
  },
  backward: ({ dtypes, shapes, upstream }) => ({
    x: (into) => {
      const dx = into ?? upstream.device.empty(shapes.x, dtypes.x);
      copyElements(upstream, dx, into !== undefined);
      return dx;
    },
  }),
  examples: [{ inputs: { x: { shape: [3, 5, 7] } }, params: { dtype: 'f32' } }],
});

/**
 * The same values as `f32` or `f16`, rounded to the nearest; x itself where it has that type already. The gradient has x's type.
 * Source: torch.Tensor.to(dtype).
 */
export function cast(x: Tensor, dtype: Floats): Tensor {
  return x.dtype === dtype ? x : operator({ x }, { dtype });
}
