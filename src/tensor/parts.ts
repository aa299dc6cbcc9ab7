import { type Gpu, RANGE_ALIGNMENT } from '../gpu/gpu.ts';
import { GpuError } from '../gpu/gpuError.ts';
import { Storage, Tensor } from './tensor.ts';

/*
 * Buffers may be larger than what an adapter binds at once (128 MiB on the weakest). Operators then compute them in parts along their first
 * dimension: images, RoIs, rows. A part binds ranges of the buffers, which begin at multiples of 256 bytes; where no cut of the rows gives
 * that, a part works on an aligned copy.
 */

/** A range of a tensor as a tensor of its own. */
export interface Section {
  tensor: Tensor;
  /** Call it when the commands that use the section are encoded. */
  finish: () => void;
}

/**
 * The floats (or integers) first … first + size - 1 of a tensor, as a tensor of `shape`.
 * @param writes whether they are written to; what they held before is there too.
 */
export function section(whole: Tensor, first: number, shape: readonly number[], writes: boolean): Section {
  const { device } = whole;
  const { gpu } = device;
  const width = whole.bytes / Math.max(whole.size, 1);
  const offset = first * width;
  const bytes = shape.reduce((product, extent) => product * extent, 1) * width;
  if ((whole.buffer.offset + offset) % RANGE_ALIGNMENT === 0) {
    const storage = new Storage(gpu, { slice: gpu.pool.range(whole.buffer, offset, Math.ceil(bytes / 4) * 4) });
    return { tensor: new Tensor(device, storage, shape, whole.dtype), finish: () => {} };
  }
  const copy = new Tensor(device, new Storage(gpu, { bytes, tag: 'activations' }), shape, whole.dtype);
  gpu.copy(whole.buffer, copy.buffer, bytes, offset, 0);
  const finish = (): void => {
    if (writes) gpu.copy(copy.buffer, whole.buffer, bytes, 0, offset);
    copy.dispose();
  };
  return { tensor: copy, finish };
}

/** Whether any of these tensors passes what the adapter binds at once. */
export function passesLimit(gpu: Gpu, tensors: readonly (Tensor | undefined)[]): boolean {
  return tensors.some((tensor) => tensor !== undefined && tensor.bytes > gpu.bindingLimit);
}

/** How many of `units` a part may hold, so that each tensor's share of them is bound at once, beginning aligned where that is possible. */
function unitsPerPart(gpu: Gpu, bytesPerUnit: readonly number[], multiple: number, operator: string): number {
  const largest = Math.max(...bytesPerUnit);
  const most = Math.floor(gpu.bindingLimit / largest);
  if (most < 1) {
    throw new GpuError(
      'out-of-memory',
      `${operator} needs ${largest} bytes of a tensor at once, but this adapter binds at most ${gpu.bindingLimit}; use smaller images.`,
    );
  }
  const aligned = Math.max(
    ...bytesPerUnit.map((bytes) => RANGE_ALIGNMENT / commonPowerOfTwo(bytes, RANGE_ALIGNMENT)),
    multiple,
  );
  if (most >= aligned) return Math.floor(most / aligned) * aligned;
  return most >= multiple ? Math.floor(most / multiple) * multiple : most;
}

/** The largest power of two up to `limit` that divides a number of bytes. */
function commonPowerOfTwo(bytes: number, limit: number): number {
  let power = 1;
  while (power < limit && bytes % (power * 2) === 0) power *= 2;
  return power;
}

export interface PartsOptions {
  /** For errors. */
  operator: string;
  /** How many there are of what is never cut: images, RoIs, rows, shares of rows. */
  units: number;
  /** Elements of a unit where these are not the tensor's size / units (a last unit may then be shorter). */
  perUnit?: Readonly<Record<string, number>>;
  /** Names of the tensors that are written to. */
  writes: readonly string[];
  /** Parts hold a multiple of so many units, a power of two; 1 by default. */
  multiple?: number;
}

/** A run of units. */
export interface Run {
  first: number;
  count: number;
}

/**
 * Calls `body` with all units at once where the adapter binds every tensor whole; else, in order, with runs of units and the parts of the
 * tensors that belong to them: [count, …] of a tensor [units, …], else [count, elements of a unit]. Tensors that are
 * undefined stay so.
 * @throws GpuError when one unit alone is too large
 */
export function inParts<T extends Record<string, Tensor | undefined>>(
  tensors: T,
  { operator, units, perUnit = {}, writes, multiple = 1 }: PartsOptions,
  body: (parts: T, run: Run) => void,
): void {
  const given = Object.entries(tensors).filter((entry): entry is [string, Tensor] => entry[1] !== undefined);
  const gpu = given[0]?.[1].device.gpu;
  if (!gpu || units === 0 || !passesLimit(gpu, Object.values(tensors))) {
    body(tensors, { first: 0, count: units });
    return;
  }
  const elements = given.map(([name, tensor]) => perUnit[name] ?? tensor.size / units);
  const bytes = given.map(([, tensor], index) => (elements[index] * tensor.bytes) / Math.max(tensor.size, 1));
  const size = unitsPerPart(gpu, bytes, multiple, operator);
  for (let first = 0; first < units; first += size) {
    const count = Math.min(size, units - first);
    const sections = given.map(([name, tensor], index): [string, Section] => {
      const start = first * elements[index];
      const end = Math.min((first + count) * elements[index], tensor.size);
      const whole = end - start === count * elements[index];
      const rows = tensor.shape[0] === units && tensor.size === units * elements[index];
      const rest = rows ? tensor.shape.slice(1) : [elements[index]];
      const shape = whole ? [count, ...rest] : [end - start];
      return [name, section(tensor, start, shape, writes.includes(name))];
    });
    gpu.countPart();
    const parts = Object.fromEntries(sections.map(([name, { tensor }]) => [name, tensor]));
    body({ ...tensors, ...parts } as T, { first, count });
    for (const [, { finish }] of sections) finish();
  }
}
