import { halfType, widenHalves } from './halves.ts';
import { TEXTURE_WIDTH } from './pool.ts';

/** A scalar of a uniform struct. Structs hold 4-byte scalars only, so both sides lay them out alike without padding rules. */
export type UniformType = 'u32' | 'i32' | 'f32';

/** Element type of a storage binding, bound as `array<T>`. */
export type ElementType = 'f32' | 'i32' | 'u32' | 'vec2f' | 'vec4f' | 'vec4u' | 'vec4i' | 'vec2u' | 'atomic<u32>';

/** A pooled texture of vec4f texels, see `PooledTexture`: `textureLoad(name, texel(i))` is its i-th vec4f. It is read or written, never both. */
export type BindingType = ElementType | 'texture';

/** `'read'` and `'write'` bind `array<f32>`; a written buffer may be read back by the kernel (WGSL's read_write). */
export type Binding = 'read' | 'write' | readonly ['read' | 'write', BindingType];

/** Static choices that change the WGSL text; each distinct set is a pipeline of its own, so keep them few. */
export type Flags = Readonly<Record<string, string | number | boolean>>;

/**
 * One kernel: what its WGSL text depends on (`flags`) kept apart from what only its uniforms depend on (sizes).
 * The struct `u` and the storage variables are declared from `uniforms` and `bindings`; `code` gives the rest, with an
 * entry point named `main`.
 */
export interface Program<F extends Flags = Flags, B extends string = string, U extends string = string> {
  readonly name: string;
  readonly uniforms: Readonly<Record<U, UniformType>>;
  readonly bindings: Readonly<Record<B, Binding>> | ((flags: F) => Readonly<Record<B, Binding>>);
  /** WGSL `enable`/`requires` directives, which must stand first. */
  readonly directives?: (flags: F) => string;
  readonly code: (flags: F) => string;
  /**
   * Bindings of which invocation i of `perElement` touches element i alone: where one of them passes what the adapter binds at once, the
   * dispatch is split. The others are bound whole.
   */
  readonly elementwise?: readonly NoInfer<B>[];
}

/** Bytes of an element of a storage binding. */
export const ELEMENT_BYTES: Readonly<Record<ElementType, number>> = {
  f32: 4,
  i32: 4,
  u32: 4,
  vec2f: 8,
  vec2u: 8,
  vec4f: 16,
  vec4u: 16,
  vec4i: 16,
  'atomic<u32>': 4,
};

const declared = new Map<string, Program>();

/** Declares a program, under a name of its own. */
export function defineProgram<const U extends string, const B extends string, F extends Flags = Record<string, never>>(
  program: Program<F, B, U>,
): Program<F, B, U> {
  declared.set(program.name, program as unknown as Program);
  return program;
}

/** A declared program by its name, once the module that declares it has been loaded. */
export function declaredProgram(name: string): Program | undefined {
  return declared.get(name);
}

/**
 * An entry point that runs `body` once for each `i` in 0 … `u.count` - 1 (the program must declare the uniform `count: 'u32'`).
 * Grids beyond 65535 workgroups arrive folded into y, so `i` is computed from both.
 */
export function perElement(body: string, workgroupSize = 64): string {
  return `
@compute @workgroup_size(${workgroupSize})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * groups.x) * ${workgroupSize}u + lane;
  if (i < u.count) {
${body}
  }
}`;
}

/** Workgroups for `perElement` over `count` elements. */
export function workgroupsFor(count: number, workgroupSize = 64): number {
  return Math.ceil(count / workgroupSize);
}

export function resolveBindings<F extends Flags>(
  program: Program<F>,
  flags: F,
): [string, 'read' | 'write', BindingType][] {
  const bindings = typeof program.bindings === 'function' ? program.bindings(flags) : program.bindings;
  return Object.entries(bindings).map(([name, binding]) =>
    typeof binding === 'string' ? [name, binding, 'f32'] : [name, binding[0], binding[1]],
  );
}

/**
 * The whole WGSL text: directives, uniform struct, bindings, then the program's own code.
 * @param halves names of bindings that are given float16 instead of float32: arrays (see `halves.ts`) or textures
 */
export function assembleWgsl<F extends Flags>(
  program: Program<F>,
  flags: F,
  halves: ReadonlySet<string> = new Set(),
): string {
  const bindings = resolveBindings(program, flags);
  const halfArrays = new Map<string, BindingType>();
  for (const [name, , type] of bindings) {
    if (!halves.has(name) || type === 'texture') continue;
    if (!halfType(type)) throw new Error(`${program.name}: the binding ${name} takes ${type}, it was given float16.`);
    halfArrays.set(name, type);
  }
  const lines: string[] = [program.directives?.(flags) ?? '', halfArrays.size > 0 ? 'enable f16;' : ''];
  const uniforms = Object.entries(program.uniforms);
  if (uniforms.length > 0) {
    lines.push(`struct Uniforms { ${uniforms.map(([name, type]) => `${name}: ${type}`).join(', ')} }`);
    lines.push('@group(0) @binding(0) var<uniform> u: Uniforms;');
  }
  bindings.forEach(([name, access, type], index) => {
    const declared =
      type === 'texture'
        ? `var ${name}: texture_storage_2d<${textureFormat(halves.has(name))}, ${access}>;`
        : `var<storage, ${access === 'read' ? 'read' : 'read_write'}> ${name}: array<${halves.has(name) ? halfType(type) : type}>;`;
    lines.push(`@group(0) @binding(${index + 1}) ${declared}`);
  });
  if (bindings.some(([, , type]) => type === 'texture')) {
    lines.push(`fn texel(i: u32) -> vec2u { return vec2u(i % ${TEXTURE_WIDTH}u, i / ${TEXTURE_WIDTH}u); }`);
  }
  lines.push(widenHalves(program.code(flags), halfArrays));
  return lines.join('\n');
}

/** The format of a pooled texture, of floats or of halves. */
export function textureFormat(half: boolean): 'rgba16float' | 'rgba32float' {
  return half ? 'rgba16float' : 'rgba32float';
}

/** Source with line numbers, for compile errors. */
export function numbered(source: string): string {
  return source
    .split('\n')
    .map((line, index) => `${String(index + 1).padStart(4)}  ${line}`)
    .join('\n');
}
