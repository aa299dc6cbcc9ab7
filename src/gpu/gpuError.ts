/** The device was lost, ran out of memory, or refused a command. Nothing computed since can be trusted. */
export class GpuError extends Error {
  override readonly name = 'GpuError';
  readonly kind: 'lost' | 'out-of-memory' | 'validation' | 'internal';
  constructor(kind: GpuError['kind'], message: string) {
    super(message);
    this.kind = kind;
  }
}
