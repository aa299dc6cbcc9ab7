import { UserError } from '../cli/errors.ts';
import { GpuError } from '../gpu/gpu.ts';
import { permuted } from '../model/layouts.ts';
import type { Device } from '../tensor/device.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { OperatorCase, OpsGolden } from './golden.ts';
import { OperatorArguments } from './operatorArguments.ts';
import { type AxisOrder, type OperatorRunner, operatorRunners } from './operators.ts';
import { type Comparison, compareTensors, failedRow, type HostTensor, type Row } from './rows.ts';

/** Told after each finished part of a case. */
export type Progress = (done: number, total: number, what: string) => void;

/** torch's layout → the device's. Nothing to do without an order, for integers, and where the rank does not fit (then the operator says so). */
export function toDevice(tensor: HostTensor, order?: AxisOrder): HostTensor {
  if (!order || order.length !== tensor.shape.length || !(tensor.data instanceof Float32Array)) return tensor;
  return { shape: order.map((axis) => tensor.shape[axis]), data: permuted(tensor.data, tensor.shape, order) };
}

/** The device's layout → torch's. */
export function toTorch(tensor: HostTensor, order?: AxisOrder): HostTensor {
  return toDevice(
    tensor,
    order?.map((_, axis) => order.indexOf(axis)),
  );
}

/** The values of a tensor on the device. Unsigned integers count as int32. */
export async function readHost(tensor: Tensor): Promise<HostTensor> {
  return { shape: tensor.shape, data: tensor.dtype === 'f32' ? await tensor.floats() : await tensor.ints() };
}

function runnerOf({ index, op }: OperatorCase): OperatorRunner {
  if (!Object.hasOwn(operatorRunners, op))
    throw new UserError(
      `Golden case ${index} names the unknown operator '${op}': expected one of ${Object.keys(operatorRunners).join(', ')}.`,
    );
  return operatorRunners[op];
}

/** What the case needs, by name in the file. */
function tensorNames({ index, inputs, grads }: OperatorCase): string[] {
  return [
    ...inputs.map((name) => `${index}.in.${name}`),
    `${index}.out`,
    ...(grads.length > 0 ? [`${index}.up`] : []),
    ...grads.map((name) => `${index}.grad.${name}`),
  ];
}

/** One operator case inside a scope of its own: its output, then the gradients of the inputs it lists. */
async function runCase(device: Device, given: OperatorCase, golden: OpsGolden): Promise<Row[]> {
  const runner = runnerOf(given);
  const { index, op } = given;
  const compared = (what: string): Comparison => ({
    name: `${index}.${what} (${op})`,
    stage: op,
    tolerance: runner.tolerance,
  });
  const host = new Map(given.inputs.map((name) => [name, golden.tensors.get(`${index}.in.${name}`)]));
  const inputs = new Map<string, Tensor>();
  const rows: Row[] = [];
  await device.scope(async () => {
    for (const [name, torch] of host) {
      const { shape, data } = toDevice(torch, runner.layouts?.[name]);
      const values = runner.floats?.includes(name) ? Float32Array.from(data) : data;
      const tensor = device.tensor(values, shape, values instanceof Int32Array ? 'i32' : 'f32');
      tensor.requiresGrad = given.grads.includes(name);
      inputs.set(name, tensor);
    }
    try {
      const output = await runner.run(new OperatorArguments(device, given, inputs, host));
      const actual = output instanceof Tensor ? await readHost(output) : output;
      const result = toTorch(actual, runner.output);
      const row = compareTensors(result, golden.tensors.get(`${index}.out`), compared('out'));
      rows.push(row);
      if (given.grads.length === 0 || !(output instanceof Tensor)) return;
      const upstream = toDevice(golden.tensors.get(`${index}.up`), runner.output);
      device.backward(output, device.tensor(upstream.data, upstream.shape));
      for (const name of given.grads) {
        const gradient = inputs.get(name)?.grad;
        const expected = golden.tensors.get(`${index}.grad.${name}`);
        rows.push(
          gradient
            ? compareTensors(
                toTorch(await readHost(gradient), runner.layouts?.[name]),
                expected,
                compared(`grad.${name}`),
              )
            : failedRow(compared(`grad.${name}`), 'no gradient was computed'),
        );
      }
    } finally {
      for (const tensor of inputs.values()) tensor.grad?.dispose();
    }
  });
  return rows;
}

/**
 * Runs every operator case. An operator that refuses what the case gives it is a row that fails with its words.
 * @throws UserError before anything runs, when an operator is unknown or a tensor is missing.
 */
export async function verifyOps(device: Device, golden: OpsGolden, progress?: Progress): Promise<Row[]> {
  for (const given of golden.cases) {
    runnerOf(given);
    for (const name of given.grads)
      if (!given.inputs.includes(name))
        throw new UserError(`Golden case ${given.index} (${given.op}) has a gradient of '${name}', which is no input.`);
    golden.tensors.require(tensorNames(given));
  }
  const rows: Row[] = [];
  for (const [done, given] of golden.cases.entries()) {
    try {
      rows.push(...(await runCase(device, given, golden)));
    } catch (error) {
      if (error instanceof UserError || error instanceof GpuError) throw error;
      const { tolerance } = runnerOf(given);
      const comparison = { name: `${given.index}.out (${given.op})`, stage: given.op, tolerance };
      rows.push(failedRow(comparison, error instanceof Error ? error.message : String(error)));
    }
    progress?.(done + 1, golden.cases.length, given.op);
  }
  return rows;
}
