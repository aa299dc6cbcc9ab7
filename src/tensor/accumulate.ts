import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import type { Tensor } from './tensor.ts';

// `target` is a reserved word of WGSL.
const program = defineProgram({
  name: 'accumulate',
  uniforms: { count: 'u32' },
  bindings: { source: 'read', sink: 'write' },
  elementwise: ['source', 'sink'],
  code: () => perElement('sink[i] += source[i];'),
});

/** target += source, both of one size; the engine's own sum of gradients that meet. */
export function accumulate(target: Tensor, source: Tensor): void {
  target.device.gpu.dispatch(program, {
    buffers: { source, sink: target },
    uniforms: { count: target.size },
    workgroups: workgroupsFor(target.size),
  });
}
