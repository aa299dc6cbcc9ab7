import { GpuError } from './gpuError.ts';
import type { PooledBuffer, PooledTexture } from './pool.ts';
import { ELEMENT_BYTES, type Flags, type Program, workgroupsFor } from './program.ts';
import type { Compiled } from './programCache.ts';

/** Anything that stands for a pooled buffer: a `PooledBuffer` itself, or a tensor. One of dtype `f16` holds halves, see `halves.ts`. */
export type BufferSource = PooledBuffer | { readonly buffer: PooledBuffer; readonly dtype?: string };

/** What a binding takes: a texture where the program declares one, else a buffer. */
export type Bindable = BufferSource | PooledTexture;

export interface Dispatch<F extends Flags, B extends string, U extends string> {
  flags?: F;
  /** One for each binding. */
  buffers: Readonly<Record<B, Bindable>>;
  uniforms: Readonly<Record<U, number>>;
  /** Number of workgroups (folded into y beyond the limit), or the grid itself. Nothing is dispatched when it is empty. */
  workgroups: number | readonly [number, number, number];
  /** Multiplications and additions, for the profiler. */
  flops?: number;
}

/** Ranges of storage buffers begin at multiples of so many bytes; no device asks for more (`minStorageBufferOffsetAlignment`). */
export const RANGE_ALIGNMENT = 256;

function pooled(source: Bindable): PooledBuffer | PooledTexture {
  return 'buffer' in source ? source.buffer : source;
}

export function holdsHalves(source: Bindable): boolean {
  return 'texelBytes' in source ? source.texelBytes === 8 : 'dtype' in source && source.dtype === 'f16';
}

/** The grid of a number of workgroups, folded into y beyond the limit; a given grid as it is. @throws Error where that passes the limit */
export function gridOf(
  workgroups: number | readonly [number, number, number],
  limit: number,
  name: string,
): readonly [number, number, number] {
  if (typeof workgroups === 'number') {
    if (workgroups <= limit) return [workgroups, workgroups > 0 ? 1 : 0, 1];
    const y = Math.ceil(workgroups / limit);
    return [Math.ceil(workgroups / y), y, 1];
  }
  if (workgroups.some((count) => count > limit)) {
    throw new Error(`${name}: grid ${workgroups.join('×')} passes the limit of ${limit} workgroups per dimension.`);
  }
  return workgroups;
}

/** What a program's bindings were given, in their order. @throws Error that names a binding without its buffer or texture */
export function resourcesOf(
  name: string,
  { bindings }: Compiled,
  buffers: Readonly<Record<string, Bindable>>,
): (PooledBuffer | PooledTexture)[] {
  return bindings.map((binding) => {
    const source = buffers[binding.name];
    if (!source) throw new Error(`${name}: the binding ${binding.name} was given no buffer.`);
    const resource = pooled(source);
    const texture = binding.type === 'texture';
    if ('view' in resource !== texture)
      throw new Error(`${name}: the binding ${binding.name} takes a ${texture ? 'texture' : 'buffer'}.`);
    return resource;
  });
}

/**
 * An elementwise dispatch as dispatches over runs of elements, each of which binds at most `limit` bytes of every buffer; null where the
 * adapter binds all of them whole.
 *
 * @throws GpuError where a buffer beyond the limit is not read or written element by element
 */
export function partsOf<F extends Flags, B extends string, U extends string>(
  program: Program<F, B, U>,
  options: Dispatch<F, B, U>,
  { bindings }: Compiled,
  resources: readonly (PooledBuffer | PooledTexture)[],
  limit: number,
  rangeOf: (buffer: PooledBuffer, offset: number, bytes: number) => PooledBuffer,
): Dispatch<F, B, U>[] | null {
  const elementwise: readonly string[] = program.elementwise ?? [];
  const oversized = bindings.filter((_, index) => {
    const resource = resources[index];
    return 'contents' in resource && resource.bytes > limit;
  });
  if (oversized.length === 0) return null;
  const whole = oversized.find(({ name }) => !elementwise.includes(name));
  if (whole !== undefined) {
    const { bytes } = resources[bindings.indexOf(whole)] as PooledBuffer;
    throw new GpuError(
      'out-of-memory',
      `${program.name} needs all ${bytes} bytes of ${whole.name} at once, but this adapter binds at most ${limit}; use smaller images, batches or detections.`,
    );
  }
  const isHalf = (name: string): boolean => holdsHalves(options.buffers[name as B]);
  const split = bindings.flatMap(({ name, type }, index) =>
    type !== 'texture' && elementwise.includes(name)
      ? [{ name, buffer: resources[index] as PooledBuffer, width: ELEMENT_BYTES[type] / (isHalf(name) ? 2 : 1) }]
      : [],
  );
  const count = options.uniforms['count' as U];
  const widths = split.map(({ width }) => width);
  const aligned = RANGE_ALIGNMENT / Math.min(...widths);
  const run = Math.max(Math.floor(limit / Math.max(...widths) / aligned), 1) * aligned;
  return Array.from({ length: Math.ceil(count / run) }, (_, part) => {
    const first = part * run;
    const length = Math.min(run, count - first);
    const ranges = split.map(({ name, buffer, width }) => {
      const range = rangeOf(buffer, first * width, Math.min(length * width, buffer.size - first * width));
      return [name, isHalf(name) ? { buffer: range, dtype: 'f16' } : range];
    });
    return {
      ...options,
      buffers: { ...options.buffers, ...Object.fromEntries(ranges) },
      uniforms: { ...options.uniforms, count: length },
      workgroups: workgroupsFor(length),
    };
  });
}
