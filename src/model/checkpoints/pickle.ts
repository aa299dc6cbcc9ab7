/**
 * A machine that reads Python pickles and can do nothing but build plain values: numbers, strings, None, lists, tuples, sets and
 * dicts. Every name of a function or class that a pickle holds is handed to the caller, who knows the few that are meant (see
 * `torchObjects.ts`) and refuses the rest; nothing is looked up anywhere else, so nothing of a file can run.
 * The operations are those of CPython's Lib/pickletools.py, protocols 0 to 5. torch.save writes protocol 2.
 */
import { UserError } from '../../cli/errors.ts';

/** What the pickle may call: a named function or class with its arguments. */
export interface PickleHooks {
  /** The meaning of `module.name`. @throws UserError for all that are not known */
  global(module: string, name: string): PickledGlobal;
  /** What a persistent id stands for. */
  persistent(id: unknown): unknown;
}

/** A function or class that the caller knows. */
export interface PickledGlobal {
  readonly name: string;
  /** Called by REDUCE; absent where the name only stands for itself. */
  call?(args: readonly unknown[]): unknown;
}

/** Lists, tuples and sets are arrays, dicts are Maps. */
export type PickledDict = Map<unknown, unknown>;

export interface Unpickled {
  value: unknown;
  /** First byte behind the pickle. */
  end: number;
}

/** Thrown where the bytes end inside the pickle; a caller who has more may try again with them. */
export class PickleEnds extends UserError {}

/** A number beyond this many bytes is no number of a checkpoint. */
const MAX_NUMBER_BYTES = 64;

function isGlobal(value: unknown): value is PickledGlobal {
  return (
    typeof value === 'object' && value !== null && 'name' in value && !Array.isArray(value) && !(value instanceof Map)
  );
}

/** Two's complement, little-endian, as LONG1 and LONG4 hold it; a bigint where a number would not be exact. */
function longValue(bytes: Uint8Array): number | bigint {
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]);
  if (bytes.length > 0 && bytes[bytes.length - 1] & 0x80) value -= 1n << BigInt(8 * bytes.length);
  return Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

const STOP = '.'.charCodeAt(0);

const utf8 = new TextDecoder();
// Python 2 wrote its byte strings as they were; names in them are ASCII.
const latin1 = new TextDecoder('latin1');

class Machine {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #hooks: PickleHooks;
  readonly #where: string;
  #at: number;
  #budget: number;
  #stack: unknown[] = [];
  /** Stacks outside the marks that are open. */
  readonly #outer: unknown[][] = [];
  readonly #memo = new Map<number, unknown>();

  constructor(bytes: Uint8Array, start: number, hooks: PickleHooks, where: string, maxValues: number) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#at = start;
    this.#hooks = hooks;
    this.#where = where;
    this.#budget = maxValues;
  }

  #fail(what: string): never {
    throw new UserError(`${this.#where} is damaged: its pickle ${what} at byte ${this.#at}.`);
  }

  /** Moves over `length` bytes and gives where they began. */
  #skip(length: number): number {
    const from = this.#at;
    if (!(from + length <= this.#bytes.length)) {
      throw new PickleEnds(`${this.#where} is cut short or damaged: its pickle ends in the middle.`);
    }
    this.#at = from + length;
    return from;
  }

  #take(length: number): Uint8Array {
    const from = this.#skip(length);
    return this.#bytes.subarray(from, from + length);
  }

  #line(): string {
    const end = this.#bytes.indexOf(10, this.#at);
    const text = utf8.decode(this.#take((end < 0 ? this.#bytes.length + 1 : end) - this.#at));
    this.#at++;
    return text;
  }

  #u8 = (): number => this.#bytes[this.#skip(1)];
  #u32 = (): number => this.#view.getUint32(this.#skip(4), true);
  #u64 = (): number => Number(this.#view.getBigUint64(this.#skip(8), true));

  #spend(): void {
    if (--this.#budget < 0) throw new UserError(`${this.#where} holds far more values in its pickle than weights do.`);
  }

  #push(value: unknown): void {
    this.#spend();
    this.#stack.push(value);
  }

  #remember(index: number): void {
    this.#spend();
    this.#memo.set(index, this.#top());
  }

  #pop(): unknown {
    if (this.#stack.length === 0) this.#fail('takes a value that is not there');
    return this.#stack.pop();
  }

  #top(): unknown {
    if (this.#stack.length === 0) this.#fail('uses a value that is not there');
    return this.#stack[this.#stack.length - 1];
  }

  #popMark(): unknown[] {
    const values = this.#stack;
    this.#stack = this.#outer.pop() ?? this.#fail('closes what it has not opened');
    return values;
  }

  #popCount(count: number): unknown[] {
    if (this.#stack.length < count) this.#fail('takes values that are not there');
    return this.#stack.splice(this.#stack.length - count, count);
  }

  #remembered(index: number): unknown {
    if (!this.#memo.has(index)) this.#fail(`recalls value ${index} that it has not kept`);
    return this.#memo.get(index);
  }

  #list(): unknown[] {
    const list = this.#top();
    return Array.isArray(list) ? list : this.#fail('appends to what is no list');
  }

  #append(values: unknown[]): void {
    const list = this.#list();
    for (const value of values) list.push(value);
  }

  #setItems(items: unknown[]): void {
    const dict = this.#top();
    if (!(dict instanceof Map) || items.length % 2 !== 0) this.#fail('sets an item of what is no dict');
    for (let i = 0; i < items.length; i += 2) (dict as PickledDict).set(items[i], items[i + 1]);
  }

  #number(bytes: Uint8Array): number | bigint {
    if (bytes.length > MAX_NUMBER_BYTES) this.#fail(`holds a number of ${bytes.length} bytes`);
    return longValue(bytes);
  }

  #parsedNumber(text: string): number {
    const value = Number(text);
    if (text.trim() === '' || Number.isNaN(value)) this.#fail('holds a text that is no number');
    return value;
  }

  #reduce(): void {
    const args = this.#pop();
    const callee = this.#pop();
    if (!isGlobal(callee) || !Array.isArray(args)) this.#fail('calls what cannot be called');
    if (!callee.call)
      throw new UserError(`${this.#where}: its pickle calls ${callee.name}, which is no function here.`);
    this.#push(callee.call(args));
  }

  /** Attributes of an object. A state_dict has `_metadata`, which names do without; nothing else may have any. */
  #build(): void {
    this.#pop();
    if (!(this.#top() instanceof Map)) this.#fail('sets attributes of what has none');
  }

  #global(module: unknown, name: unknown): void {
    if (typeof module !== 'string' || typeof name !== 'string') this.#fail('names what is no text');
    this.#push(this.#hooks.global(module, name));
  }

  #protocol(): void {
    const protocol = this.#u8();
    if (protocol > 5) throw new UserError(`${this.#where} is a pickle of protocol ${protocol}, expected 2 to 5.`);
  }

  /** INT, which also wrote truth values. */
  #integerLine(): void {
    const text = this.#line();
    if (text === '00' || text === '01') this.#push(text === '01');
    else this.#push(this.#parsedNumber(text));
  }

  /** By opcode, named as in pickletools where the letter does not tell. */
  readonly #operations: Readonly<Record<string, () => void>> = {
    '\x80': () => this.#protocol(),
    // FRAME
    '\x95': () => this.#u64(),
    '(': () => {
      this.#outer.push(this.#stack);
      this.#stack = [];
    },
    '0': () => this.#pop(),
    '1': () => this.#popMark(),
    '2': () => this.#push(this.#top()),
    N: () => this.#push(null),
    '\x88': () => this.#push(true),
    '\x89': () => this.#push(false),
    J: () => this.#push(this.#view.getInt32(this.#skip(4), true)),
    K: () => this.#push(this.#u8()),
    M: () => this.#push(this.#view.getUint16(this.#skip(2), true)),
    I: () => this.#integerLine(),
    L: () => this.#push(this.#parsedNumber(this.#line().replace(/L$/, ''))),
    F: () => this.#push(this.#parsedNumber(this.#line())),
    G: () => this.#push(this.#view.getFloat64(this.#skip(8), false)),
    // LONG1, LONG4
    '\x8a': () => this.#push(this.#number(this.#take(this.#u8()))),
    '\x8b': () => this.#push(this.#number(this.#take(this.#u32()))),
    // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8, UNICODE
    X: () => this.#push(utf8.decode(this.#take(this.#u32()))),
    '\x8c': () => this.#push(utf8.decode(this.#take(this.#u8()))),
    '\x8d': () => this.#push(utf8.decode(this.#take(this.#u64()))),
    V: () => this.#push(this.#line()),
    // Python 2's strings: SHORT_BINSTRING, BINSTRING, STRING
    U: () => this.#push(latin1.decode(this.#take(this.#u8()))),
    T: () => this.#push(latin1.decode(this.#take(this.#u32()))),
    S: () => this.#push(this.#line().replace(/^(['"])(.*)\1$/, '$2')),
    // SHORT_BINBYTES, BINBYTES, BINBYTES8
    C: () => this.#push(this.#take(this.#u8())),
    B: () => this.#push(this.#take(this.#u32())),
    '\x8e': () => this.#push(this.#take(this.#u64())),
    // EMPTY_LIST, EMPTY_TUPLE, EMPTY_SET, EMPTY_DICT
    ']': () => this.#push([]),
    ')': () => this.#push([]),
    '\x8f': () => this.#push([]),
    '}': () => this.#push(new Map()),
    // LIST, TUPLE, FROZENSET, DICT
    l: () => this.#push(this.#popMark()),
    t: () => this.#push(this.#popMark()),
    '\x91': () => this.#push(this.#popMark()),
    d: () => {
      const items = this.#popMark();
      this.#push(new Map());
      this.#setItems(items);
    },
    '\x85': () => this.#push(this.#popCount(1)),
    '\x86': () => this.#push(this.#popCount(2)),
    '\x87': () => this.#push(this.#popCount(3)),
    // APPEND, APPENDS, ADDITEMS
    a: () => this.#append([this.#pop()]),
    e: () => this.#append(this.#popMark()),
    '\x90': () => this.#append(this.#popMark()),
    s: () => this.#setItems(this.#popCount(2)),
    u: () => this.#setItems(this.#popMark()),
    // BINPUT, LONG_BINPUT, PUT, MEMOIZE and the GETs
    q: () => this.#remember(this.#u8()),
    r: () => this.#remember(this.#u32()),
    p: () => this.#remember(this.#parsedNumber(this.#line())),
    '\x94': () => this.#remember(this.#memo.size),
    h: () => this.#push(this.#remembered(this.#u8())),
    j: () => this.#push(this.#remembered(this.#u32())),
    g: () => this.#push(this.#remembered(this.#parsedNumber(this.#line()))),
    // GLOBAL, STACK_GLOBAL
    c: () => this.#global(this.#line(), this.#line()),
    '\x93': () => {
      const [module, name] = this.#popCount(2);
      this.#global(module, name);
    },
    R: () => this.#reduce(),
    b: () => this.#build(),
    Q: () => this.#push(this.#hooks.persistent(this.#pop())),
  };

  run(): Unpickled {
    for (;;) {
      const op = this.#u8();
      if (op === STOP) return { value: this.#pop(), end: this.#at };
      const operation = this.#operations[String.fromCharCode(op)];
      if (!operation) this.#fail(`holds the operation 0x${op.toString(16).padStart(2, '0')}, which no tensors need,`);
      operation();
    }
  }
}

/**
 * Reads the pickle that begins at `start`.
 * @param where names the file, to begin the sentence of an error
 * @param maxValues values that it may put on its stack and keep: bounds the memory that it can ask for
 * @throws PickleEnds where `bytes` end first, UserError for everything else that is wrong
 */
export function unpickle(
  bytes: Uint8Array,
  start: number,
  hooks: PickleHooks,
  { where, maxValues }: { where: string; maxValues: number },
): Unpickled {
  return new Machine(bytes, start, hooks, where, maxValues).run();
}
