/** Reading a folder of the goldens' format: `case.json` and `tensors.safetensors`, or `data.json` and `data.safetensors` (their README describes all). */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../cli/errors.ts';
import { type MaskRCNNConfig, parseConfig } from '../model/config.ts';
import { goldenPermutationKinds } from '../model/formulaWeights.ts';
import { openSafetensors, type SafetensorsFile } from '../model/safetensors.ts';
import { DATA_TENSORS, type DataValues, dataSchema } from './dataSchema.ts';
import type { HostTensor } from './rows.ts';

const count = z.int().min(0);

const operatorSchema = z.looseObject({
  index: count,
  op: z.string(),
  params: z.record(z.string(), z.unknown()),
  inputs: z.array(z.string()),
  grads: z.array(z.string()),
});

const opsSchema = z.looseObject({
  name: z.string().optional(),
  kind: z.literal('ops'),
  cases: z.array(operatorSchema),
});

const modelSchema = z.looseObject({
  name: z.string().optional(),
  kind: z.literal('model'),
  /** What belongs to the case and not to the model; the model's own options are checked by `parseConfig`. */
  config: z.looseObject({
    seed: z.int(),
    permutation: z.enum(goldenPermutationKinds),
    lr: z.number(),
    weightDecay: z.number(),
    lossNames: z.array(z.string()).min(1),
  }),
  images: z.int().min(1),
  steps: z.int().min(1),
  gradients: z.enum(['full', 'norm+max+sample']),
});

/** One operator with its parameters and the names of its inputs and of those that have an expected gradient. */
export type OperatorCase = z.output<typeof operatorSchema>;

/** The tensors of a case, read one at a time. */
export class GoldenTensors {
  readonly #file: SafetensorsFile;

  constructor(path: string) {
    this.#file = openSafetensors(path);
  }

  get path(): string {
    return this.#file.path;
  }

  /** @throws UserError naming the tensor and the file, when it is missing. */
  get(name: string): HostTensor {
    const data = this.#file.read(name);
    return { shape: this.#file.tensors.get(name)?.shape ?? [], data };
  }

  get names(): string[] {
    return [...this.#file.tensors.keys()];
  }

  has(name: string): boolean {
    return this.#file.tensors.has(name);
  }

  /** @throws UserError naming the first tensor that is missing. */
  require(names: Iterable<string>): void {
    for (const name of names) if (!this.has(name)) throw new UserError(`${this.path} has no tensor '${name}'.`);
  }

  close(): void {
    this.#file.close();
  }
}

export interface OpsGolden {
  kind: 'ops';
  name: string;
  cases: OperatorCase[];
  tensors: GoldenTensors;
}

export interface ModelGolden {
  kind: 'model';
  name: string;
  config: MaskRCNNConfig;
  /** Of the weights and the permutation. */
  seed: number;
  permutation: (typeof goldenPermutationKinds)[number];
  lr: number;
  weightDecay: number;
  /** Columns of `losses`. */
  lossNames: string[];
  images: number;
  steps: number;
  /** Whether whole gradients and inner stages are stored, or each gradient's norm, largest entry and samples. */
  full: boolean;
  tensors: GoldenTensors;
}

export interface DataGolden {
  kind: 'data';
  name: string;
  /** The `data.json`, for messages. */
  path: string;
  values: DataValues;
  /** What the folder holds beyond the format: not compared. */
  unknown: string[];
  tensors: GoldenTensors;
}

export type Golden = OpsGolden | ModelGolden | DataGolden;

/** The file that tells what a folder holds. */
function caseFile(folder: string): string | undefined {
  return ['case.json', 'data.json'].find((name) => existsSync(join(folder, name)));
}

/** The folders to run: `path` itself, or those inside it that hold a case. @throws UserError when there is none. */
export function goldenFolders(path: string): string[] {
  if (!existsSync(path)) throw new UserError(`There is no folder ${path}.`);
  if (!statSync(path).isDirectory())
    throw new UserError(`${path} is not a folder, expected one that holds case.json and tensors.safetensors.`);
  if (caseFile(path) !== undefined) return [path];
  const inside = readdirSync(path)
    .sort()
    .map((name) => join(path, name))
    .filter((folder) => caseFile(folder) !== undefined);
  if (inside.length === 0)
    throw new UserError(`${path} holds no golden case: expected case.json or data.json in it or in folders inside it.`);
  return inside;
}

function check<T>(schema: z.ZodType<T>, value: unknown, path: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const key = issue.path.map(String).join('.');
  const at = issue.path.reduce<unknown>(
    (inner, part) => (inner as Record<PropertyKey, unknown> | undefined)?.[part],
    value,
  );
  if (issue.code === 'invalid_type' && at === undefined && key !== '') {
    throw new UserError(`${path} lacks '${key}', expected ${issue.expected === 'record' ? 'object' : issue.expected}.`);
  }
  throw new UserError(`${path}: ${key || 'the case'}: ${issue.message}.`);
}

/** Reads JSON as Python writes it: NaN, which JSON has not, becomes null. */
function readJson(path: string): unknown {
  try {
    const text = readFileSync(path, 'utf8');
    return JSON.parse(text.replace(/"(?:[^"\\]|\\.)*"|\bNaN\b/g, (token) => (token === 'NaN' ? 'null' : token)));
  } catch (error) {
    throw new UserError(`${path} is not readable JSON (${error instanceof Error ? error.message : String(error)}).`);
  }
}

function openData(folder: string, path: string): DataGolden {
  const json = readJson(path);
  const values = check(dataSchema, json, path);
  const tensors = new GoldenTensors(join(folder, 'data.safetensors'));
  try {
    tensors.require(DATA_TENSORS);
  } catch (error) {
    tensors.close();
    throw error;
  }
  const unknown = [
    ...Object.keys(json as object).filter((key) => !Object.hasOwn(dataSchema.shape, key)),
    ...tensors.names.filter((name) => !DATA_TENSORS.includes(name)),
  ];
  return { kind: 'data', name: basename(folder), path, values, unknown, tensors };
}

/** Opens one case; close its tensors when done. @throws UserError, one sentence, when anything in it cannot be read. */
export function openGolden(folder: string): Golden {
  const path = join(folder, caseFile(folder) ?? 'case.json');
  if (basename(path) === 'data.json') return openData(folder, path);
  const json = readJson(path);
  const { kind } = check(z.looseObject({ kind: z.enum(['ops', 'model']) }), json, path);
  if (kind === 'ops') {
    const { name = basename(folder), cases } = check(opsSchema, json, path);
    return { kind, name, cases, tensors: new GoldenTensors(join(folder, 'tensors.safetensors')) };
  }
  const { name = basename(folder), config: given, images, steps, gradients } = check(modelSchema, json, path);
  const { seed, permutation, lr, weightDecay, lossNames, ...options } = given;
  const config = parseConfig(options, path);
  return {
    ...{ kind, name, config, seed, permutation, lr, weightDecay, lossNames, images, steps },
    full: gradients === 'full',
    tensors: new GoldenTensors(join(folder, 'tensors.safetensors')),
  };
}
