import { openDawn, patiently } from './dawn.ts';
import { cannot, type Engine, type Job, load, serve, type Tensor, versionsOf } from './serve.ts';
import type { ConvShape, Work } from './work.ts';

/** What is used of TensorFlow.js. */
interface TfTensor {
  shape: number[];
  data(): Promise<Float32Array | Int32Array>;
  dispose(): void;
}
interface Backend {
  /** Null where nothing waits to be submitted. */
  commandEncoder: GPUCommandEncoder | null;
  endComputePassEncoder(): void;
  submitQueue(): void;
  queue: GPUQueue;
}
interface Tf {
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
  getBackend(): string;
  backend(): Backend;
  engine(): { runKernel(name: string, inputs: Record<string, TfTensor>, attributes: object): TfTensor };
  tensor(values: Float32Array | Int32Array, shape: number[], dtype?: string): TfTensor;
  matMul(a: TfTensor, b: TfTensor): TfTensor;
  conv2d(
    x: TfTensor,
    filter: TfTensor,
    stride: number,
    pad: number | 'same',
    format: 'NHWC',
    dilation: number,
    rounding?: string,
  ): TfTensor;
  valueAndGrads(
    f: (...x: TfTensor[]) => TfTensor,
  ): (x: TfTensor[], dy: TfTensor) => { value: TfTensor; grads: TfTensor[] };
  customGrad(f: (...x: unknown[]) => { value: TfTensor; gradFunc: unknown }): (...x: TfTensor[]) => TfTensor;
  image: {
    nonMaxSuppressionAsync(boxes: TfTensor, scores: TfTensor, most: number, iou: number): Promise<TfTensor>;
    cropAndResize(x: TfTensor, boxes: TfTensor, owner: TfTensor, size: [number, number], method: 'bilinear'): TfTensor;
  };
}

/** Results by name, computed anew at each call. */
type Compute = () => Record<string, TfTensor> | Promise<Record<string, TfTensor>>;

async function open(): Promise<Engine> {
  const adapter = await openDawn();
  // Without the whole package there are no gradients.
  const tf = await load<Tf>('@tensorflow/tfjs');
  await load('@tensorflow/tfjs-backend-webgpu');
  await tf.setBackend('webgpu');
  await tf.ready();
  if (tf.getBackend() !== 'webgpu') throw new Error(`it computes by ${tf.getBackend()}, not by webgpu`);

  const wait = async (): Promise<void> => {
    const backend = tf.backend();
    if (!backend.commandEncoder) return patiently(backend.queue.onSubmittedWorkDone()).then(() => undefined);
    // Without the first call passes are invalid and times are fake.
    backend.endComputePassEncoder();
    backend.submitQueue();
    await patiently(backend.queue.onSubmittedWorkDone());
  };

  function convolution(shape: ConvShape, results: readonly string[], inputs: Record<string, TfTensor>): Compute {
    const { x, weight, upstream } = inputs;
    const forward = (a: TfTensor, b: TfTensor) => tf.conv2d(a, b, shape.stride, shape.padding, 'NHWC', 1, 'floor');
    const edges = [shape.padding, shape.padding];
    const pad = [[0, 0], edges, edges, [0, 0]];
    const attributes = { strides: [shape.stride, shape.stride], pad, dataFormat: 'NHWC', dimRoundingMode: 'floor' };
    const kernel = (name: string, operands: Record<string, TfTensor>, more: object): TfTensor =>
      tf.engine().runKernel(name, operands, { ...attributes, pad: shape.padding, ...more });
    if (results.length === 3) {
      const both = tf.valueAndGrads(forward);
      return () => {
        const { value, grads } = both([x, weight], upstream);
        return { y: value, dx: grads[0], dw: grads[1] };
      };
    }
    // One gradient alone is the kernel that valueAndGrads would call: the library cannot leave the forward pass out.
    const one: Record<string, () => TfTensor> = {
      y: () => forward(x, weight),
      dx: () => kernel('Conv2DBackpropInput', { dy: upstream, filter: weight }, { inputShape: x.shape }),
      dw: () => kernel('Conv2DBackpropFilter', { x, dy: upstream }, { filterShape: weight.shape }),
    };
    return () => Object.fromEntries(results.map((name) => [name, one[name]()]));
  }

  function computeOf(work: Work, inputs: Record<string, TfTensor>, given: Record<string, Tensor>): Compute {
    if (work.op === 'matmul') return () => ({ y: tf.matMul(inputs.a, inputs.b) });
    if (work.op === 'conv2d') return convolution(work.shape, work.results, inputs);
    if (work.op === 'nms') {
      const corners = Float32Array.from(given.boxes.values, (_, i) => given.boxes.values[i ^ 1]);
      const boxes = tf.tensor(corners, given.boxes.shape);
      return async () => ({
        kept: await tf.image.nonMaxSuppressionAsync(boxes, inputs.scores, work.count, work.threshold),
      });
    }
    if (work.op === 'roiAlign' && work.results.includes('y') && work.results.length === 1) {
      const { count, bins, height, width, spatialScale } = work.setting;
      // Its boxes are ymin, xmin, ymax, xmax in shares of the last row and column.
      const places = Float32Array.from({ length: count * 4 }, (_, i) => {
        const corner = given.rois.values[(i >> 2) * 5 + 1 + ((i & 3) ^ 1)] * spatialScale;
        return corner / ((i & 1) === 0 ? height - 1 : width - 1);
      });
      const boxes = tf.tensor(places, [count, 4]);
      const owner = tf.tensor(new Int32Array(count), [count], 'int32');
      return () => ({ y: tf.image.cropAndResize(inputs.x, boxes, owner, [bins, bins], 'bilinear') });
    }
    return cannot(work);
  }

  return {
    adapter,
    versions: versionsOf('@tensorflow/tfjs', '@tensorflow/tfjs-backend-webgpu'),
    async prepare(work, given): Promise<Job> {
      const inputs = Object.fromEntries(
        Object.entries(given).map(([name, { values, shape }]) => [name, tf.tensor(values, shape)]),
      );
      const compute = computeOf(work, inputs, given);
      return {
        async run() {
          const results = await compute();
          await wait();
          for (const tensor of Object.values(results)) tensor.dispose();
        },
        async results() {
          const found: Record<string, Tensor> = {};
          for (const [name, tensor] of Object.entries(await compute())) {
            found[name] = { shape: tensor.shape, values: await patiently(tensor.data()) };
            tensor.dispose();
          }
          return found;
        },
        release() {
          for (const tensor of Object.values(inputs)) tensor.dispose();
        },
      };
    },
  };
}

await serve(open);
