import { openDawn, patiently } from './dawn.ts';
import { onnxWork } from './onnxWork.ts';
import { type Engine, type Job, load, serve, type Tensor, versionsOf } from './serve.ts';

/** What is used of onnxruntime-web. */
interface OrtTensor {
  dims: readonly number[];
  getData(release?: boolean): Promise<Float32Array>;
  dispose(): void;
}
interface Ort {
  env: { webgpu: { device?: GPUDevice | Promise<GPUDevice> }; wasm: { numThreads: number } };
  Tensor: { new (type: 'float32', data: Float32Array, dims: readonly number[]): OrtTensor };
  InferenceSession: {
    create(
      model: Uint8Array,
      options: object,
    ): Promise<{ run(feeds: Record<string, OrtTensor>): Promise<Record<string, OrtTensor>>; release(): Promise<void> }>;
  };
}

/** Dawn for Node refuses views of the SharedArrayBuffer that WebAssembly with threads computes in. */
function copySharedViews(): void {
  const { writeBuffer } = GPUQueue.prototype;
  GPUQueue.prototype.writeBuffer = function (buffer, at, data, from, size) {
    const view = ArrayBuffer.isView(data) ? data : new Uint8Array(data);
    const unit = 'BYTES_PER_ELEMENT' in view ? (view.BYTES_PER_ELEMENT as number) : 1;
    const start = view.byteOffset + (from ?? 0) * unit;
    const length = size === undefined ? view.byteLength - (from ?? 0) * unit : size * unit;
    return writeBuffer.call(this, buffer, at, new Uint8Array(view.buffer, start, length).slice());
  };
}

async function open(): Promise<Engine> {
  const adapter = await openDawn();
  copySharedViews();
  const ort = await load<Ort>('onnxruntime-web/webgpu');
  ort.env.wasm.numThreads = 1;
  const options = { executionProviders: ['webgpu'], preferredOutputLocation: 'gpu-buffer' };
  return {
    adapter,
    versions: versionsOf('onnxruntime-web'),
    async prepare(work, given): Promise<Job> {
      const { model, feeds: fed, fromOutput } = await onnxWork(work, given);
      const session = await ort.InferenceSession.create(model, options);
      const device = await ort.env.webgpu.device;
      const feeds = Object.fromEntries(
        Object.entries(fed).map(([name, { values, shape }]) => [
          name,
          new ort.Tensor('float32', values as Float32Array, shape),
        ]),
      );
      return {
        async run() {
          const { y } = await patiently(session.run(feeds));
          if (device) await patiently(device.queue.onSubmittedWorkDone());
          y.dispose();
        },
        async results() {
          const { y } = await patiently(session.run(feeds));
          const values = await patiently(y.getData(true));
          return { y: fromOutput({ shape: [...y.dims], values } as Tensor) };
        },
        release: () => session.release(),
      };
    },
  };
}

await serve(open);
