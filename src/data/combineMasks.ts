/**
 * The notebook's `combine_masks`: one image in which each pixel holds the number of its instance. Where instances overlap, the
 * later one covers the earlier.
 *
 * @param masks [height × width] each, of one size: probabilities 0…1 as Float32Array, or 0 and 1 as Uint8Array
 * @param threshold a pixel belongs to an instance where its value is greater; compared in float32 with float32 values, as NumPy does
 * @returns [height × width]: 0 for background, else 1 + the instance's position in the list
 * @throws RangeError for masks of different sizes
 */
export function combineMasks(masks: readonly (Float32Array | Uint8Array)[], threshold: number): Int32Array {
  const labels = new Int32Array(masks[0]?.length ?? 0);
  for (const [i, mask] of masks.entries()) {
    if (mask.length !== labels.length) {
      throw new RangeError(`combineMasks: a mask has ${mask.length} pixels, the first ${labels.length}`);
    }
    const limit = mask instanceof Float32Array ? Math.fround(threshold) : threshold;
    for (let pixel = 0; pixel < labels.length; pixel++) if (mask[pixel] > limit) labels[pixel] = i + 1;
  }
  return labels;
}
