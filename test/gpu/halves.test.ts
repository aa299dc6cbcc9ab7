import { describe, expect, it } from 'vitest';
import { widenHalves } from '../../src/gpu/halves.ts';
import { assembleWgsl, defineProgram, perElement } from '../../src/gpu/program.ts';

const widened = (code: string): string =>
  widenHalves(
    code,
    new Map([
      ['x', 'f32'],
      ['y', 'vec4f'],
    ]),
  );

describe('a program that is given halves', () => {
  it.each([
    ['let a = x[i] + z[i];', 'let a = f32(x[i]) + z[i];'],
    ['let a = y[i].w;', 'let a = vec4f(y[i]).w;'],
    ['y[i + 1u] = a;', 'y[i + 1u] = vec4h(a);'],
    ['y[i] = a * vec4f(x[i]);', 'y[i] = vec4h(a * vec4f(f32(x[i])));'],
    ['x[i] += a - b;', 'x[i] = f16(f32(x[i]) + (a - b));'],
    ['x[i] /= total;', 'x[i] = f16(f32(x[i]) / (total));'],
    ['if (x[i] == x[j]) { }', 'if (f32(x[i]) == f32(x[j])) { }'],
    ['let a = x[list[u32(x[i])]];', 'let a = f32(x[list[u32(f32(x[i]))]]);'],
    ['x[x[i] - 1.0] = 2.0;', 'x[f32(x[i]) - 1.0] = f16(2.0);'],
    ['max[i] = box.x; p.x[i] = maxx[i];', 'max[i] = box.x; p.x[i] = maxx[i];'],
    ['// x[i] = open\nlet a = x[i];', '\nlet a = f32(x[i]);'],
  ])('%s', (code, expected) => {
    expect(widened(code)).toBe(expected);
  });

  const program = defineProgram({
    name: 'sample',
    uniforms: { count: 'u32' },
    bindings: { x: 'read', places: ['read', 'u32'], t: ['read', 'texture'], y: ['write', 'vec4f'] },
    code: () => perElement('y[i] = vec4f(x[places[i]]) + textureLoad(t, texel(i));'),
  });

  it('declares what it is given, and nothing else changes', () => {
    const text = assembleWgsl(program, {}, new Set(['y', 't']));
    expect(text).toContain('enable f16;');
    expect(text).toContain('x: array<f32>;');
    expect(text).toContain('y: array<vec4h>;');
    expect(text).toContain('t: texture_storage_2d<rgba16float, read>;');
    expect(text).toContain('y[i] = vec4h(vec4f(x[places[i]]) + textureLoad(t, texel(i)));');
    expect(assembleWgsl(program, {}, new Set(['t']))).not.toContain('enable f16;');
    expect(assembleWgsl(program, {})).toContain('y[i] = vec4f(x[places[i]]) + textureLoad(t, texel(i));');
  });

  it('is refused where it takes integers', () => {
    expect(() => assembleWgsl(program, {}, new Set(['places']))).toThrow('sample: the binding places takes u32');
  });
});
