/** A rectangle of whole pixels, by its first and last column and row. */
export interface WholeBox {
  x0: number;
  y0: number;
  x1: number;
  y1: number;
}

/** The value of a mask bordered by `border` zeros at a real place, the place moved onto it and interpolated. */
function sample(mask: ArrayLike<number>, side: number, y: number, x: number): number {
  const at = (row: number, column: number) =>
    row < 1 || row > side || column < 1 || column > side ? 0 : mask[(row - 1) * side + column - 1];
  const [py, px] = [Math.min(Math.max(y, 0), side + 1), Math.min(Math.max(x, 0), side + 1)];
  const [r, k] = [Math.floor(py), Math.floor(px)];
  let sum = 0;
  for (const [row, wy] of [
    [r, 1 - (py - r)],
    [r + 1, py - r],
  ]) {
    for (const [column, wx] of [
      [k, 1 - (px - k)],
      [k + 1, px - k],
    ]) {
      if (wy * wx > 0) sum += wy * wx * at(row, column);
    }
  }
  return sum;
}

/** One mask pasted into a whole image: each pixel of the box takes the bordered mask's value at its centre. */
export function pasteMask(
  mask: ArrayLike<number>,
  side: number,
  box: WholeBox,
  [height, width]: readonly [number, number],
): Float64Array {
  const out = new Float64Array(height * width);
  const [w, h] = [Math.max(box.x1 - box.x0 + 1, 1), Math.max(box.y1 - box.y0 + 1, 1)];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (x < box.x0 || x >= box.x0 + w || y < box.y0 || y >= box.y0 + h) continue;
      const [fx, fy] = [(x - box.x0 + 0.5) / w, (y - box.y0 + 0.5) / h];
      out[y * width + x] = sample(mask, side, fy * (side + 2) - 0.5, fx * (side + 2) - 0.5);
    }
  }
  return out;
}

/** A box grown about its centre by (side + 2) / side and cut towards 0 to whole pixels. */
export function grownBox([x1, y1, x2, y2]: readonly number[], side: number): WholeBox {
  const [cx, cy] = [(x1 + x2) / 2, (y1 + y2) / 2];
  const [rx, ry] = [((x2 - x1) / 2) * ((side + 2) / side), ((y2 - y1) / 2) * ((side + 2) / side)];
  return { x0: Math.trunc(cx - rx), y0: Math.trunc(cy - ry), x1: Math.trunc(cx + rx), y1: Math.trunc(cy + ry) };
}
