import type { Target } from './types.ts';

/**
 * Puts a target together: areas follow from the boxes.
 *
 * @param boxes [n, 4] xmin, ymin, xmax, ymax
 * @param labels [n]
 * @param masks [n, height, width] 0 or 1
 * @param rest by default no crowds, and the first image of a data set
 */
export function makeTarget(
  boxes: Float32Array,
  labels: Int32Array,
  masks: Uint8Array,
  { iscrowd = new Uint8Array(labels.length), imageId = 0 }: Partial<Pick<Target, 'iscrowd' | 'imageId'>> = {},
): Target {
  const area = Float32Array.from(
    labels,
    (_, i) => (boxes[4 * i + 3] - boxes[4 * i + 1]) * (boxes[4 * i + 2] - boxes[4 * i]),
  );
  return { boxes, labels, masks, area, iscrowd, imageId };
}

/** The cells alone, without crowds: what losses may be computed of. The target itself where it has none. */
export function withoutCrowds(target: Target): Target {
  const { boxes, labels, masks, iscrowd, imageId } = target;
  if (!iscrowd.includes(1)) return target;
  const pixels = masks.length / labels.length;
  const cells = Array.from(labels.keys()).filter((n) => iscrowd[n] === 0);
  const rows = <T extends Float32Array | Uint8Array>(from: T, into: T, size: number): T => {
    for (const [i, n] of cells.entries()) into.set(from.subarray(n * size, (n + 1) * size), i * size);
    return into;
  };
  return makeTarget(
    rows(boxes, new Float32Array(cells.length * 4), 4),
    Int32Array.from(cells, (n) => labels[n]),
    rows(masks, new Uint8Array(cells.length * pixels), pixels),
    { imageId },
  );
}
