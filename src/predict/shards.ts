import { UserError } from '../cli/errors.ts';

/** One part of a folder's images. The whole folder is part 1 of 1. */
export interface Shard {
  /** 1 … of. */
  index: number;
  of: number;
}

export const WHOLE: Shard = { index: 1, of: 1 };

/** Reads `I/N`. @throws UserError where it is no such pair or I is not in 1 … N */
export function parseShard(text: string): Shard {
  const match = /^(\d{1,6})\/(\d{1,6})$/.exec(text.trim());
  const shard = { index: Number(match?.[1]), of: Number(match?.[2]) };
  if (match === null || shard.index < 1 || shard.index > shard.of) {
    throw new UserError(
      `--shard ${text}: expected I/N with I from 1 to N, for example 2/4 for the second of four parts.`,
    );
  }
  return shard;
}

/**
 * Is an image in the part? Images are dealt like cards: in the order of their names the first goes to part 1, the second to part 2,
 * and after part N it begins again. So parts differ by one image at most, and images of one kind (which names often keep
 * together) spread over all of them.
 *
 * @param position place among all images of the folder, from 0
 */
export function inShard(position: number, { index, of }: Shard): boolean {
  return position % of === index - 1;
}

/** How many of `count` images are in the part. */
export function shardSize(count: number, { index, of }: Shard): number {
  return Math.max(0, Math.ceil((count - index + 1) / of));
}
