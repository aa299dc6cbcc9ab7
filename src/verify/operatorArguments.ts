import { UserError } from '../cli/errors.ts';
import type { Device } from '../tensor/device.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { OperatorCase } from './golden.ts';
import type { HostTensor } from './rows.ts';

/** The inputs, on the device and in its layout, and the parameters of one operator case; what is asked for is checked. */
export class OperatorArguments {
  readonly device: Device;
  readonly #case: OperatorCase;
  readonly #tensors: ReadonlyMap<string, Tensor>;
  readonly #host: ReadonlyMap<string, HostTensor>;

  constructor(
    device: Device,
    given: OperatorCase,
    tensors: ReadonlyMap<string, Tensor>,
    host: ReadonlyMap<string, HostTensor>,
  ) {
    this.device = device;
    this.#case = given;
    this.#tensors = tensors;
    this.#host = host;
  }

  #error(what: string): UserError {
    return new UserError(`Golden case ${this.#case.index} (${this.#case.op}): ${what}.`);
  }

  /** All inputs in the order of the case. */
  all(): Tensor[] {
    return this.#case.inputs.map((name) => this.tensor(name));
  }

  /** Inputs `prefix0`, `prefix1`, … as many as there are. */
  series(prefix: string): Tensor[] {
    const found: Tensor[] = [];
    for (let tensor = this.optional(`${prefix}0`); tensor; tensor = this.optional(`${prefix}${found.length}`))
      found.push(tensor);
    if (found.length === 0) throw this.#error(`expected an input '${prefix}0'`);
    return found;
  }

  optional(name: string): Tensor | undefined {
    return this.#tensors.get(name);
  }

  tensor(name: string): Tensor {
    const tensor = this.optional(name);
    if (!tensor) throw this.#error(`expected an input '${name}'`);
    return tensor;
  }

  /** An input's values in torch's layout. */
  host(name: string): HostTensor {
    const tensor = this.#host.get(name);
    if (!tensor) throw this.#error(`expected an input '${name}'`);
    return tensor;
  }

  number(name: string, fallback?: number): number {
    const value = this.#case.params[name] ?? fallback;
    if (typeof value !== 'number') throw this.#error(`parameter '${name}' must be a number, got ${shown(value)}`);
    return value;
  }

  /** true, false, 1 or 0. */
  flag(name: string, fallback = false): boolean {
    const value = this.#case.params[name] ?? fallback;
    if (value !== true && value !== false && value !== 0 && value !== 1)
      throw this.#error(`parameter '${name}' must be true or false, got ${shown(value)}`);
    return Boolean(value);
  }

  /** For what is not computed here. @throws UserError when the parameter has that value */
  refuse(name: string, value: unknown): void {
    if (this.#case.params[name] === value)
      throw this.#error(`parameter '${name}' must not be ${shown(value)}, which is not supported`);
  }

  text<const T extends string>(name: string, choices: readonly T[], fallback: NoInfer<T>): T {
    const value = this.#case.params[name] ?? fallback;
    const found = choices.find((choice) => choice === value);
    if (found === undefined)
      throw this.#error(`parameter '${name}' must be one of ${choices.join(', ')}, got ${shown(value)}`);
    return found;
  }

  numbers(name: string, length?: number): number[] {
    const value = this.#case.params[name];
    if (
      !Array.isArray(value) ||
      !value.every((item) => typeof item === 'number') ||
      (length ?? value.length) !== value.length
    )
      throw this.#error(`parameter '${name}' must be ${length ?? 'an array of'} numbers, got ${shown(value)}`);
    return value;
  }

  pair(name: string): [number, number] {
    const [first, second] = this.numbers(name, 2);
    return [first, second];
  }

  /** One dimension, several, or undefined for all. */
  dims(name: string): number | number[] | undefined {
    const value = this.#case.params[name];
    if (value === undefined || value === null) return undefined;
    return typeof value === 'number' ? value : this.numbers(name);
  }

  /** [[height, width], …] */
  pairs(name: string): [number, number][] {
    const value = this.#case.params[name];
    if (!Array.isArray(value) || value.length === 0)
      throw this.#error(`parameter '${name}' must be an array of pairs, got ${shown(value)}`);
    return value.map((pair: unknown) => {
      if (!Array.isArray(pair) || pair.length !== 2 || !pair.every((item) => typeof item === 'number'))
        throw this.#error(`parameter '${name}' must be an array of pairs, got ${shown(value)}`);
      return [pair[0], pair[1]];
    });
  }
}

function shown(value: unknown): string {
  return JSON.stringify(value) ?? 'nothing';
}
