/** The values of a stored tensor, contiguous or not, with at most one copy of them in memory. */
import { UserError } from '../../cli/errors.ts';
import { bytesPerElement, type Dtype, decodeInto, emptyValues, type Values } from '../dtypes.ts';
import type { StorageRef, StoredTensor } from './torchObjects.ts';

/** Where storages lie in a file. */
export interface Storages {
  /**
   * Hands on the bytes of elements `first` … `first + count - 1` piece by piece; a piece never splits an element.
   * @param take gets each piece and the range's bytes before it
   * @throws UserError when they are not all there
   */
  read(
    storage: StorageRef,
    first: number,
    count: number,
    take: (bytes: Uint8Array<ArrayBuffer>, done: number) => void,
  ): Promise<void>;
}

/** Elements that are put in order at a time. */
const GATHERED = 16 * 1024;

type Words =
  | Uint8Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Uint32Array<ArrayBuffer>
  | BigUint64Array<ArrayBuffer>;

/** Bytes as elements of `size` bytes, whatever they mean. */
function wordsOf(buffer: ArrayBuffer, size: number): Words {
  if (size === 1) return new Uint8Array(buffer);
  if (size === 2) return new Uint16Array(buffer);
  return size === 4 ? new Uint32Array(buffer) : new BigUint64Array(buffer);
}

/** Puts the elements of a span into row-major order. `span` begins at the tensor's first element. */
function gather(out: Values, span: ArrayBuffer, tensor: StoredTensor, dtype: Dtype, what: string): void {
  const { shape, strides } = tensor;
  const size = bytesPerElement[dtype];
  const from = wordsOf(span, size);
  const gathered = wordsOf(new ArrayBuffer(Math.min(GATHERED, out.length) * size), size);
  const bytes = new Uint8Array(gathered.buffer);
  const index = shape.map(() => 0);
  let at = 0;
  for (let done = 0; done < out.length; ) {
    const count = Math.min(gathered.length, out.length - done);
    for (let i = 0; i < count; i++) {
      gathered[i] = from[at];
      for (let axis = shape.length - 1; axis >= 0; axis--) {
        at += strides[axis];
        if (++index[axis] < shape[axis]) break;
        at -= strides[axis] * shape[axis];
        index[axis] = 0;
      }
    }
    decodeInto(out, done, dtype, bytes.subarray(0, count * size), what);
    done += count;
  }
}

/**
 * Reads one tensor, row-major. Nothing is allocated before its size has been compared with the file's: a tensor that repeats its
 * elements (an expanded view) may be larger than the file, but not beyond twice.
 * @param what names file and tensor, to begin the sentence of an error
 * @throws UserError when it would take more than twice the file's size, or cannot be read whole
 */
export async function readStored(
  tensor: StoredTensor,
  storages: Storages,
  fileSize: number,
  what: string,
): Promise<Values> {
  const { dtype, elements, storage, offset, span, contiguous } = tensor;
  const size = bytesPerElement[dtype];
  const needed = elements * 4 + (contiguous ? 0 : span * size);
  if (needed > 2 * fileSize) {
    throw new UserError(
      `${what} of ${dtype} [${tensor.shape}] would take ${needed} bytes to read, more than twice the file's ${fileSize}.`,
    );
  }
  const out = emptyValues(dtype, elements);
  if (elements === 0) return out;
  if (contiguous) {
    await storages.read(storage, offset, elements, (bytes, done) => decodeInto(out, done / size, dtype, bytes, what));
    return out;
  }
  const raw = new Uint8Array(span * size);
  await storages.read(storage, offset, span, (bytes, done) => raw.set(bytes, done));
  gather(out, raw.buffer, tensor, dtype, what);
  return out;
}
