import { existsSync, readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Device } from '../../src/tensor/device.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { expectClose } from './compare.ts';

const folder = resolve(dirname(fileURLToPath(import.meta.url)), '../../../shared/goldens');

/** False where the golden cases do not lie beside the checkout; tests that need them are skipped then. */
export const haveGoldens = existsSync(resolve(folder, 'ops/case.json'));

/** A golden tensor in torch's layout. Torch's scalars are stored with the shape [1]. */
export interface GoldenTensor {
  shape: number[];
  data: Float32Array | Int32Array | Uint8Array;
}

export interface OpsCase {
  index: number;
  op: string;
  params: Record<string, unknown>;
  inputs: Record<string, GoldenTensor>;
  output: GoldenTensor;
  /** Given where `grads` has members. */
  upstream: GoldenTensor | null;
  grads: Record<string, GoldenTensor>;
}

/** Every tensor of a safetensors file: an 8-byte little-endian header length, a JSON header, the data. */
export function readGoldenTensors(path: string): Map<string, GoldenTensor> {
  const file = readFileSync(resolve(folder, path));
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, start)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, GoldenTensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const bytes = new Uint8Array(file.subarray(start + entry.data_offsets[0], start + entry.data_offsets[1])).buffer;
    const data =
      entry.dtype === 'F32'
        ? new Float32Array(bytes)
        : entry.dtype === 'I32'
          ? new Int32Array(bytes)
          : new Uint8Array(bytes);
    tensors.set(name, { shape: entry.shape, data });
  }
  return tensors;
}

/** The golden cases of operators named `ops`; none where there are no goldens. */
export function opsCases(...ops: string[]): OpsCase[] {
  if (!haveGoldens) return [];
  const { cases } = JSON.parse(readFileSync(resolve(folder, 'ops/case.json'), 'utf8')) as {
    cases: { index: number; op: string; params: Record<string, unknown>; inputs: string[]; grads: string[] }[];
  };
  const tensors = readGoldenTensors('ops/tensors.safetensors');
  const get = (name: string): GoldenTensor => {
    const tensor = tensors.get(name);
    if (!tensor) throw new Error(`The golden operator cases have no tensor ${name}.`);
    return tensor;
  };
  return cases
    .filter((entry) => ops.includes(entry.op))
    .map(({ index, op, params, inputs, grads }) => ({
      index,
      op,
      params,
      inputs: Object.fromEntries(inputs.map((name) => [name, get(`${index}.in.${name}`)])),
      output: get(`${index}.out`),
      upstream: grads.length > 0 ? get(`${index}.up`) : null,
      grads: Object.fromEntries(grads.map((name) => [name, get(`${index}.grad.${name}`)])),
    }));
}

/** The tensor with its dimensions in the order `dims`: [0, 2, 3, 1] takes NCHW to NHWC, [2, 3, 1, 0] OIHW to [kh, kw, ci, co]. */
export function permuted(tensor: GoldenTensor, dims: readonly number[]): GoldenTensor {
  const shape = dims.map((dim) => tensor.shape[dim]);
  const strides = tensor.shape.map((_, dim) => tensor.shape.slice(dim + 1).reduce((a, b) => a * b, 1));
  const data = tensor.data.slice();
  const index = shape.map(() => 0);
  for (let i = 0; i < data.length; i++) {
    data[i] = tensor.data[dims.reduce((sum, dim, at) => sum + index[at] * strides[dim], 0)];
    for (let at = shape.length - 1; at >= 0 && ++index[at] === shape[at]; at--) index[at] = 0;
  }
  return { shape, data };
}

/**
 * Runs a case whose layouts are the device's own: `apply` on its inputs, then the output and every gradient against the
 * expected values.
 */
export async function expectGolden(
  device: Device,
  golden: OpsCase,
  apply: (inputs: Record<string, Tensor>) => Tensor,
  tolerance = 1e-5,
): Promise<void> {
  const what = `case ${golden.index} ${golden.op}`;
  await device.scope(async () => {
    const inputs: Record<string, Tensor> = {};
    for (const [name, { shape, data }] of Object.entries(golden.inputs)) {
      inputs[name] = data instanceof Int32Array ? device.tensor(data, shape, 'i32') : device.tensor([...data], shape);
      inputs[name].requiresGrad = name in golden.grads;
    }
    const output = apply(inputs);
    expectClose(await output.data(), golden.output.data, tolerance, what);
    if (!golden.upstream) return;
    device.backward(output, device.tensor([...golden.upstream.data], output.shape));
    for (const [name, { data }] of Object.entries(golden.grads)) {
      const { grad } = inputs[name];
      if (!grad) throw new Error(`${what}: ${name} got no gradient.`);
      expectClose(await grad.floats(), data, tolerance, `${what}: gradient of ${name}`);
      grad.dispose();
    }
  });
}
