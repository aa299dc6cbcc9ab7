import { GpuError } from './gpuError.ts';
import {
  assembleWgsl,
  type BindingType,
  type Flags,
  numbered,
  type Program,
  resolveBindings,
  textureFormat,
} from './program.ts';

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

/** All of a program with its flags but its pipeline. */
interface Described {
  label: string;
  source: string;
  module: GPUShaderModule;
  layout: GPUBindGroupLayout;
  descriptor: GPUComputePipelineDescriptor;
  rest: Pick<Compiled, 'uniformBytes' | 'uniforms' | 'bindings'>;
}

/** What was asked for, so that a later process can ask for it at once: see `prepare`. */
export interface ProgramUse {
  program: Program;
  flags: Flags;
  /** Names of the bindings that were given float16, with a space behind each. */
  halves?: string;
}

const keyOf = (flags: Flags, halves: string): string => JSON.stringify(flags) + halves;

/** The set that `ProgramUse.halves` lists. */
export function halvesOf({ halves = '' }: Pick<ProgramUse, 'halves'>): ReadonlySet<string> {
  return new Set(halves.split(' ').filter(Boolean));
}

/** Pipelines by program and flags: compiled at their first use, or side by side before it. */
export class ProgramCache {
  readonly #device: GPUDevice;
  readonly #report: (verdict: Promise<GpuError | null>) => void;
  readonly #compiled = new WeakMap<Program, Map<string, Compiled>>();
  readonly #used = new Map<number, ProgramUse>();
  /** Told of each program that is compiled at its first dispatch, before that. */
  onCompile: ((count: number) => void) | null = null;
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

  /** The programs and flags that were dispatched, in the order of their first use. */
  get used(): readonly ProgramUse[] {
    return [...this.#used.values()];
  }

  /**
   * A program's pipeline for these flags; what is wrong with it is reported.
   * @param halves as of `ProgramUse`
   */
  get<F extends Flags>(program: Program<F>, flags: F, halves = ''): Compiled {
    const variants = this.#variants(program as unknown as Program);
    const key = keyOf(flags, halves);
    let compiled = variants.get(key);
    if (!compiled) {
      this.onCompile?.(this.#count + 1);
      // One scope for all of it: outside one, Dawn reports the raw parser error before the compilation info is there.
      this.#device.pushErrorScope('validation');
      const described = this.#describe(program as unknown as Program, flags, halves);
      const pipeline = this.#device.createComputePipeline(described.descriptor);
      this.#report(this.#verdict(described, this.#device.popErrorScope()));
      compiled = this.#keep(variants, key, described, pipeline);
    }
    if (!this.#used.has(compiled.id))
      this.#used.set(compiled.id, { program: program as unknown as Program, flags, ...(halves !== '' && { halves }) });
    return compiled;
  }

  /**
   * Compiles a program on one of Dawn's own threads, so that several compile side by side and the caller goes on.
   * @returns what is wrong with it, which is not reported otherwise: nothing is kept then
   */
  async prepare({ program, flags, halves = '' }: ProgramUse): Promise<GpuError | null> {
    const variants = this.#variants(program);
    const key = keyOf(flags, halves);
    if (variants.has(key)) return null;
    this.#device.pushErrorScope('validation');
    const described = this.#describe(program, flags, halves);
    const verdict = this.#verdict(described, this.#device.popErrorScope());
    // A module that does not compile is told by its verdict, with its source.
    const pipeline = await this.#device
      .createComputePipelineAsync(described.descriptor)
      .catch((error: unknown) => new GpuError('validation', `Compiling ${described.label}: ${String(error)}`));
    const refused = await verdict;
    if (refused) return refused;
    if (pipeline instanceof GpuError) return pipeline;
    if (!variants.has(key)) this.#keep(variants, key, described, pipeline);
    return null;
  }

  #variants(program: Program): Map<string, Compiled> {
    let variants = this.#compiled.get(program);
    if (!variants) {
      variants = new Map();
      this.#compiled.set(program, variants);
    }
    return variants;
  }

  #keep(
    variants: Map<string, Compiled>,
    key: string,
    { label, layout, rest }: Described,
    pipeline: GPUComputePipeline,
  ): Compiled {
    const compiled: Compiled = { id: this.#count++, label, pipeline, layout, ...rest };
    variants.set(key, compiled);
    return compiled;
  }

  #describe(program: Program, flags: Flags, halves: string): Described {
    const halfNames = halvesOf({ halves });
    const parts = [program.name, ...(Object.keys(flags).length > 0 ? [JSON.stringify(flags)] : [])];
    if (halfNames.size > 0) parts.push(`f16 ${[...halfNames].join(',')}`);
    const source = assembleWgsl(program, flags, halfNames);
    const label = parts.join(' ');
    const bindings = resolveBindings(program, flags);
    const uniforms = Object.entries(program.uniforms) as Compiled['uniforms'];
    const module = this.#device.createShaderModule({ code: source, label });
    const entries: GPUBindGroupLayoutEntry[] = [];
    if (uniforms.length > 0) {
      entries.push({
        binding: 0,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type: 'uniform', hasDynamicOffset: true },
      });
    }
    bindings.forEach(([name, access, type], index) => {
      const reads = access === 'read';
      entries.push({
        binding: index + 1,
        visibility: GPUShaderStage.COMPUTE,
        ...(type === 'texture'
          ? {
              storageTexture: {
                access: reads ? 'read-only' : 'write-only',
                format: textureFormat(halfNames.has(name)),
              },
            }
          : { buffer: { type: reads ? 'read-only-storage' : 'storage' } }),
      });
    });
    const layout = this.#device.createBindGroupLayout({ entries, label });
    return {
      label,
      source,
      module,
      layout,
      descriptor: {
        label,
        layout: this.#device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module, entryPoint: 'main' },
      },
      rest: {
        uniforms,
        uniformBytes: Math.ceil((uniforms.length * 4) / 16) * 16,
        bindings: bindings.map(([name, access, type]) => ({
          name,
          writes: access === 'write',
          type,
        })),
      },
    };
  }

  async #verdict({ label, source, module }: Described, scope: Promise<GPUError | null>): Promise<GpuError | null> {
    const [refused, { messages }] = await Promise.all([scope, module.getCompilationInfo()]);
    const errors = messages.filter((message) => message.type === 'error');
    if (errors.length > 0) {
      const list = errors.map((message) => `line ${message.lineNum}:${message.linePos} ${message.message}`).join('\n');
      return new GpuError('validation', `WGSL of ${label} does not compile:\n${list}\n${numbered(source)}`);
    }
    return refused && new GpuError('validation', `Compiling ${label}: ${refused.message}`);
  }
}
