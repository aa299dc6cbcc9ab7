import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { defineOperator, type Example } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { reduceToShape } from './reduce.ts';
import { stridesOf, walkUniforms, walkValues, walkWgsl } from './strided.ts';

/*
 * a + b, a - b, a · b, a / b with broadcasting, and the terms of their gradients:
 *   sum: da = dy, db = dy;  difference: db = -dy;  product: da = dy·b, db = dy·a;  quotient: da = dy / b, db = -dy·a / b².
 * A broadcast operand's gradient is its term summed over the dimensions it was repeated in, in the fixed order of
 * `reduceSum`. The formula is a uniform, so two pipelines (four floats at a time, and strided) serve all of it.
 */
const FORMULAS = {
  add: 'A + B',
  sub: 'A - B',
  mul: 'A * B',
  div: 'A / B',
  minus: '-D',
  dy·b: 'D * B',
  dy·a: 'D * A',
  'dy/b': 'D / B',
  '-dy·a/b²': '-D * A / (B * B)',
} as const;
type Formula = keyof typeof FORMULAS;

const formulaIndex = (formula: Formula): number => Object.keys(FORMULAS).indexOf(formula);

/** Each case loads only what it uses: loads are what a software adapter pays for. */
function formulaSwitch(a: string, b: string, d: string): string {
  const cases = Object.values(FORMULAS).map((text, index) => {
    const value = text.replace(/[ABD]/g, (letter) => ({ A: a, B: b, D: d })[letter] as string);
    return `${index === 0 ? 'default' : `case ${index}u`}: { value = ${value}; }`;
  });
  return `switch (u.formula) { ${cases.join('\n')} }`;
}

const vectorProgram = defineProgram({
  name: 'arithmeticVec4',
  uniforms: { count: 'u32', formula: 'u32', accumulate: 'u32' },
  bindings: { a: ['read', 'vec4f'], b: ['read', 'vec4f'], dy: ['read', 'vec4f'], y: ['write', 'vec4f'] },
  elementwise: ['a', 'b', 'dy', 'y'],
  code: () =>
    perElement(`
    var value = vec4f();
    ${formulaSwitch('a[i]', 'b[i]', 'dy[i]')}
    if (u.accumulate == 1u) { value += y[i]; }
    y[i] = value;`),
});

const stridedProgram = defineProgram({
  name: 'arithmeticStrided',
  uniforms: { count: 'u32', formula: 'u32', accumulate: 'u32', ...walkUniforms('a', 'b') },
  bindings: { a: 'read', b: 'read', dy: 'read', y: 'write' },
  code: () =>
    perElement(`
    ${walkWgsl(['a', 'b'])}
    var value = 0.0;
    ${formulaSwitch('a[aOffset]', 'b[bOffset]', 'dy[i]')}
    if (u.accumulate == 1u) { value += y[i]; }
    y[i] = value;`),
});

const sameShape = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((extent, dim) => extent === b[dim]);

/** The shape to which two shapes broadcast: aligned at the end, an extent of 1 stretches. Source: torch.broadcast_shapes. */
export function broadcastShapes(operator: string, a: readonly number[], b: readonly number[]): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, dim) => {
    const extentA = a[dim - rank + a.length] ?? 1;
    const extentB = b[dim - rank + b.length] ?? 1;
    if (extentA !== extentB && extentA !== 1 && extentB !== 1) {
      throw new Error(`${operator}: b: expected a shape that broadcasts with [${a}], got [${b}].`);
    }
    return extentA === 1 ? extentB : extentA;
  });
}

function broadcastStrides(shape: readonly number[], target: readonly number[]): number[] {
  const own = stridesOf(shape);
  const lead = target.length - shape.length;
  return target.map((_, dim) => (dim < lead || shape[dim - lead] === 1 ? 0 : own[dim - lead]));
}

/** y = formula(a, b, dy), or y += …, with a and b broadcast to y's shape and dy of it. */
function evaluate(formula: Formula, a: Tensor, b: Tensor, dy: Tensor | null, y: Tensor, accumulate: boolean): void {
  const { gpu } = y.device;
  const uniforms = { formula: formulaIndex(formula), accumulate: accumulate ? 1 : 0 };
  // A formula without dy never reads it, but something must be bound.
  const buffers = { a, b, dy: dy ?? a, y };
  if (sameShape(a.shape, y.shape) && sameShape(b.shape, y.shape) && y.size % 4 === 0) {
    const count = y.size / 4;
    gpu.dispatch(vectorProgram, { buffers, uniforms: { count, ...uniforms }, workgroups: workgroupsFor(count) });
    return;
  }
  const stridesA = broadcastStrides(a.shape, y.shape);
  const stridesB = broadcastStrides(b.shape, y.shape);
  const dimensions = y.shape.map((extent, dim) => ({ extent, strides: [stridesA[dim], stridesB[dim]] }));
  gpu.dispatch(stridedProgram, {
    buffers,
    uniforms: { count: y.size, ...uniforms, ...walkValues(formula, dimensions, 'a', 'b') },
    workgroups: workgroupsFor(y.size),
  });
}

type Operands = { a: Tensor; b: Tensor };

/** The gradient of one operand: `term` over the output's shape, summed where the operand was broadcast. */
function gradientOf(
  shape: readonly number[],
  term: Formula | 'dy',
  { a, b }: Operands,
  dy: Tensor,
  into?: Tensor,
): Tensor {
  const { device } = dy;
  const whole = sameShape(shape, dy.shape);
  if (term === 'dy') return whole ? dy.view(shape) : reduceToShape(dy, shape, { into });
  if (term === 'minus' && !whole) return reduceToShape(dy, shape, { into, scale: -1 });
  const terms = whole && into ? into : device.empty(dy.shape, dy.dtype);
  evaluate(term, a, b, dy, terms, whole && into !== undefined);
  if (whole) return terms;
  const gradient = reduceToShape(terms, shape, { into });
  terms.dispose();
  return gradient;
}

/** `a` may be changed where `b` must stay away from 0. */
function examplesOf(nonZeroB: boolean): Example<Operands, Record<string, never>>[] {
  const range: [number, number] = nonZeroB ? [0.5, 2] : [-1, 1];
  const shapes: [number[], number[]][] = [
    [
      [4, 3, 4],
      [4, 3, 4],
    ],
    [
      [5, 3],
      [5, 3],
    ],
    [
      [4, 5, 6],
      [5, 1],
    ],
    [
      [3, 1, 1],
      [2, 3, 4, 5],
    ],
    [[6], []],
    [
      [2, 1, 3, 1],
      [1, 4, 1, 2],
    ],
  ];
  return shapes.map(([a, b]) => ({ inputs: { a: { shape: a }, b: { shape: b, range } }, params: {} }));
}

function defineArithmetic(name: 'add' | 'sub' | 'mul' | 'div', termA: Formula | 'dy', termB: Formula | 'dy') {
  return defineOperator<Operands, Record<string, never>>({
    name,
    halves: ['a', 'b'],
    forward({ a, b }, _params, needs) {
      const y = a.device.empty(broadcastShapes(name, a.shape, b.shape), a.dtype);
      evaluate(name, a, b, null, y, false);
      const usesA = (needs.a && termA.includes('a')) || (needs.b && termB.includes('a'));
      const usesB = (needs.a && termA.includes('b')) || (needs.b && termB.includes('b'));
      return { output: y, saved: { a: usesA ? a : undefined, b: usesB ? b : undefined } };
    },
    backward: ({ shapes, saved, upstream }) => {
      // An operand that no term reads was not saved; the upstream gradient stands in for it in the bind group.
      const operands = { a: saved.a ?? upstream, b: saved.b ?? upstream };
      return {
        a: (into) => gradientOf(shapes.a, termA, operands, upstream, into),
        b: (into) => gradientOf(shapes.b, termB, operands, upstream, into),
      };
    },
    examples: examplesOf(name === 'div'),
  });
}

const addOperator = defineArithmetic('add', 'dy', 'dy');
const subOperator = defineArithmetic('sub', 'dy', 'minus');
const mulOperator = defineArithmetic('mul', 'dy·b', 'dy·a');
const divOperator = defineArithmetic('div', 'dy/b', '-dy·a/b²');

/** a + b; shapes broadcast as torch's do, gradients are summed back to each operand's shape. Source: torch.add. */
export function add(a: Tensor, b: Tensor): Tensor {
  return addOperator({ a, b }, {});
}

/** a - b, broadcast as `add`. Source: torch.sub. */
export function sub(a: Tensor, b: Tensor): Tensor {
  return subOperator({ a, b }, {});
}

/** a · b elementwise, broadcast as `add`. Source: torch.mul. */
export function mul(a: Tensor, b: Tensor): Tensor {
  return mulOperator({ a, b }, {});
}

/** a / b elementwise, broadcast as `add`; dividing by 0 gives what float32 gives. Source: torch.div. */
export function div(a: Tensor, b: Tensor): Tensor {
  return divOperator({ a, b }, {});
}
