import { readFileSync } from 'node:fs';
import { onnxModel } from './onnxModel.ts';
import { onnxWork } from './onnxWork.ts';
import { type Engine, type Job, load, serve, type Tensor, versionsOf } from './serve.ts';

/** What is used of onnxruntime-node. */
interface OrtTensor {
  dims: readonly number[];
  type: string;
  data: Float32Array | Int32Array | BigInt64Array | Uint8Array;
}
interface Session {
  inputNames: readonly string[];
  run(feeds: Record<string, OrtTensor>): Promise<Record<string, OrtTensor>>;
  release(): Promise<void>;
}
interface Ort {
  Tensor: new (type: 'float32', data: Float32Array, dims: readonly number[]) => OrtTensor;
  InferenceSession: { create(model: Uint8Array | string, options: object): Promise<Session> };
  listSupportedBackends(): { name: string }[];
}

/** Indices of 64 bits come back as this program's 32. */
function narrow({ dims, data }: OrtTensor): Tensor {
  const values = data instanceof BigInt64Array ? Int32Array.from(data, Number) : data;
  return { shape: [...dims], values: values as Tensor['values'] };
}

/** It tells nobody which adapter it took; on Linux the Vulkan drivers that its process has loaded do. */
function loadedDrivers(): string {
  if (process.platform !== 'linux') return '';
  const maps = readFileSync('/proc/self/maps', 'utf8');
  const drivers = maps.match(/lib(vulkan_\w+|vk_swiftshader|GLX_nvidia|nvidia-vulkan\w*)\.so/g) ?? [];
  return [...new Set(drivers)].join(', ');
}

async function open(): Promise<Engine> {
  const ort = await load<Ort>('onnxruntime-node');
  if (!ort.listSupportedBackends().some(({ name }) => name === 'webgpu')) {
    throw new Error('this build of it has no WebGPU provider');
  }
  const put = ({ values, shape }: Tensor) => new ort.Tensor('float32', values as Float32Array, shape);
  // Its own Dawn takes what Vulkan shows: the bench shows it one driver.
  const options = { executionProviders: ['webgpu'], logSeverityLevel: 3 };
  const size = [1, 1];
  const probe = await onnxModel({
    opType: 'MatMul',
    inputs: { a: { shape: size }, b: { shape: size, values: Float32Array.of(2) } },
    outputShape: size,
    attributes: {},
  });
  const session = await ort.InferenceSession.create(probe, options);
  await session.run({ a: put({ shape: size, values: Float32Array.of(3) }) });
  await session.release();
  return {
    adapter: loadedDrivers(),
    versions: versionsOf('onnxruntime-node'),
    async prepare(work, given): Promise<Job> {
      const whole = work.op === 'onnx';
      const plan = whole ? { model: work.file, feeds: {} } : await onnxWork(work, given);
      const session = await ort.InferenceSession.create(plan.model, options);
      const fed = whole ? { [session.inputNames[0]]: given.x } : (plan.feeds as Record<string, Tensor>);
      const feeds = Object.fromEntries(Object.entries(fed).map(([name, tensor]) => [name, put(tensor)]));
      return {
        run: async () => void (await session.run(feeds)),
        async results() {
          const found = Object.entries(await session.run(feeds)).map(
            ([name, tensor]) => [name, narrow(tensor)] as const,
          );
          if (!('fromOutput' in plan)) return Object.fromEntries(found);
          return { y: plan.fromOutput(Object.fromEntries(found).y) };
        },
        release: () => session.release(),
      };
    },
  };
}

await serve(open);
