import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { sizeOf, type Tensor } from '../tensor/tensor.ts';

/*
 * Walking several arrays of different strides together. A step along a dimension moves each operand by its own stride; a
 * stride of 0 repeats the element (broadcasting). Dimensions that all operands walk alike are merged first, so a program
 * for six dimensions serves nearly everything.
 */
type Dimension = 0 | 1 | 2 | 3 | 4 | 5;
const DIMENSIONS: readonly Dimension[] = [0, 1, 2, 3, 4, 5];
type WalkUniform<N extends string> = `extent${Dimension}` | `${N}Stride${Dimension}`;

/** One dimension of a walk: how many steps, and how far a step moves each operand. */
export interface WalkDimension {
  extent: number;
  strides: readonly number[];
}

/** Row-major strides of a shape. */
export function stridesOf(shape: readonly number[]): number[] {
  return shape.map((_, dim) => sizeOf(shape.slice(dim + 1)));
}

/** Index of a possibly negative dimension (-1 is the last), checked. */
export function normalizeDim(operator: string, dim: number, rank: number): number {
  const index = dim < 0 ? dim + rank : dim;
  if (!Number.isInteger(dim) || index < 0 || index >= rank) {
    throw new Error(`${operator}: dim: expected a dimension of a tensor of rank ${rank}, got ${dim}.`);
  }
  return index;
}

/** Drops dimensions of one step and merges neighbours that every operand walks as one. */
export function mergeDimensions(dimensions: readonly WalkDimension[]): WalkDimension[] {
  const merged: WalkDimension[] = [];
  for (const next of dimensions) {
    if (next.extent === 1) continue;
    const last = merged.at(-1);
    if (last?.strides.every((stride, operand) => stride === next.strides[operand] * next.extent)) {
      merged[merged.length - 1] = { extent: last.extent * next.extent, strides: next.strides };
    } else {
      merged.push(next);
    }
  }
  return merged;
}

/** Declares the uniforms of a walk of the named operands. */
export function walkUniforms<const N extends string>(...operands: N[]): Record<WalkUniform<N>, 'u32'> {
  const names = operands.flatMap((name) => DIMENSIONS.map((dim) => `${name}Stride${dim}`));
  return Object.fromEntries(
    [...DIMENSIONS.map((dim) => `extent${dim}`), ...names].map((name) => [name, 'u32']),
  ) as Record<WalkUniform<N>, 'u32'>;
}

/** Values of the uniforms of a walk; its dimensions are merged, and more than six that remain are refused. */
export function walkValues<const N extends string>(
  operator: string,
  dimensions: readonly WalkDimension[],
  ...operands: N[]
): Record<WalkUniform<N>, number> {
  const merged = mergeDimensions(dimensions);
  if (merged.length > DIMENSIONS.length) {
    throw new Error(
      `${operator}: at most ${DIMENSIONS.length} dimensions that do not merge are supported, got ${merged.length}.`,
    );
  }
  const values: Record<string, number> = {};
  const missing = DIMENSIONS.length - merged.length;
  for (const dim of DIMENSIONS) {
    const dimension = dim < missing ? null : merged[dim - missing];
    values[`extent${dim}`] = dimension?.extent ?? 1;
    operands.forEach((name, operand) => {
      values[`${name}Stride${dim}`] = dimension?.strides[operand] ?? 0;
    });
  }
  return values as Record<WalkUniform<N>, number>;
}

/** WGSL that sets `<name>Offset` of each operand for step `i` of a walk of which the last `count` dimensions have several steps. */
export function walkWgsl(operands: readonly string[], count: number = DIMENSIONS.length): string {
  const lines = ['var rest = i;', 'var at = 0u;', ...operands.map((name) => `var ${name}Offset = 0u;`)];
  const dimensions = DIMENSIONS.slice(-count);
  for (const dim of [...dimensions].reverse()) {
    lines.push(dim === dimensions[0] ? 'at = rest;' : `at = rest % u.extent${dim}; rest /= u.extent${dim};`);
    for (const name of operands) lines.push(`${name}Offset += at * u.${name}Stride${dim};`);
  }
  return lines.join('\n');
}

type CopyFlags = {
  /** Elements that one invocation moves: four where both sides hold them side by side and begin aligned. */
  width: 1 | 4;
  /** Runs of elements, as in `cat`, take one division; integer divisions are what a walk costs. */
  dimensions: 2 | 6;
};

// Bits are copied as they are unless there is arithmetic to do, so one pipeline serves floats and integers.
const program = defineProgram({
  name: 'stridedCopy',
  uniforms: {
    count: 'u32',
    xStart: 'u32',
    yStart: 'u32',
    scaled: 'u32',
    accumulate: 'u32',
    scale: 'f32',
    ...walkUniforms('x', 'y'),
  },
  bindings: ({ width }: CopyFlags) => {
    const bits = width === 4 ? 'vec4u' : 'u32';
    return { x: ['read', bits], y: ['write', bits] } as const;
  },
  code: ({ width, dimensions }) => {
    const [floats, bits] = width === 4 ? ['vec4f', 'vec4u'] : ['f32', 'u32'];
    return perElement(`
    ${walkWgsl(['x', 'y'], dimensions)}
    xOffset += u.xStart;
    yOffset += u.yStart;
    var bits = x[xOffset];
    if (u.scaled == 1u) {
      var value = u.scale * bitcast<${floats}>(bits);
      if (u.accumulate == 1u) { value += bitcast<${floats}>(y[yOffset]); }
      bits = bitcast<${bits}>(value);
    }
    y[yOffset] = bits;`);
  },
});

/** The same walk by vectors of four elements, where every operand has them side by side and begins each run aligned; else null. */
function byVectors(dimensions: readonly WalkDimension[], starts: readonly number[]): WalkDimension[] | null {
  const merged = mergeDimensions(dimensions);
  const last = merged.pop();
  const whole = (value: number) => value % 4 === 0;
  const fits =
    last?.strides.every((stride) => stride === 1) &&
    [last.extent, ...starts, ...merged.flatMap(({ strides }) => strides)].every(whole);
  if (!last || !fits) return null;
  const outer = merged.map(({ extent, strides }) => ({ extent, strides: strides.map((stride) => stride / 4) }));
  return [...outer, { extent: last.extent / 4, strides: last.strides }];
}

/** Where one side of a strided copy begins and how far each dimension moves it, in elements. */
export interface StridedSide {
  tensor: Tensor;
  start?: number;
  strides: readonly number[];
}

/**
 * to[…] = scale · from[…], or to[…] += scale · from[…], over a box of `extents`; either side may be strided. Elements of `to`
 * must be distinct. Without scale and accumulate it copies bits of any 4-byte type.
 */
export function stridedCopy(
  operator: string,
  extents: readonly number[],
  from: StridedSide,
  to: StridedSide,
  { scale = 1, accumulate = false }: { scale?: number; accumulate?: boolean } = {},
): void {
  if (sizeOf(extents) === 0) return;
  const elements = extents.map((extent, dim) => ({ extent, strides: [from.strides[dim], to.strides[dim]] }));
  const starts = [from.start ?? 0, to.start ?? 0];
  const vectors = byVectors(elements, starts);
  const width = vectors ? 4 : 1;
  const walk = mergeDimensions(vectors ?? elements);
  const count = sizeOf(extents) / width;
  to.tensor.device.gpu.dispatch(program, {
    flags: { width, dimensions: walk.length <= 2 ? 2 : 6 },
    buffers: { x: from.tensor, y: to.tensor },
    uniforms: {
      count,
      xStart: starts[0] / width,
      yStart: starts[1] / width,
      scaled: scale !== 1 || accumulate ? 1 : 0,
      accumulate: accumulate ? 1 : 0,
      scale,
      ...walkValues(operator, walk, 'x', 'y'),
    },
    workgroups: workgroupsFor(count),
  });
}
