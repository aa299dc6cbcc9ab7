import { edgeTo, type GradientThunk } from './autograd.ts';
import type { DType, Tensor } from './tensor.ts';

export type Inputs = Record<string, Tensor | undefined>;
/** Static arguments of an operator: numbers, flags, lists. */
export type Params = Record<string, unknown>;

/** How a gradient check makes one input. Values come from a seeded generator, so they are the same in every run. */
export interface InputSample {
  shape: readonly number[];
  dtype?: DType;
  /** Explicit values; else uniform in `range` (default -1 … 1; for i32 whole numbers from lo to hi - 1). */
  values?: readonly number[];
  range?: readonly [number, number];
  /** False: its gradient is not checked (labels, boxes, constants). Integers never are. */
  differentiable?: boolean;
}

/** One case that the gradient check and the tests run. */
export interface Example<I extends Inputs, P extends Params> {
  inputs: { [K in keyof I]: InputSample | (undefined extends I[K] ? undefined : never) };
  params: P;
}

export type Needs<I extends Inputs> = { readonly [K in keyof I]: boolean };

export interface BackwardContext<I extends Inputs, P extends Params> {
  params: P;
  /** Shapes of the inputs that were given. */
  shapes: { [K in keyof I]: readonly number[] };
  /** Their types, which are those of their gradients. */
  dtypes: { [K in keyof I]: DType };
  /** What `forward` saved, by name. */
  saved: Record<string, Tensor>;
  /** The loss's gradient by the output; same shape as the output. */
  upstream: Tensor;
  /** Inputs whose gradient will be asked for. */
  needs: Needs<I>;
  /** Gradients that are there already and may be added to: what the thunks are given, known beforehand to those who compute several at once. */
  into: { readonly [K in keyof I]?: Tensor };
}

/**
 * One operator: its kernels, its backward rule and the cases on which its gradient is checked, in one place.
 *
 * `forward` checks shapes, allocates the output and dispatches. `saved` names the tensors the rule will need (inputs,
 * output or helpers); `needs` tells which inputs want a gradient, so nothing is saved or computed for nothing.
 * `backward` returns a thunk per input that has a gradient; inputs without one (labels, boxes) are left out.
 */
export interface OperatorDefinition<I extends Inputs, P extends Params> {
  name: string;
  /**
   * Inputs (or `all`) that may be given as `f16`, all of them together; the output and their gradients are then `f16` too. Others, and all where
   * this is left out, are refused. Parameters stay `f32`, and so do their gradients.
   */
  halves?: readonly (keyof I & string)[] | 'all';
  forward(inputs: I, params: P, needs: Needs<I>): { output: Tensor; saved?: Record<string, Tensor | undefined> };
  backward?(context: BackwardContext<I, P>): { [K in keyof I]?: GradientThunk };
  /** Every differentiable operator gives at least one. */
  examples?: Example<I, P>[];
}

export interface Operator<I extends Inputs, P extends Params> {
  (inputs: I, params: P): Tensor;
  readonly definition: OperatorDefinition<I, P>;
}

const registry = new Map<string, Operator<Inputs, Params>>();

/** Every operator defined so far, by name. */
export function registeredOperators(): ReadonlyMap<string, Operator<Inputs, Params>> {
  return registry;
}

/** Registers an operator and returns the function that applies it and records it on the tape. */
export function defineOperator<I extends Inputs, P extends Params>(
  definition: OperatorDefinition<I, P>,
): Operator<I, P> {
  const apply = (inputs: I, params: P): Tensor => {
    const given = Object.entries(inputs).filter((entry): entry is [string, Tensor] => entry[1] !== undefined);
    if (given.length === 0) throw new Error(`${definition.name}: no input was given.`);
    const device = given[0][1].device;
    const halves = definition.halves === 'all' ? given.map(([name]) => name) : (definition.halves ?? []);
    checkHalves(definition.name, given, halves);
    const needs = {} as Record<keyof I, boolean>;
    for (const [name, tensor] of given) needs[name as keyof I] = device.gradEnabled && tensor.requiresGrad;
    const edges = given.filter(([name]) => needs[name as keyof I]);
    const { output, saved = {} } = definition.forward(inputs, params, needs);
    if (edges.length === 0) return output;
    const shapes = {} as { [K in keyof I]: readonly number[] };
    const dtypes = {} as { [K in keyof I]: DType };
    for (const [name, tensor] of given) {
      shapes[name as keyof I] = tensor.shape;
      dtypes[name as keyof I] = tensor.dtype;
    }
    const kept: Record<string, Tensor> = {};
    for (const [name, tensor] of Object.entries(saved)) if (tensor) kept[name] = tensor.view(tensor.shape);
    const node = device.record({
      operator: definition.name,
      edges: edges.map(([input, tensor]) => edgeTo(input, tensor)),
      saved: kept,
      backward: (upstream, into) => {
        if (!definition.backward) throw new Error(`${definition.name} has no backward rule.`);
        return definition.backward({
          params,
          shapes,
          dtypes,
          saved: kept,
          upstream,
          needs,
          into: into as { [K in keyof I]?: Tensor },
        });
      },
    });
    output.requiresGrad = true;
    output.node = node;
    return output;
  };
  const operator = Object.assign(apply, { definition }) as Operator<I, P>;
  if (registry.has(definition.name)) throw new Error(`The operator ${definition.name} is defined twice.`);
  registry.set(definition.name, operator as unknown as Operator<Inputs, Params>);
  return operator;
}

function checkHalves(name: string, given: readonly [string, Tensor][], halves: readonly string[]): void {
  if (!given.some(([, { dtype }]) => dtype === 'f16')) return;
  for (const [input, tensor] of given) {
    const expected = halves.includes(input) ? 'f16' : tensor.dtype === 'f16' ? 'f32' : tensor.dtype;
    if (tensor.dtype !== expected)
      throw new Error(
        `${name}: ${input}: expected ${expected}${halves.includes(input) ? ' as the other maps' : ''}, got ${tensor}.`,
      );
  }
}

/** Throws `operator: argument: expected …, got …` unless `holds`. */
export function expectShape(
  holds: boolean,
  operator: string,
  argument: string,
  expected: string,
  got: Tensor | readonly number[],
): void {
  if (!holds)
    throw new Error(`${operator}: ${argument}: expected ${expected}, got ${Array.isArray(got) ? `[${got}]` : got}.`);
}
