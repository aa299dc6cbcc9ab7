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
