import { onnxModel } from './onnxModel.ts';
import { cannot, permute, type Tensor, toNchw, toNhwc, toOihw } from './serve.ts';
import type { Work } from './work.ts';

/** Work as ONNX Runtime sees it: a model, what it is fed, and how its output comes back into this program's layout. */
export interface OnnxWork {
  model: Uint8Array;
  feeds: Record<string, Tensor>;
  fromOutput(y: Tensor): Tensor;
}

/** @throws where the work is more than forward passes of one operator */
export async function onnxWork(work: Work, given: Record<string, Tensor>): Promise<OnnxWork> {
  if (work.op === 'matmul') {
    const size = [work.n, work.n];
    const model = await onnxModel({
      opType: 'MatMul',
      inputs: { a: { shape: size }, b: given.b },
      outputShape: size,
      attributes: {},
    });
    return { model, feeds: { a: given.a }, fromOutput: (y) => y };
  }
  if (work.op !== 'conv2d') return cannot(work);
  if (work.results.join() !== 'y') throw new Error('it has no gradients');
  const { kernel, stride, padding } = work.shape;
  const x = permute(given.x, toNchw);
  const [images, oh, ow, out] = given.upstream.shape;
  const model = await onnxModel({
    opType: 'Conv',
    inputs: { x: { shape: x.shape }, w: permute(given.weight, toOihw) },
    outputShape: [images, out, oh, ow],
    attributes: {
      kernel_shape: [kernel, kernel],
      strides: [stride, stride],
      pads: [padding, padding, padding, padding],
    },
  });
  return { model, feeds: { x }, fromOutput: (y) => permute(y, toNhwc) };
}
