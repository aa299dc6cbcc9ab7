/** Brings a file's tensors and a model's entries together: old names, bare ResNets, other classes; all else that differs is told. */
import { UserError } from '../../cli/errors.ts';
import { isFloating } from '../dtypes.ts';
import type { StateDict, StateSource } from '../stateDict.ts';
import { BODY, currentName, isBareResNet, isBatchCounter, wrapperPrefix } from './names.ts';
import type { TensorInfo } from './weightsFile.ts';

/** What matching and loading need of a file. */
export interface NamedTensors {
  readonly path: string;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
}

/** A file whose values can be read. */
export interface ReadableTensors extends NamedTensors {
  readFloat32(name: string): Float32Array<ArrayBuffer> | Promise<Float32Array<ArrayBuffer>>;
}

export interface MatchOptions {
  /**
   * `whole`: the file must have all of the model, as to predict. `start`: as to train from it; a ResNet alone and other classes will
   * do, and what the file does not give keeps its initial values.
   */
  purpose: 'whole' | 'start';
}

export interface Match {
  /** The file's name of each entry that it gives, by the entry's name. */
  names: Map<string, string>;
  /** Sentences for the user: what was left out and what starts anew. */
  notes: string[];
}

/** The predictors, whose size depends on the classes. */
const PREDICTORS = ['roi_heads.box_predictor.', 'roi_heads.mask_predictor.'];
const SCORES = 'roi_heads.box_predictor.cls_score.weight';
/** Rows of each predictor's entries per class. */
const ROWS_PER_CLASS: readonly [RegExp, number][] = [
  [/box_predictor\.cls_score\.(weight|bias)$/, 1],
  [/box_predictor\.bbox_pred\.(weight|bias)$/, 4],
  [/mask_predictor\.mask_fcn_logits\.(weight|bias)$/, 1],
];

const isPredictor = (name: string): boolean => PREDICTORS.some((prefix) => name.startsWith(prefix));

/** Names with equal text behind them are told together: `layer1.0.bn1.{weight, bias} [64]`. */
export function listed(items: readonly { name: string; text: string }[]): string {
  const groups: { module: string; text: string; leaves: string[] }[] = [];
  for (const { name, text } of items) {
    const cut = name.lastIndexOf('.') + 1;
    const module = name.slice(0, cut);
    const leaf = name.slice(cut);
    const last = groups.at(-1);
    if (last && last.module === module && last.text === text) last.leaves.push(leaf);
    else groups.push({ module, text, leaves: [leaf] });
  }
  return groups
    .map(({ module, text, leaves }) => {
      const name = leaves.length === 1 ? leaves[0] : `{${leaves.join(', ')}}`;
      return `${module}${name}${text}`;
    })
    .join(', ');
}

/** The file's tensors under today's names for the whole model; the values are the file's own names. */
export function modelNames({ tensors }: Pick<NamedTensors, 'tensors'>): {
  names: Map<string, string>;
  bare: boolean;
  leftOut: string[];
} {
  const own = [...tensors.keys()].filter((name) => !isBatchCounter(name));
  const prefix = wrapperPrefix(own);
  const plain = new Map(own.map((name) => [name.slice(prefix.length), name]));
  const bare = isBareResNet(new Set(plain.keys()));
  const leftOut: string[] = [];
  const names = new Map<string, string>();
  for (const [name, stored] of plain) {
    if (bare && name.startsWith('fc.')) leftOut.push(stored);
    else names.set(bare ? BODY + name : name, stored);
  }
  return { names, bare, leftOut };
}

const sameShape = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((side, axis) => side === b[axis]);

/** `shape` as it would be with another number of classes. */
function withClasses(name: string, shape: readonly number[], classes: number): readonly number[] {
  const rows = ROWS_PER_CLASS.find(([pattern]) => pattern.test(name))?.[1];
  return rows === undefined ? shape : [rows * classes, ...shape.slice(1)];
}

/**
 * Finds each of the model's entries in the file. An entry that the file has under its own name is taken as it is; else either's
 * older name will do, whatever generation the model's names are of.
 * @throws UserError that lists all names and shapes that differ
 */
export function matchWeights(file: NamedTensors, state: StateDict, { purpose }: MatchOptions): Match {
  const { names: given, bare, leftOut } = modelNames(file);
  const shapeOf = (stored: string): readonly number[] => file.tensors.get(stored)!.shape;
  const byCurrent = new Map([...given].map(([name, stored]) => [currentName(name), stored]));
  const unused = new Set(given.values());
  const names = new Map<string, string>();
  for (const { name } of state.entries.values()) {
    const stored = given.get(name) ?? byCurrent.get(currentName(name));
    if (stored === undefined) continue;
    names.set(name, stored);
    unused.delete(stored);
  }

  const notes: string[] = [];
  const entries = [...state.entries.values()];
  // Other classes: the shapes must be those of the same predictors for the file's number of classes.
  const scores = names.get(SCORES);
  const fileClasses = scores === undefined ? undefined : shapeOf(scores)[0];
  const classes = state.entries.get(SCORES)?.shape[0];
  const otherClasses =
    purpose === 'start' && fileClasses !== undefined && classes !== undefined && fileClasses !== classes;

  const missing: { name: string; text: string }[] = [];
  const different: { name: string; text: string }[] = [];
  for (const { name, shape } of entries) {
    const stored = names.get(name);
    if (stored === undefined) {
      if (!(bare && purpose === 'start' && !name.startsWith(BODY))) missing.push({ name, text: ` [${shape}]` });
      continue;
    }
    const info = file.tensors.get(stored)!;
    const expected = otherClasses && isPredictor(name) ? withClasses(name, shape, fileClasses) : shape;
    if (!isFloating(info.dtype)) different.push({ name, text: ` of ${info.dtype} instead of floating-point values` });
    else if (!sameShape(info.shape, expected)) different.push({ name, text: ` [${info.shape}] instead of [${shape}]` });
  }
  const unknown = [...unused].map((name) => ({ name, text: ` [${shapeOf(name)}]` }));
  const faults = [
    ...(missing.length > 0 ? [`it lacks ${listed(missing)}`] : []),
    ...(different.length > 0 ? [`it has ${listed(different)}`] : []),
    ...(unknown.length > 0 ? [`the model does not have its ${listed(unknown)}`] : []),
  ];
  if (faults.length > 0) throw new UserError(`${file.path} does not fit the model: ${faults.join('; ')}.`);

  if (bare) {
    const out = leftOut.length > 0 ? `, ${listed(leftOut.map((name) => ({ name, text: '' })))} left out` : '';
    notes.push(
      `${file.path} holds a ResNet alone: it goes into ${BODY.slice(0, -1)}${out}; all else starts from initial values.`,
    );
  }
  if (otherClasses) {
    const anew = entries.filter(({ name }) => isPredictor(name));
    for (const { name } of anew) names.delete(name);
    const list = listed(anew.map(({ name }) => ({ name, text: '' })));
    notes.push(
      `${file.path} has ${fileClasses} classes, the model ${classes} (with the background): the predictors start from initial values: ${list}.`,
    );
  }
  return { names, notes };
}

/** The values of a matched file for `StateDict.allocate` and `load`, one entry at a time. */
export function matchedSource(file: ReadableTensors, { names }: Match): StateSource {
  const values = async (name: string) => {
    const stored = names.get(name);
    if (stored === undefined) return undefined;
    return { shape: file.tensors.get(stored)!.shape, data: await file.readFloat32(stored) };
  };
  return Object.assign(values, { has: (name: string) => names.has(name) });
}
