/** Rounds half to even, as torch.round does. */
function roundHalfToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/**
 * Base anchors of one size, centred at 0: for each ratio (height / width) a box of area size², corners rounded to whole pixels
 * (ties to even). [ratios, 4] xmin, ymin, xmax, ymax.
 */
export function baseAnchors(size: number, aspectRatios: readonly number[]): Float32Array {
  const anchors = new Float32Array(aspectRatios.length * 4);
  aspectRatios.forEach((ratio, index) => {
    const heightRatio = Math.fround(Math.sqrt(ratio));
    const widthRatio = Math.fround(1 / heightRatio);
    const w = roundHalfToEven(Math.fround(widthRatio * size) / 2);
    const h = roundHalfToEven(Math.fround(heightRatio * size) / 2);
    anchors.set([-w, -h, w, h], index * 4);
  });
  return anchors;
}

/**
 * torchvision's AnchorGenerator (`torchvision/models/detection/anchor_utils.py`), one size per level.
 *
 * @param sizes anchor size of each level, pixels of the network's input.
 * @param imageSize [height, width] of the padded batch; the stride of a level is image side // map side.
 * @param mapSizes [height, width] of each level's map.
 * @returns all anchors in the order of the flattened RPN outputs: levels fine to coarse, then rows, columns, ratios; [A, 4].
 */
export function generateAnchors(
  sizes: readonly number[],
  aspectRatios: readonly number[],
  imageSize: readonly [number, number],
  mapSizes: readonly (readonly [number, number])[],
): Float32Array {
  if (sizes.length !== mapSizes.length)
    throw new Error(`${sizes.length} anchor sizes do not fit ${mapSizes.length} maps.`);
  const total = mapSizes.reduce((sum, [h, w]) => sum + h * w * aspectRatios.length, 0);
  const anchors = new Float32Array(total * 4);
  let at = 0;
  mapSizes.forEach(([height, width], level) => {
    const base = baseAnchors(sizes[level], aspectRatios);
    const strideY = Math.floor(imageSize[0] / height);
    const strideX = Math.floor(imageSize[1] / width);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        for (let k = 0; k < base.length; k += 4) {
          anchors[at++] = base[k] + x * strideX;
          anchors[at++] = base[k + 1] + y * strideY;
          anchors[at++] = base[k + 2] + x * strideX;
          anchors[at++] = base[k + 3] + y * strideY;
        }
      }
    }
  });
  return anchors;
}
