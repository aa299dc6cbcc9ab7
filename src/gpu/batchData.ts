import type { UniformType } from './program.ts';

const UNIFORM_BYTES = 64 * 1024;
/** Host data that one submit carries along; more is written by itself. */
const UPLOAD_BYTES = 256 * 1024;

/**
 * What one submit takes along from the host: the uniforms of its dispatches and small uploads. Both lie in one buffer each, which is
 * written just before the submit: the queue orders that write after the batch before.
 */
export class BatchData {
  readonly uniformBuffer: GPUBuffer;
  readonly uploadBuffer: GPUBuffer;
  #align: number;
  #uniformData = new ArrayBuffer(UNIFORM_BYTES);
  #uniformView = new DataView(this.#uniformData);
  #uniformUsed = 0;
  #uploadData = new Uint8Array(UPLOAD_BYTES);
  #uploadUsed = 0;

  constructor(device: GPUDevice) {
    this.#align = device.limits.minUniformBufferOffsetAlignment;
    const buffer = (label: string, size: number, usage: GPUBufferUsageFlags): GPUBuffer =>
      device.createBuffer({ size, usage: usage | GPUBufferUsage.COPY_DST, label });
    this.uniformBuffer = buffer('uniforms', UNIFORM_BYTES, GPUBufferUsage.UNIFORM);
    this.uploadBuffer = buffer('uploads', UPLOAD_BYTES, GPUBufferUsage.COPY_SRC);
  }

  #slot(bytes: number): number {
    return Math.ceil(Math.max(bytes, 16) / this.#align) * this.#align;
  }

  /** Whether a struct of so many bytes still fits. */
  uniformsFit(bytes: number): boolean {
    return this.#uniformUsed + this.#slot(bytes) <= UNIFORM_BYTES;
  }

  /**
   * Takes the uniforms of one dispatch; where they lie.
   * @throws Error that names a uniform without a number
   */
  putUniforms(
    program: string,
    uniforms: readonly (readonly [string, UniformType])[],
    values: Readonly<Record<string, number>>,
  ): number {
    const offset = this.#uniformUsed;
    uniforms.forEach(([name, type], index) => {
      const value = values[name];
      if (value === undefined || Number.isNaN(value)) throw new Error(`${program}: the uniform ${name} is ${value}.`);
      const at = offset + index * 4;
      if (type === 'f32') this.#uniformView.setFloat32(at, value, true);
      else if (type === 'i32') this.#uniformView.setInt32(at, value, true);
      else this.#uniformView.setUint32(at, value, true);
    });
    this.#uniformUsed += this.#slot(uniforms.length * 4);
    return offset;
  }

  /** Takes host data, filled up with zeros to a multiple of 4 bytes; where they lie, or null where they do not fit. */
  putUpload(bytes: Uint8Array): { offset: number; length: number } | null {
    const length = Math.ceil(bytes.byteLength / 4) * 4;
    const offset = this.#uploadUsed;
    if (offset + length > UPLOAD_BYTES) return null;
    this.#uploadUsed += length;
    this.#uploadData.fill(0, this.#uploadUsed - 4, this.#uploadUsed);
    this.#uploadData.set(bytes, offset);
    return { offset, length };
  }

  /** Writes what was taken, and begins anew. */
  write(queue: GPUQueue): void {
    if (this.#uniformUsed > 0) queue.writeBuffer(this.uniformBuffer, 0, this.#uniformData, 0, this.#uniformUsed);
    if (this.#uploadUsed > 0) queue.writeBuffer(this.uploadBuffer, 0, this.#uploadData, 0, this.#uploadUsed);
    this.#uniformUsed = 0;
    this.#uploadUsed = 0;
  }
}
