/**
 * The bounding box of a mask, corners inclusive (the notebook's `get_box`): xmin, ymin, xmax, ymax.
 *
 * @param mask [height, width], covered where not 0
 * @returns undefined for an empty mask
 */
export function maskBox(mask: Uint8Array, width: number, height: number): [number, number, number, number] | undefined {
  let xmin = width;
  let xmax = -1;
  let ymin = -1;
  let ymax = -1;
  for (let y = 0; y < height; y++) {
    const row = mask.subarray(y * width, (y + 1) * width);
    let x = 0;
    while (x < width && row[x] === 0) x++;
    if (x === width) continue;
    if (ymin < 0) ymin = y;
    ymax = y;
    if (x < xmin) xmin = x;
    let last = width - 1;
    while (row[last] === 0) last--;
    if (last > xmax) xmax = last;
  }
  return ymax < 0 ? undefined : [xmin, ymin, xmax, ymax];
}
