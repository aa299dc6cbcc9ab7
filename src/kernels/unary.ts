import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { defineOperator } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';

/**
 * An elementwise operator y = f(x) whose derivative follows from its output, so that only y is kept for the gradient.
 *
 * @param value WGSL of f, a function of `x: f32`
 * @param gradient WGSL of dx, of `y: f32` (the output) and `dy: f32` (the upstream gradient)
 * @param range values on which the gradient check runs
 */
export function defineUnary(
  name: string,
  { value, gradient, range }: { value: string; gradient: string; range: readonly [number, number] },
): (x: Tensor) => Tensor {
  const forwardProgram = defineProgram({
    name,
    uniforms: { count: 'u32' },
    bindings: { input: 'read', output: 'write' },
    elementwise: ['input', 'output'],
    code: () => `fn value(x: f32) -> f32 { ${value} }\n${perElement('output[i] = value(input[i]);')}`,
  });
  const backwardProgram = defineProgram({
    name: `${name}Backward`,
    uniforms: { count: 'u32', accumulate: 'u32' },
    bindings: { output: 'read', upstream: 'read', sum: 'write' },
    elementwise: ['output', 'upstream', 'sum'],
    code: () => `fn gradient(y: f32, dy: f32) -> f32 { return ${gradient}; }
${perElement('sum[i] = select(0.0, sum[i], u.accumulate == 1u) + gradient(output[i], upstream[i]);')}`,
  });
  const operator = defineOperator<{ x: Tensor }, Record<string, never>>({
    name,
    halves: ['x'],
    forward({ x }) {
      const output = x.device.empty(x.shape, x.dtype);
      x.device.gpu.dispatch(forwardProgram, {
        buffers: { input: x, output },
        uniforms: { count: x.size },
        workgroups: workgroupsFor(x.size),
      });
      return { output, saved: { output } };
    },
    backward: ({ saved: { output }, upstream }) => ({
      x: (into) => {
        const sum = into ?? output.device.empty(output.shape, output.dtype);
        output.device.gpu.dispatch(backwardProgram, {
          buffers: { output, upstream, sum },
          uniforms: { count: output.size, accumulate: into ? 1 : 0 },
          workgroups: workgroupsFor(output.size),
        });
        return sum;
      },
    }),
    examples: [{ inputs: { x: { shape: [3, 4, 5], range } }, params: {} }],
  });
  return (x) => operator({ x }, {});
}
