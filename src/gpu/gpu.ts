import type { OpenedDevice } from './adapter.ts';
import { afterwards } from './afterwards.ts';
import { BatchData } from './batchData.ts';
import { BindGroupCache } from './bindGroups.ts';
import { type Condition, conditionalGrid } from './condition.ts';
import { copyToTexture } from './copyToTexture.ts';
import { DerivedCache } from './derived.ts';
import { DeviceErrors } from './deviceErrors.ts';
import { type Dispatch, gridOf, holdsHalves, partsOf, RANGE_ALIGNMENT, resourcesOf } from './dispatch.ts';
import { GpuError } from './gpuError.ts';
import {
  BufferPool,
  type MemoryCounters,
  MemoryLedger,
  type PooledBuffer,
  type PooledTexture,
  TEXTURE_WIDTH,
  type TexelBytes,
  TexturePool,
} from './pool.ts';
import type { Profiler } from './profiler.ts';
import { type Flags, type Program, textureFormat } from './program.ts';
import { type Compiled, ProgramCache, type ProgramUse } from './programCache.ts';

export { type Bindable, type BufferSource, RANGE_ALIGNMENT } from './dispatch.ts';
export { GpuError } from './gpuError.ts';

export interface GpuCounters extends MemoryCounters {
  dispatches: number;
  submits: number;
  readbacks: number;
  pipelines: number;
  /** Bind groups created; those in use again are cached. */
  bindGroups: number;
  /** Bytes of the buffers through which results are read, beside `held`. */
  staging: number;
  /** Parts of dispatches that bind ranges of buffers larger than what the adapter binds at once. */
  parts: number;
}

/** More save submits, but the device begins later after a readback; measured, 48 is no worse than 128. A profiler must have as many slots. */
const DISPATCHES_PER_SUBMIT = 48;
/** What derived operands may take beside a training step's own memory. */
const DERIVED_BYTES = 192 * 1024 * 1024;

/**
 * The device: compiled programs, one open command encoder, uniforms, pooled buffers, readback. It knows no tensors.
 *
 * Dispatches are appended to the open encoder and submitted together; nothing submits on its own. Uniforms of one batch
 * lie in one buffer that is written just before its submit: the queue orders that write after the batch before. So do small
 * uploads, which the batch copies to their places in its order.
 */
export class Gpu {
  readonly opened: OpenedDevice;
  readonly device: GPUDevice;
  readonly pool: BufferPool;
  /** Of floats, and of halves. */
  readonly textures: TexturePool;
  readonly halfTextures: TexturePool;
  /** Operands derived from buffers; every command that writes to a buffer tells it. */
  readonly derived: DerivedCache<PooledBuffer | PooledTexture>;
  /** What dispatches are counted under while they are profiled: the part of the model that is being computed. */
  label = '';
  /**
   * Bytes that one binding holds at most. Buffers may be larger: operators compute them in parts. Tests lower it (to a multiple of
   * {@link RANGE_ALIGNMENT}) to see that with small tensors.
   */
  bindingLimit: number;
  #condition: Condition | null = null;
  #profiler: Profiler | null = null;
  #ledger = new MemoryLedger();
  #stagingLedger = new MemoryLedger();
  #staging: BufferPool;
  #programs: ProgramCache;
  #bindGroups = new BindGroupCache();
  #encoder: GPUCommandEncoder | null = null;
  #pass: GPUComputePassEncoder | null = null;
  #pending = 0;
  #data: BatchData;
  #errors: DeviceErrors;
  #closed = false;
  #counts = { dispatches: 0, submits: 0, readbacks: 0, parts: 0 };

  constructor(opened: OpenedDevice) {
    this.opened = opened;
    this.device = opened.device;
    const { maxBufferSize, maxStorageBufferBindingSize } = this.device.limits;
    this.bindingLimit =
      Math.floor(Math.min(maxBufferSize, maxStorageBufferBindingSize) / RANGE_ALIGNMENT) * RANGE_ALIGNMENT;
    this.#errors = new DeviceErrors(this.device);
    this.#programs = new ProgramCache(this.device, (verdict) =>
      this.#errors.expect(
        verdict.then((error) => {
          if (error) this.#errors.blame(error);
        }),
      ),
    );
    this.#data = new BatchData(this.device);
    this.pool = new BufferPool(
      this.#ledger,
      (size) => {
        this.#checkSize(size);
        return this.#errors.guarded('out-of-memory', `creating a buffer of ${size} bytes`, () =>
          this.device.createBuffer({
            size,
            usage: GPUBufferUsage.STORAGE | GPUBufferUsage.INDIRECT | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
          }),
        );
      },
      (contents) => this.derived.forget(contents),
    );
    this.textures = this.#texturePool(16);
    this.halfTextures = this.#texturePool(8);
    // What is kept must be there whether or not the work that first asks for it runs.
    this.derived = new DerivedCache(
      DERIVED_BYTES,
      (resource) => this.giveBack(resource),
      (make) => this.under(null, make),
    );
    this.#staging = new BufferPool(this.#stagingLedger, (size) =>
      this.#errors.guarded('out-of-memory', `creating a readback buffer of ${size} bytes`, () =>
        this.device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST }),
      ),
    );
    void this.device.lost.then((info) => {
      if (!this.#closed) this.#errors.fail('lost', `The device was lost (${info.reason}): ${info.message}`);
    });
    this.device.onuncapturederror = (event) => this.#errors.fail('internal', event.error.message);
  }

  #texturePool(texelBytes: TexelBytes): TexturePool {
    return new TexturePool(this.#ledger, texelBytes, (size) => {
      if (size[1] > this.limits.maxTextureDimension2D)
        throw new GpuError('out-of-memory', `A texture of ${size[1]} rows passes the limit of this adapter.`);
      return this.#errors.guarded('out-of-memory', `creating a texture of ${size.join('×')} texels`, () =>
        this.device.createTexture({
          size,
          format: textureFormat(texelBytes === 8),
          usage: GPUTextureUsage.STORAGE_BINDING | GPUTextureUsage.COPY_DST,
        }),
      );
    });
  }

  get limits(): GPUSupportedLimits {
    return this.device.limits;
  }

  counters(): GpuCounters {
    return {
      ...this.#ledger.counters(),
      ...this.#counts,
      staging: this.#stagingLedger.counters().held,
      pipelines: this.#programs.count,
      bindGroups: this.#bindGroups.created,
    };
  }

  /** The counters' peaks start again from what is now. */
  forgetPeaks(): void {
    this.#ledger.forgetPeaks();
  }

  /** Told of each program that is compiled at its first dispatch, with how many that makes: it may take seconds. */
  set onCompile(told: ((count: number) => void) | null) {
    this.#programs.onCompile = told;
  }

  /** The programs and flags that have been dispatched, in the order of their first use. */
  get programsUsed(): readonly ProgramUse[] {
    return this.#programs.used;
  }

  /**
   * Compiles programs side by side, before their first dispatch.
   * @param done is told how many are ready
   * @returns for each what is wrong with it, which does not touch what else the device does
   */
  prepare(uses: readonly ProgramUse[], done?: (count: number) => void): Promise<(GpuError | null)[]> {
    let count = 0;
    const compiling = uses.map(async (use) => {
      const refused = await this.#programs.prepare(use);
      done?.(++count);
      return refused;
    });
    return this.#patiently(Promise.all(compiling));
  }

  /** Gives a buffer or a texture back to its pool. */
  giveBack(resource: PooledBuffer | PooledTexture): void {
    if ('gpuBuffer' in resource) this.pool.release(resource);
    else if (resource.texelBytes === 8) this.halfTextures.release(resource);
    else this.textures.release(resource);
  }

  /** Whether a texture can hold so many vec4f. */
  textureHolds(texels: number): boolean {
    return Math.ceil(texels / TEXTURE_WIDTH) <= this.limits.maxTextureDimension2D;
  }

  #checkSize(size: number): void {
    const limit = this.limits.maxBufferSize;
    if (size > limit) {
      throw new GpuError(
        'out-of-memory',
        `A tensor of ${size} bytes was asked for, but a buffer of this adapter holds at most ${limit} bytes; use smaller images, batches or detections.`,
      );
    }
  }

  /** Counts a part of an operator's work that was split since a buffer passes `bindingLimit`. */
  countPart(): void {
    this.#counts.parts++;
  }

  /** Throws the first error that the device has reported so far. */
  throwIfFailed(): void {
    this.#errors.throwIfFailed();
  }

  #bindGroup(compiled: Compiled, resources: (PooledBuffer | PooledTexture)[]): GPUBindGroup {
    let key = `${compiled.id}/${this.bindingLimit}`;
    for (const resource of resources) key += `,${resource.id}`;
    return this.#bindGroups.get(key, () => {
      const entries: GPUBindGroupEntry[] = resources.map((resource, index) => ({
        binding: index + 1,
        resource:
          'view' in resource
            ? resource.view
            : { buffer: resource.gpuBuffer, offset: resource.offset, size: Math.min(resource.size, this.bindingLimit) },
      }));
      if (compiled.uniforms.length > 0) {
        entries.push({
          binding: 0,
          resource: { buffer: this.#data.uniformBuffer, offset: 0, size: compiled.uniformBytes },
        });
      }
      return this.device.createBindGroup({ layout: compiled.layout, entries });
    });
  }

  /** What the dispatches now appended depend on. */
  get condition(): Condition | null {
    return this.#condition;
  }

  /**
   * The dispatches inside `body` run on the device only where a condition holds; else what they write keeps what it holds, which of a new buffer is
   * anything. Clears, copies and uploads are always done. Also for asynchronous bodies.
   */
  under<T>(condition: Condition | null, body: () => T): T {
    const outer = this.#condition;
    this.#condition = condition;
    return afterwards(body, () => {
      this.#condition = outer;
    });
  }

  /** Appends one dispatch to the open encoder. */
  dispatch<F extends Flags, B extends string, U extends string>(
    program: Program<F, B, U>,
    options: Dispatch<F, B, U>,
  ): void {
    this.throwIfFailed();
    const limit = this.limits.maxComputeWorkgroupsPerDimension;
    const [x, y, z] = gridOf(options.workgroups, limit, program.name);
    if (x * y * z === 0) return;
    let halves = '';
    for (const name in options.buffers) if (holdsHalves(options.buffers[name])) halves += `${name} `;
    const compiled = this.#programs.get(program as unknown as Program<F>, options.flags ?? ({} as F), halves);
    const resources = resourcesOf(program.name, compiled, options.buffers);
    compiled.bindings.forEach(({ writes }, index) => {
      const resource = resources[index];
      if (writes && 'contents' in resource) this.derived.forget(resource.contents);
    });
    const parts = partsOf(program, options, compiled, resources, this.bindingLimit, (buffer, offset, bytes) =>
      this.pool.range(buffer, offset, bytes),
    );
    if (parts) {
      for (const part of parts) {
        this.countPart();
        this.dispatch(program, part);
      }
      return;
    }
    const grid = this.#condition && conditionalGrid(this, this.#condition, [x, y, z]);
    if (!this.#data.uniformsFit(compiled.uniformBytes) || this.#pending >= DISPATCHES_PER_SUBMIT) this.flush();
    const group = this.#bindGroup(compiled, resources);
    const pass = this.#profiler
      ? this.#timedPass(this.#profiler, compiled, resources, options.flops)
      : this.#openPass();
    pass.setPipeline(compiled.pipeline);
    if (compiled.uniforms.length > 0) {
      pass.setBindGroup(0, group, [this.#data.putUniforms(program.name, compiled.uniforms, options.uniforms)]);
    } else {
      pass.setBindGroup(0, group);
    }
    if (grid) pass.dispatchWorkgroupsIndirect(grid.buffer, grid.offset);
    else pass.dispatchWorkgroups(x, y, z);
    if (this.#profiler) this.#endPass();
    this.#pending++;
    this.#counts.dispatches++;
  }

  #open(): GPUCommandEncoder {
    this.#encoder ??= this.device.createCommandEncoder();
    return this.#encoder;
  }

  #openPass(): GPUComputePassEncoder {
    this.#pass ??= this.#open().beginComputePass();
    return this.#pass;
  }

  /** A pass for one dispatch, with its time taken. */
  #timedPass(
    profiler: Profiler,
    { label }: Compiled,
    resources: readonly (PooledBuffer | PooledTexture)[],
    flops = 0,
  ): GPUComputePassEncoder {
    this.#endPass();
    const bytes = resources.reduce((sum, { size }) => sum + size, 0);
    const info = { kernel: label, module: this.label, bytes, flops, condition: this.#condition };
    const timestampWrites = profiler.begin(info, this.#open());
    this.#pass = this.#open().beginComputePass({ timestampWrites });
    return this.#pass;
  }

  /** Times every dispatch from now on; with null, no longer. */
  profileWith(profiler: Profiler | null): void {
    this.flush();
    this.#profiler = profiler;
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = null;
  }

  /** Submits what has been appended. */
  flush(): void {
    if (!this.#encoder) return;
    this.#endPass();
    const encoder = this.#encoder;
    this.#encoder = null;
    this.#profiler?.resolve(encoder);
    this.#errors.guarded('validation', 'Submitting commands', () => {
      this.#data.write(this.device.queue);
      this.device.queue.submit([encoder.finish()]);
    });
    this.#pending = 0;
    this.#counts.submits++;
  }

  /** Fills the first `bytes` of a buffer with zeros, in order with the dispatches around it. */
  clear(buffer: PooledBuffer, bytes: number): void {
    this.#endPass();
    this.derived.forget(buffer.contents);
    this.#open().clearBuffer(buffer.gpuBuffer, buffer.offset, Math.ceil(bytes / 4) * 4);
  }

  /** Copies `bytes` between buffers, in order with the dispatches around it. Offsets and bytes are multiples of 4. */
  copy(from: PooledBuffer, to: PooledBuffer, bytes: number, fromOffset = 0, toOffset = 0): void {
    if (bytes === 0) return;
    this.#endPass();
    this.derived.forget(to.contents);
    this.#open().copyBufferToBuffer(
      from.gpuBuffer,
      from.offset + fromOffset,
      to.gpuBuffer,
      to.offset + toOffset,
      bytes,
    );
  }

  /** Copies the first `texels` vectors of a buffer into a texture, floats or halves as it has them, in order with the dispatches around it. */
  copyToTexture(from: PooledBuffer, to: PooledTexture, texels: number): void {
    if (texels === 0) return;
    this.#endPass();
    copyToTexture(this.#open(), from, to, texels);
  }

  /**
   * Writes host data, in order with the dispatches around it. `data` may be changed or dropped at once. Large data goes by the queue, which
   * would run it before commands still being encoded, so those are submitted first. Staging buffers of our own that stay mapped would copy the
   * bytes as often; measured, they save 0.2 ms for 2 MB, a thousandth of a training step.
   */
  write(buffer: PooledBuffer, data: ArrayBufferView<ArrayBuffer>, offset = 0): void {
    this.throwIfFailed();
    if (data.byteLength === 0) return;
    this.derived.forget(buffer.contents);
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const start = buffer.offset + offset;
    const upload = this.#encoder ? this.#data.putUpload(bytes) : null;
    if (upload) {
      const { offset: from, length } = upload;
      this.#endPass();
      this.#open().copyBufferToBuffer(this.#data.uploadBuffer, from, buffer.gpuBuffer, start, length);
      return;
    }
    this.flush();
    const whole = bytes.byteLength & ~3;
    if (whole > 0) this.device.queue.writeBuffer(buffer.gpuBuffer, start, bytes, 0, whole);
    if (whole < bytes.byteLength) {
      const tail = new Uint8Array(4);
      tail.set(bytes.subarray(whole));
      this.device.queue.writeBuffer(buffer.gpuBuffer, start + whole, tail);
    }
  }

  /** The first `bytes` of a buffer, after all commands appended so far. */
  async read(buffer: PooledBuffer, bytes: number): Promise<ArrayBuffer> {
    return (await this.readAll([{ buffer, bytes }]))[0];
  }

  /** Several readbacks at the price of one wait. */
  async readAll(parts: readonly { buffer: PooledBuffer; bytes: number }[]): Promise<ArrayBuffer[]> {
    this.throwIfFailed();
    const offsets: number[] = [];
    let total = 0;
    for (const { bytes } of parts) {
      offsets.push(total);
      total += Math.ceil(bytes / 8) * 8;
    }
    if (total === 0) return parts.map(() => new ArrayBuffer(0));
    const staging = this.#staging.acquire(total, 'readback');
    try {
      for (const [index, { buffer, bytes }] of parts.entries()) {
        this.copy(buffer, staging, Math.ceil(bytes / 4) * 4, 0, offsets[index]);
      }
      this.flush();
      this.#counts.readbacks++;
      await this.#patiently(staging.gpuBuffer.mapAsync(GPUMapMode.READ, 0, total)).catch(async (error: unknown) => {
        await this.#errors.settle();
        this.throwIfFailed();
        throw error;
      });
      const mapped = staging.gpuBuffer.getMappedRange(0, total);
      const copies = parts.map(({ bytes }, index) => mapped.slice(offsets[index], offsets[index] + bytes));
      staging.gpuBuffer.unmap();
      await this.#errors.settle();
      this.throwIfFailed();
      return copies;
    } finally {
      this.#staging.release(staging);
    }
  }

  /** Awaits the device without taking processor time from it; see `OpenedDevice.whileWaiting`. */
  async #patiently<T>(promise: Promise<T>): Promise<T> {
    let done = false;
    this.opened.whileWaiting?.(() => done);
    try {
      return await promise;
    } finally {
      done = true;
    }
  }

  /** Waits until the queue is empty and throws what went wrong. */
  async sync(): Promise<void> {
    this.flush();
    await this.#patiently(this.device.queue.onSubmittedWorkDone());
    await this.#errors.settle();
    this.throwIfFailed();
  }

  /** Gives pooled memory that nobody uses back to the system, once the queue has passed it. */
  async trim(): Promise<void> {
    await this.sync();
    this.#bindGroups.clear();
    this.derived.clear();
    this.pool.destroyFree();
    this.textures.destroyFree();
    this.halfTextures.destroyFree();
    this.#staging.destroyFree();
  }

  /** Drains the queue and destroys the device; the process can then end (Dawn keeps Node alive until `process.exit`). */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      if (!this.#errors.failed) {
        this.flush();
        await this.#patiently(this.device.queue.onSubmittedWorkDone());
        await this.#errors.settle();
      }
    } finally {
      this.device.destroy();
    }
  }
}
