/** The pickle of a state_dict as torch.save writes it: protocol 2, an OrderedDict of contiguous tensors. */
import { elementCount, type WrittenDtype } from '../dtypes.ts';
import type { TensorDescription } from '../safetensorsFormat.ts';

const storageTypes: Record<WrittenDtype, string> = {
  F32: 'FloatStorage',
  F16: 'HalfStorage',
  I64: 'LongStorage',
  I32: 'IntStorage',
  U8: 'ByteStorage',
  BOOL: 'BoolStorage',
};

/** Appends the operations of CPython's Lib/pickletools.py; a name or text that returns is recalled from the memo. */
class PickleWriter {
  readonly #bytes: number[] = [];
  readonly #memo = new Map<string, number>();

  op(letter: string): void {
    this.#bytes.push(letter.charCodeAt(0));
  }

  #u32(value: number): void {
    for (let shift = 0; shift < 32; shift += 8) this.#bytes.push((value >>> shift) & 255);
  }

  /** Writes what `key` stands for the first time, and keeps it; later recalls it. */
  #once(key: string, write: () => void): void {
    const kept = this.#memo.get(key);
    if (kept !== undefined) {
      this.op('h');
      this.#bytes.push(kept);
      return;
    }
    write();
    this.op('q');
    this.#bytes.push(this.#memo.size);
    this.#memo.set(key, this.#memo.size);
  }

  text(value: string): void {
    const bytes = new TextEncoder().encode(value);
    this.op('X');
    this.#u32(bytes.length);
    for (const byte of bytes) this.#bytes.push(byte);
  }

  sharedText(value: string): void {
    this.#once(`text ${value}`, () => this.text(value));
  }

  global(module: string, name: string): void {
    this.#once(`global ${module}.${name}`, () => {
      for (const byte of new TextEncoder().encode(`c${module}\n${name}\n`)) this.#bytes.push(byte);
    });
  }

  /** BININT1, BININT2, BININT, or LONG1 beyond 2³¹. */
  integer(value: number): void {
    if (value < 256) {
      this.op('K');
      this.#bytes.push(value);
    } else if (value < 65536) {
      this.op('M');
      this.#bytes.push(value & 255, value >> 8);
    } else if (value < 2 ** 31) {
      this.op('J');
      this.#u32(value);
    } else {
      // Eight bytes: the highest is 0 for every safe integer, so it is not negative.
      this.op('\x8a');
      this.#bytes.push(8);
      this.#u32(value % 2 ** 32);
      this.#u32(Math.floor(value / 2 ** 32));
    }
  }

  integers(values: readonly number[]): void {
    if (values.length > 3) this.op('(');
    for (const value of values) this.integer(value);
    this.op([')', '\x85', '\x86', '\x87'][values.length] ?? 't');
  }

  bytes(): Uint8Array<ArrayBuffer> {
    return Uint8Array.from(this.#bytes);
  }
}

/** Elements between neighbours along each axis of a row-major tensor. */
function contiguousStrides(shape: readonly number[]): number[] {
  return shape.map((_, axis) => elementCount(shape.slice(axis + 1).map((side) => Math.max(side, 1))));
}

/** `data.pkl`: tensor i has the storage `data/i`. */
export function pickleStateDict(tensors: readonly TensorDescription[]): Uint8Array<ArrayBuffer> {
  const pickle = new PickleWriter();
  const orderedDict = (): void => {
    pickle.global('collections', 'OrderedDict');
    pickle.op(')');
    pickle.op('R');
  };
  pickle.op('\x80');
  pickle.op('\x02');
  orderedDict();
  pickle.op('(');
  for (const [index, { name, dtype, shape }] of tensors.entries()) {
    pickle.text(name);
    pickle.global('torch._utils', '_rebuild_tensor_v2');
    pickle.op('(');
    // The persistent id of the storage.
    pickle.op('(');
    pickle.sharedText('storage');
    pickle.global('torch', storageTypes[dtype]);
    pickle.text(String(index));
    pickle.sharedText('cpu');
    pickle.integer(elementCount(shape));
    pickle.op('t');
    pickle.op('Q');
    // Offset, size, stride, requires_grad, backward hooks.
    pickle.integer(0);
    pickle.integers(shape);
    pickle.integers(contiguousStrides(shape));
    pickle.op('\x89');
    orderedDict();
    pickle.op('t');
    pickle.op('R');
  }
  pickle.op('u');
  pickle.op('.');
  return pickle.bytes();
}
