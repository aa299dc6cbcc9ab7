import type { Condition } from './condition.ts';
import type { Gpu } from './gpu.ts';

/** What a dispatch is, as the profiler sees it. */
export interface DispatchInfo {
  /** The program with its flags. */
  kernel: string;
  /** The part of the model that it belongs to, see `Gpu.label`. */
  module: string;
  /** Bytes of all that it binds, by size class: an upper bound of what it moves at once. */
  bytes: number;
  /** Multiplications and additions, where the operator tells. */
  flops: number;
  /** Runs only where it holds: else its bytes and operations are 0. */
  condition: Condition | null;
}

/** One dispatch, timed on the device. */
export interface Span extends Omit<DispatchInfo, 'condition'> {
  /** Nanoseconds of the device's clock. */
  start: number;
  end: number;
}

/** Dispatches timed between two submits. Their two timestamps each take 256-byte aligned places when resolved. */
const SLOTS = 128;
const TIMES_BYTES = SLOTS * 2 * 8;
/** Behind the times, the counts that conditions depend on. */
const BYTES_PER_FLUSH = TIMES_BYTES + SLOTS * 4;
/** Flushes that one buffer keeps until they are collected. */
const FLUSHES_PER_BUFFER = 32;

/**
 * Times every dispatch by timestamp queries (WebGPU's `timestamp-query`). While it is attached, each dispatch has a compute pass of
 * its own, which costs some microseconds more; results are the same.
 */
export class Profiler {
  readonly #device: GPUDevice;
  readonly #queries: GPUQuerySet;
  readonly #buffers: GPUBuffer[] = [];
  /** Of the flush being encoded. */
  #open: DispatchInfo[] = [];
  #flushes: { buffer: GPUBuffer; offset: number; dispatches: DispatchInfo[] }[] = [];

  /** @throws Error on a device without the feature `timestamp-query` */
  constructor(device: GPUDevice) {
    if (!device.features.has('timestamp-query')) throw new Error('Profiler: the device has no timestamp-query.');
    this.#device = device;
    this.#queries = device.createQuerySet({ type: 'timestamp', count: SLOTS * 2 });
  }

  /** Where the flush being encoded puts its results. */
  #place(): { buffer: GPUBuffer; offset: number } {
    const index = this.#flushes.length;
    const at = Math.floor(index / FLUSHES_PER_BUFFER);
    this.#buffers[at] ??= this.#device.createBuffer({
      size: BYTES_PER_FLUSH * FLUSHES_PER_BUFFER,
      usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
      label: 'timestamps',
    });
    return { buffer: this.#buffers[at], offset: (index % FLUSHES_PER_BUFFER) * BYTES_PER_FLUSH };
  }

  /** The timestamps of the next dispatch's pass, which `encoder` has not begun yet. */
  begin(info: DispatchInfo, encoder: GPUCommandEncoder): GPUComputePassTimestampWrites {
    const slot = this.#open.push(info) - 1;
    if (slot >= SLOTS) throw new Error(`Profiler: more than ${SLOTS} dispatches before a submit.`);
    if (info.condition) {
      const { gpuBuffer, offset } = info.condition.count;
      const to = this.#place();
      encoder.copyBufferToBuffer(gpuBuffer, offset, to.buffer, to.offset + TIMES_BYTES + slot * 4, 4);
    }
    return { querySet: this.#queries, beginningOfPassWriteIndex: slot * 2, endOfPassWriteIndex: slot * 2 + 1 };
  }

  /** Keeps the timestamps of what was encoded; call it once before the encoder is finished. */
  resolve(encoder: GPUCommandEncoder): void {
    if (this.#open.length === 0) return;
    const { buffer, offset } = this.#place();
    encoder.resolveQuerySet(this.#queries, 0, this.#open.length * 2, buffer, offset);
    this.#flushes.push({ buffer, offset, dispatches: this.#open });
    this.#open = [];
  }

  /** All dispatches since the last call, in order. Waits for the device. */
  async collect(gpu: Gpu): Promise<Span[]> {
    await gpu.sync();
    const flushes = this.#flushes;
    this.#flushes = [];
    const spans: Span[] = [];
    for (const [index, source] of this.#buffers.entries()) {
      const part = flushes.slice(index * FLUSHES_PER_BUFFER, (index + 1) * FLUSHES_PER_BUFFER);
      if (part.length === 0) break;
      const bytes = part.length * BYTES_PER_FLUSH;
      const staging = this.#device.createBuffer({
        size: bytes,
        usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
      });
      const encoder = this.#device.createCommandEncoder();
      encoder.copyBufferToBuffer(source, 0, staging, 0, bytes);
      this.#device.queue.submit([encoder.finish()]);
      await staging.mapAsync(GPUMapMode.READ);
      const results = staging.getMappedRange().slice(0);
      staging.destroy();
      for (const [flush, { dispatches }] of part.entries()) {
        const times = new BigUint64Array(results, flush * BYTES_PER_FLUSH, SLOTS * 2);
        const counts = new Uint32Array(results, flush * BYTES_PER_FLUSH + TIMES_BYTES, SLOTS);
        for (const [slot, { condition, ...info }] of dispatches.entries()) {
          const ran = !condition || counts[slot] > condition.part * condition.step;
          const span = { ...info, start: Number(times[slot * 2]), end: Number(times[slot * 2 + 1]) };
          spans.push(ran ? span : { ...span, bytes: 0, flops: 0 });
        }
      }
    }
    return spans;
  }

  destroy(): void {
    this.#queries.destroy();
    for (const buffer of this.#buffers) buffer.destroy();
  }
}

/** Spans that have a name in common. */
export interface ProfileRow {
  name: string;
  calls: number;
  /** Milliseconds of all together. */
  ms: number;
  flops: number;
  bytes: number;
}

/** Sums spans by name, the longest first. */
export function profileTable(spans: readonly Span[], nameOf: (span: Span) => string): ProfileRow[] {
  const rows = new Map<string, ProfileRow>();
  for (const span of spans) {
    const name = nameOf(span);
    const row = rows.get(name) ?? { name, calls: 0, ms: 0, flops: 0, bytes: 0 };
    rows.set(name, row);
    row.calls++;
    row.ms += (span.end - span.start) / 1e6;
    row.flops += span.flops;
    row.bytes += span.bytes;
  }
  return [...rows.values()].sort((a, b) => b.ms - a.ms || (a.name < b.name ? -1 : 1));
}

/** Milliseconds in which at least one dispatch ran: spans that overlap count once. */
export function busyMs(spans: readonly Span[]): number {
  let busy = 0;
  let until = Number.NEGATIVE_INFINITY;
  for (const { start, end } of [...spans].sort((a, b) => a.start - b.start)) {
    busy += Math.max(0, end - Math.max(start, until));
    until = Math.max(until, end);
  }
  return busy / 1e6;
}

/**
 * Spans in the Chrome trace event format (chrome://tracing, Perfetto): one row for each part of the model.
 * @returns JSON text
 */
export function chromeTrace(spans: readonly Span[]): string {
  const origin = spans.reduce((least, { start }) => Math.min(least, start), Number.POSITIVE_INFINITY);
  const threads = [...new Set(spans.map(({ module }) => module))];
  const names = threads.map((name, tid) => ({ ph: 'M', name: 'thread_name', pid: 0, tid, args: { name } }));
  const events = spans.map(({ kernel, module, start, end, bytes, flops }) => ({
    ph: 'X',
    name: kernel,
    pid: 0,
    tid: threads.indexOf(module),
    ts: (start - origin) / 1000,
    dur: (end - start) / 1000,
    args: { module, bytes, flops },
  }));
  return JSON.stringify({ displayTimeUnit: 'ms', traceEvents: [...names, ...events] });
}
