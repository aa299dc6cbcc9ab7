/** Bytes that are read piece by piece: a file in Node (`fileSource.ts`), a Blob in the browser. Everything else of this folder asks them alone. */
import { UserError } from '../../cli/errors.ts';

export interface ByteSource {
  /** Path or name, to begin the sentences of errors. */
  readonly name: string;
  /** Bytes in all. */
  readonly size: number;
  /** `length` bytes from `offset` on in a buffer of their own; fewer where the source ends first. Use `readExactly`. */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
}

/**
 * Bytes that must be there. The range is compared with the source's size before anything is allocated.
 * @throws UserError when it reaches beyond the source, or the source has shrunk meanwhile
 */
export async function readExactly(
  source: ByteSource,
  offset: number,
  length: number,
): Promise<Uint8Array<ArrayBuffer>> {
  if (!(offset >= 0 && length >= 0 && offset + length <= source.size)) {
    throw new UserError(
      `${source.name} is cut short or damaged: bytes ${offset} to ${offset + length} are named, but it has ${source.size}.`,
    );
  }
  const bytes = await source.read(offset, length);
  if (bytes.length !== length) throw new UserError(`${source.name} was cut short while it was read.`);
  return bytes;
}

/** Bytes that are in memory beside a result that is being filled. */
const PIECE = 256 * 1024;

/**
 * Hands a range on in pieces, so that no second copy of it is ever whole.
 * @param step bytes of one element; a piece never splits one
 * @param take gets each piece and the range's bytes before it
 */
export async function readPieces(
  source: ByteSource,
  { offset, length, step }: { offset: number; length: number; step: number },
  take: (bytes: Uint8Array<ArrayBuffer>, done: number) => void,
): Promise<void> {
  const piece = Math.floor(PIECE / step) * step;
  for (let done = 0; done < length; done += piece) {
    take(await readExactly(source, offset + done, Math.min(piece, length - done)), done);
  }
}

/**
 * A sink that gathers a stream's chunks, which come in any size, into pieces of a range for `take`.
 * @param step bytes of one element; a piece never splits one
 */
export function pieceWriter(
  { offset, length, step }: { offset: number; length: number; step: number },
  take: (bytes: Uint8Array<ArrayBuffer>, done: number) => void,
): (chunk: Uint8Array) => void {
  const piece = new Uint8Array(Math.min(Math.floor(PIECE / step) * step, length));
  let skip = offset;
  let left = length;
  let filled = 0;
  let done = 0;
  return (chunk) => {
    let at = Math.min(skip, chunk.length);
    skip -= at;
    while (at < chunk.length && left > 0) {
      const part = chunk.subarray(at, at + Math.min(piece.length - filled, left));
      piece.set(part, filled);
      at += part.length;
      filled += part.length;
      left -= part.length;
      if (filled < piece.length && left > 0) continue;
      take(piece.subarray(0, filled), done);
      done += filled;
      filled = 0;
    }
  };
}

/** A file that a browser's user chose. */
export function blobSource(blob: Blob, name: string): ByteSource {
  return {
    name,
    size: blob.size,
    read: async (offset, length) => new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer()),
  };
}

/** Bytes in memory. Each read is a copy: the slice of a Buffer would be a view. */
export function bytesSource(bytes: Uint8Array, name: string): ByteSource {
  const copied = (offset: number, length: number) => new Uint8Array(bytes.subarray(offset, offset + length));
  return { name, size: bytes.length, read: async (offset, length) => copied(offset, length) };
}
