import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { defineOperator } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';

/*
 * y = max(x, 0). The gradient passes where y > 0: dx = dy · [y > 0], so only the output is kept (torch does the same).
 */
const forwardProgram = defineProgram({
  name: 'relu',
  uniforms: { count: 'u32' },
  bindings: { x: 'read', y: 'write' },
  code: () => perElement('y[i] = max(x[i], 0.0);'),
});

const backwardProgram = defineProgram({
  name: 'reluBackward',
  uniforms: { count: 'u32', accumulate: 'u32' },
  bindings: { y: 'read', dy: 'read', dx: 'write' },
  code: () => perElement('dx[i] = select(0.0, dx[i], u.accumulate == 1u) + select(0.0, dy[i], y[i] > 0.0);'),
});

const operator = defineOperator<{ x: Tensor }, Record<string, never>>({
  name: 'relu',
  forward({ x }) {
    const y = x.device.empty(x.shape);
    x.device.gpu.dispatch(forwardProgram, {
      buffers: { x, y },
      uniforms: { count: x.size },
      workgroups: workgroupsFor(x.size),
    });
    return { output: y, saved: { y } };
  },
  backward: ({ saved: { y }, upstream }) => ({
    x: (into) => {
      const dx = into ?? y.device.empty(y.shape);
      y.device.gpu.dispatch(backwardProgram, {
        buffers: { y, dy: upstream, dx },
        uniforms: { count: y.size, accumulate: into ? 1 : 0 },
        workgroups: workgroupsFor(y.size),
      });
      return dx;
    },
  }),
  examples: [{ inputs: { x: { shape: [3, 4, 5] } }, params: {} }],
});

/** max(x, 0), elementwise; any shape. Source: torch.nn.functional.relu. */
export function relu(x: Tensor): Tensor {
  return operator({ x }, {});
}
