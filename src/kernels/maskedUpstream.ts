import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import type { Tensor } from '../tensor/tensor.ts';

/*
 * The gradient behind a fused ReLU: g = dy · [y > 0]. Computed once, then shared by all gradients of an operator.
 */
const program = defineProgram({
  name: 'maskedUpstream',
  uniforms: { count: 'u32' },
  bindings: { y: 'read', dy: 'read', g: 'write' },
  code: () => perElement('g[i] = select(0.0, dy[i], y[i] > 0.0);'),
});

/** dy where the output `y` of a fused ReLU is positive, else 0; a new tensor of the current scope. */
export function maskedUpstream(y: Tensor, dy: Tensor): Tensor {
  const g = dy.device.empty(dy.shape, dy.dtype);
  dy.device.gpu.dispatch(program, {
    buffers: { y, dy, g },
    uniforms: { count: dy.size },
    workgroups: workgroupsFor(dy.size),
  });
  return g;
}
