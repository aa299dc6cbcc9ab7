import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { defineOperator } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';

/*
 * y = 1 / (1 + e^-x), written with e^-|x| so that nothing overflows: for x < 0 it is e^x / (1 + e^x). dx = dy · y · (1 - y).
 */
const forwardProgram = defineProgram({
  name: 'sigmoid',
  uniforms: { count: 'u32' },
  bindings: { x: 'read', y: 'write' },
  code: () =>
    perElement(`
    let value = x[i];
    let small = exp(-abs(value));
    y[i] = select(1.0, small, value < 0.0) / (1.0 + small);`),
});

const backwardProgram = defineProgram({
  name: 'sigmoidBackward',
  uniforms: { count: 'u32', accumulate: 'u32' },
  bindings: { y: 'read', dy: 'read', dx: 'write' },
  code: () => perElement('dx[i] = select(0.0, dx[i], u.accumulate == 1u) + dy[i] * y[i] * (1.0 - y[i]);'),
});

const operator = defineOperator<{ x: Tensor }, Record<string, never>>({
  name: 'sigmoid',
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
  examples: [{ inputs: { x: { shape: [3, 4, 5], range: [-4, 4] } }, params: {} }],
});

/** 1 / (1 + e^-x), elementwise; any shape. Source: torch.sigmoid. */
export function sigmoid(x: Tensor): Tensor {
  return operator({ x }, {});
}
