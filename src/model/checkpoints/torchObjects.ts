/**
 * What a torch.save pickle may name: the rebuilding of tensors and parameters (torch/_utils.py), the storages' types
 * (torch/storage.py), OrderedDict and plain containers. A rebuilt tensor is a description: its values stay in the file until they
 * are asked for.
 */
import { UserError } from '../../cli/errors.ts';
import { type Dtype, elementCount } from '../dtypes.ts';
import { type PickledDict, type PickledGlobal, type PickleHooks, unpickle } from './pickle.ts';

/** A run of elements in the file, shared by the tensors that view it. */
export interface StorageRef {
  /** The file's name for the run that holds it. */
  key: string;
  dtype: Dtype;
  /** Elements in the whole run. */
  elements: number;
  /** Where this storage begins in the run, elements; not 0 only for the views of very old legacy files. */
  first: number;
}

/** A tensor's place in its storage. Element [i, j, …] is at `offset + i * strides[0] + j * strides[1] + …`. */
export class StoredTensor {
  readonly storage: StorageRef;
  readonly shape: readonly number[];
  /** Elements from the storage's run on, `first` included. */
  readonly offset: number;
  readonly strides: readonly number[];

  constructor(storage: StorageRef, offset: number, shape: readonly number[], strides: readonly number[]) {
    this.storage = storage;
    this.offset = storage.first + offset;
    this.shape = shape;
    this.strides = strides;
  }

  get dtype(): Dtype {
    return this.storage.dtype;
  }

  get elements(): number {
    return elementCount(this.shape);
  }

  /** Elements from the first to the last that it uses. */
  get span(): number {
    if (this.elements === 0) return 0;
    return 1 + this.shape.reduce((sum, side, axis) => sum + (side - 1) * this.strides[axis], 0);
  }

  /** Whether its elements lie one after another in row-major order. */
  get contiguous(): boolean {
    let expected = 1;
    for (let axis = this.shape.length - 1; axis >= 0; axis--) {
      if (this.shape[axis] !== 1 && this.strides[axis] !== expected) return false;
      expected *= this.shape[axis];
    }
    return true;
  }
}

const storageDtypes: Readonly<Record<string, Dtype>> = {
  FloatStorage: 'F32',
  DoubleStorage: 'F64',
  HalfStorage: 'F16',
  BFloat16Storage: 'BF16',
  LongStorage: 'I64',
  IntStorage: 'I32',
  ShortStorage: 'I16',
  CharStorage: 'I8',
  ByteStorage: 'U8',
  BoolStorage: 'BOOL',
};

/** A name of the file for a message: printable and short. */
export function shown(text: string): string {
  const printable = text.replace(/[^\x20-\x7e]/g, '?');
  return printable.length > 120 ? `${printable.slice(0, 117)}...` : printable;
}

const isCount = (value: unknown): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
const isCounts = (value: unknown): value is number[] => Array.isArray(value) && value.every(isCount);

/** More than any tensor of a network has; torch itself allows 64. */
const MAX_AXES = 64;

/** The names that `where` may use. */
class TorchObjects implements PickleHooks {
  /** Every storage that was referred to, by its key. */
  readonly storages = new Map<string, StorageRef>();
  readonly #where: string;
  readonly #known: Map<string, PickledGlobal>;

  constructor(where: string) {
    this.#where = where;
    const known: [string, PickledGlobal['call']?][] = [
      ['collections.OrderedDict', (args) => this.#orderedDict(args)],
      ['torch._utils._rebuild_tensor_v2', (args) => this.#tensor(args)],
      ['torch._utils._rebuild_tensor', (args) => this.#tensor(args)],
      ['torch._utils._rebuild_parameter', (args) => this.#parameter(args)],
      ['torch._utils._rebuild_parameter_with_state', (args) => this.#parameter(args)],
      ['torch.Size', (args) => args[0]],
      ['builtins.set', (args) => args[0] ?? []],
      ['__builtin__.set', (args) => args[0] ?? []],
      ...Object.keys(storageDtypes).map((name): [string] => [`torch.${name}`]),
    ];
    this.#known = new Map(known.map(([name, call]) => [name, { name, call }]));
  }

  global(module: string, name: string): PickledGlobal {
    const full = `${module}.${name}`;
    const found = this.#known.get(full);
    if (found) return found;
    if (/^torch\.\w+Storage$/.test(full)) {
      throw new UserError(`${this.#where} holds tensors of ${shown(full)}, a type of number that weights do not have.`);
    }
    throw new UserError(
      `${this.#where}: its pickle names ${shown(full)}, but only tensors, OrderedDict and plain containers are read and nothing is run; save the weights alone, by torch.save(model.state_dict(), FILE).`,
    );
  }

  /** `('storage', type, key, location, elements[, view])`, as torch/serialization.py's `persistent_id` has it. */
  persistent(id: unknown): StorageRef {
    if (!Array.isArray(id) || id[0] !== 'storage' || id.length < 5) {
      throw this.#damaged('refers to something else than a storage');
    }
    const [, type, key, , elements, view] = id as unknown[];
    const name = typeof type === 'object' && type !== null && 'name' in type ? String(type.name) : '';
    const dtype = storageDtypes[name.replace('torch.', '')];
    if (!dtype || typeof key !== 'string' || !isCount(elements)) throw this.#damaged('describes a storage wrongly');
    const before = this.storages.get(key);
    if (before && (before.dtype !== dtype || before.elements !== elements)) {
      throw this.#damaged(`describes its storage ${shown(key)} in two ways`);
    }
    const ref = before ?? { key, dtype, elements, first: 0 };
    this.storages.set(key, ref);
    if (view === undefined || view === null) return ref;
    // (key of the view, offset, elements)
    if (!Array.isArray(view) || !isCount(view[1])) throw this.#damaged('describes the view of a storage wrongly');
    return { ...ref, first: view[1] };
  }

  #damaged(what: string): UserError {
    return new UserError(`${this.#where} is damaged: its pickle ${what}.`);
  }

  #orderedDict(args: readonly unknown[]): PickledDict {
    const dict: PickledDict = new Map();
    // Python 2 gave the items as a list of pairs.
    for (const pair of Array.isArray(args[0]) ? args[0] : []) {
      if (!Array.isArray(pair) || pair.length !== 2) throw this.#damaged('makes an OrderedDict of what are no pairs');
      dict.set(pair[0], pair[1]);
    }
    return dict;
  }

  /** `_rebuild_tensor_v2(storage, storage_offset, size, stride, requires_grad, backward_hooks)`; v1 has the first four. */
  #tensor(args: readonly unknown[]): StoredTensor {
    const [storage, offset, shape, strides] = args;
    if (typeof storage !== 'object' || storage === null || !('dtype' in storage) || !('first' in storage)) {
      throw this.#damaged('rebuilds a tensor of what is no storage');
    }
    if (!isCount(offset) || !isCounts(shape) || !isCounts(strides) || shape.length !== strides.length) {
      throw this.#damaged('rebuilds a tensor whose shape and strides are not whole numbers');
    }
    if (shape.length > MAX_AXES) throw this.#damaged(`rebuilds a tensor of ${shape.length} dimensions`);
    const tensor = new StoredTensor(storage as StorageRef, offset, shape, strides);
    const { elements } = tensor.storage;
    if (!Number.isSafeInteger(tensor.elements) || !(tensor.offset + tensor.span <= elements)) {
      throw this.#damaged(`rebuilds a tensor [${shape}] that reaches beyond its storage of ${elements} elements`);
    }
    return tensor;
  }

  #parameter([data]: readonly unknown[]): StoredTensor {
    if (!(data instanceof StoredTensor)) throw this.#damaged('makes a parameter of what is no tensor');
    return data;
  }
}

/** Values of a pickle: a multiple of what weights need, but bounded by the file, as each takes memory. */
const maxValues = (fileSize: number): number => 50_000 + fileSize / 32;

/**
 * Reads one of torch.save's pickles.
 * @param fileSize of the whole file
 * @returns its value, the storages that it refers to by their keys, and the first byte behind it
 * @throws PickleEnds where `bytes` end first, UserError naming `where` and what is refused or wrong
 */
export function unpickleTorch(
  bytes: Uint8Array,
  start: number,
  where: string,
  fileSize: number,
): { value: unknown; storages: Map<string, StorageRef>; end: number } {
  const objects = new TorchObjects(where);
  const { value, end } = unpickle(bytes, start, objects, { where, maxValues: maxValues(fileSize) });
  return { value, storages: objects.storages, end };
}

/** Where training scripts keep the state_dict among other things. */
const STATE_DICT_KEYS = ['model', 'state_dict', 'model_state_dict'];
/** Checkpoints are not nested deeper. */
const MAX_NESTING = 3;

function tensorsOf(dict: PickledDict): Map<string, StoredTensor> {
  const tensors = new Map<string, StoredTensor>();
  for (const [name, value] of dict) {
    if (typeof name === 'string' && value instanceof StoredTensor) tensors.set(name, value);
  }
  return tensors;
}

/**
 * The tensors of a checkpoint: of the dict under `model`, `state_dict` or `model_state_dict`, else of the top.
 * @throws UserError naming `where` and the keys that it has instead
 */
export function stateDictOf(root: unknown, where: string): Map<string, StoredTensor> {
  let dict = root;
  for (let depth = 0; depth < MAX_NESTING; depth++) {
    if (!(dict instanceof Map)) break;
    const inner = STATE_DICT_KEYS.map((key) => (dict as PickledDict).get(key)).find((value) => value instanceof Map);
    if (inner === undefined) break;
    dict = inner;
  }
  const tensors = dict instanceof Map ? tensorsOf(dict) : new Map<string, StoredTensor>();
  if (tensors.size > 0) return tensors;
  const keys = dict instanceof Map ? [...dict.keys()].filter((key) => typeof key === 'string') : [];
  const found = keys.length > 0 ? `a dict of ${keys.slice(0, 8).map(shown).join(', ')}` : 'something else';
  throw new UserError(
    `${where} holds no state_dict: expected a dict of tensors, at the top or under ${STATE_DICT_KEYS.join(', ')}, but it holds ${found}.`,
  );
}
