import { GpuError } from './gpuError.ts';

/** What has gone wrong on a device: its errors come through error scopes, and are thrown at the next readback or command. */
export class DeviceErrors {
  readonly #device: GPUDevice;
  #pending = new Set<Promise<void>>();
  #failure: GpuError | null = null;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  get failed(): boolean {
    return this.#failure !== null;
  }

  /** Keeps an error, unless another came before. */
  fail(kind: GpuError['kind'], message: string): void {
    this.#failure ??= new GpuError(kind, message);
  }

  /** Keeps an error in place of those that may have followed from it, such as a refused submit. */
  blame(error: GpuError): void {
    this.#failure = error;
  }

  /** Throws the first error that the device has reported so far. */
  throwIfFailed(): void {
    if (this.#failure) throw this.#failure;
  }

  /** Runs `make` inside an error scope, whose verdict is awaited by `settle`. */
  guarded<T>(filter: GPUErrorFilter, what: string, make: () => T): T {
    this.#device.pushErrorScope(filter);
    const made = make();
    this.expect(
      this.#device.popErrorScope().then((error) => {
        if (!error) return;
        if (filter === 'out-of-memory') {
          this.fail('out-of-memory', `Out of device memory when ${what}: ${error.message}`);
        } else {
          this.fail('validation', `${what}: ${error.message}`);
        }
      }),
    );
    return made;
  }

  /** Awaits a verdict in `settle`. */
  expect(verdict: Promise<void>): void {
    const settled = verdict
      .catch((error: unknown) => this.fail('internal', String(error)))
      .finally(() => this.#pending.delete(settled));
    this.#pending.add(settled);
  }

  /** Waits for all verdicts. */
  async settle(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending);
  }
}
