import { GpuError } from './gpuError.ts';
import { assembleWgsl, type BindingType, type Flags, numbered, type Program, resolveBindings } from './program.ts';

/** A program as the device runs it. */
export interface Compiled {
  id: number;
  label: string;
  pipeline: GPUComputePipeline;
  layout: GPUBindGroupLayout;
  uniformBytes: number;
  uniforms: [string, 'u32' | 'i32' | 'f32'][];
  bindings: { name: string; writes: boolean; type: BindingType }[];
}

/** Pipelines by program and flags, compiled at their first use. */
export class ProgramCache {
  readonly #device: GPUDevice;
  readonly #report: (verdict: Promise<GpuError | null>) => void;
  readonly #compiled = new WeakMap<Program, Map<string, Compiled>>();
  #count = 0;

  /** @param report takes the device's verdict on each program, with its numbered source where it does not compile */
  constructor(device: GPUDevice, report: (verdict: Promise<GpuError | null>) => void) {
    this.#device = device;
    this.#report = report;
  }

  /** How many pipelines there are. */
  get count(): number {
    return this.#count;
  }

  /** A program's pipeline for these flags; what is wrong with it is reported. */
  get<F extends Flags>(program: Program<F>, flags: F): Compiled {
    const key = JSON.stringify(flags);
    let variants = this.#compiled.get(program as unknown as Program);
    if (!variants) {
      variants = new Map();
      this.#compiled.set(program as unknown as Program, variants);
    }
    const known = variants.get(key);
    if (known) return known;
    const source = assembleWgsl(program, flags);
    const label = key === '{}' ? program.name : `${program.name} ${key}`;
    const bindings = resolveBindings(program, flags);
    const uniforms = Object.entries(program.uniforms) as Compiled['uniforms'];
    // One scope for all of it: outside one, Dawn reports the raw parser error before the compilation info is there.
    this.#device.pushErrorScope('validation');
    const module = this.#device.createShaderModule({ code: source, label });
    const entries: GPUBindGroupLayoutEntry[] = [];
    if (uniforms.length > 0) {
      entries.push({
        binding: 0,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type: 'uniform', hasDynamicOffset: true },
      });
    }
    bindings.forEach(([, access, type], index) => {
      const reads = access === 'read';
      entries.push({
        binding: index + 1,
        visibility: GPUShaderStage.COMPUTE,
        ...(type === 'texture'
          ? { storageTexture: { access: reads ? 'read-only' : 'write-only', format: 'rgba32float' } }
          : { buffer: { type: reads ? 'read-only-storage' : 'storage' } }),
      });
    });
    const layout = this.#device.createBindGroupLayout({ entries, label });
    const pipeline = this.#device.createComputePipeline({
      label,
      layout: this.#device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: 'main' },
    });
    this.#report(
      Promise.all([this.#device.popErrorScope(), module.getCompilationInfo()]).then(([refused, { messages }]) => {
        const errors = messages.filter((message) => message.type === 'error');
        if (errors.length > 0) {
          const list = errors
            .map((message) => `line ${message.lineNum}:${message.linePos} ${message.message}`)
            .join('\n');
          return new GpuError('validation', `WGSL of ${label} does not compile:\n${list}\n${numbered(source)}`);
        }
        return refused && new GpuError('validation', `Compiling ${label}: ${refused.message}`);
      }),
    );
    const compiled: Compiled = {
      id: this.#count++,
      label,
      pipeline,
      layout,
      uniforms,
      uniformBytes: Math.ceil((uniforms.length * 4) / 16) * 16,
      bindings: bindings.map(([name, access, type]) => ({
        name,
        writes: access === 'write',
        type,
      })),
    };
    variants.set(key, compiled);
    return compiled;
  }
}
