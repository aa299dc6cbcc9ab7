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

/** WGSL that sets `<name>Offset` of each operand for step `i` of the walk. */
export function walkWgsl(...operands: string[]): string {
  const lines = ['var rest = i;', 'var at = 0u;', ...operands.map((name) => `var ${name}Offset = 0u;`)];
  for (const dim of [...DIMENSIONS].reverse()) {
    lines.push(dim === 0 ? 'at = rest;' : `at = rest % u.extent${dim}; rest /= u.extent${dim};`);
    for (const name of operands) lines.push(`${name}Offset += at * u.${name}Stride${dim};`);
  }
  return lines.join('\n');
}

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
  bindings: { x: ['read', 'u32'], y: ['write', 'u32'] },
  code: () =>
    perElement(`
    ${walkWgsl('x', 'y')}
    xOffset += u.xStart;
    yOffset += u.yStart;
    var bits = x[xOffset];
    if (u.scaled == 1u) {
      var value = u.scale * bitcast<f32>(bits);
      if (u.accumulate == 1u) { value += bitcast<f32>(y[yOffset]); }
      bits = bitcast<u32>(value);
    }
    y[yOffset] = bits;`),
});

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
  const count = sizeOf(extents);
  if (count === 0) return;
  const dimensions = extents.map((extent, dim) => ({ extent, strides: [from.strides[dim], to.strides[dim]] }));
  to.tensor.device.gpu.dispatch(program, {
    buffers: { x: from.tensor, y: to.tensor },
    uniforms: {
      count,
      xStart: from.start ?? 0,
      yStart: to.start ?? 0,
      scaled: scale !== 1 || accumulate ? 1 : 0,
      accumulate: accumulate ? 1 : 0,
      scale,
      ...walkValues(operator, dimensions, 'x', 'y'),
    },
    workgroups: workgroupsFor(count),
  });
}
