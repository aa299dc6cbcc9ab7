/** Outlines of masks along the edges of their pixels: exact polygons, with holes and separate parts. */

/** Pixels of a mask inside a rectangle of the image, a `MaskCrop` for one; everything outside it is not covered. */
export interface PixelCrop {
  x: number;
  y: number;
  width: number;
  height: number;
  /** [height, width] */
  data: ArrayLike<number>;
}

/**
 * Corners of a closed outline, x and y in turn, the first not repeated at the end. Corner (x, y) is the upper left one of pixel
 * (x, y), so a single pixel at the origin has (0, 0), (1, 0), (1, 1), (0, 1). Neighbouring corners never lie on one line with a third.
 */
export type Ring = Int32Array;

/** One part of a mask: pixels that are joined by their sides. */
export interface MaskPolygon {
  /** Clockwise on the screen (y down): its `ringArea` is positive. */
  exterior: Ring;
  /** Counter-clockwise, each inside `exterior`. */
  holes: Ring[];
}

/**
 * The area within a ring in square pixels (shoelace formula): positive where it runs clockwise on the screen. The areas of all
 * rings of a polygon of {@link maskPolygons} add up to its number of pixels.
 */
export function ringArea(ring: ArrayLike<number>): number {
  let twice = 0;
  for (let i = 0, last = ring.length - 2; i < ring.length; last = i, i += 2) {
    twice += ring[last] * ring[i + 1] - ring[i] * ring[last + 1];
  }
  return twice / 2;
}

/**
 * The outlines of a mask as polygons along its pixels' edges. A polygon's interior is exactly the pixels of one part: those that
 * hang together by their sides. Rings are simple: none touches itself, two of one polygon share single corners at most, so the
 * polygons are valid in the sense of OGC's Simple Features, GeoJSON and JTS (QuPath).
 *
 * Time and memory are linear in the crop's pixels.
 *
 * @param mask in coordinates of the image, where the outlines lie too
 * @param threshold pixels above it are covered
 * @returns the parts in the order of their first pixel, row by row; none for an empty mask
 */
export function maskPolygons(mask: PixelCrop, threshold = 0): MaskPolygon[] {
  const parts = labelParts(mask, threshold);
  const polygons: MaskPolygon[] = [];
  for (const { part, ring } of traceRings(parts, mask.width, mask.height)) {
    polygons[part - 1] ??= { exterior: new Int32Array(), holes: [] };
    const polygon = polygons[part - 1];
    for (const loop of simpleLoops(ring, mask.width + 1)) {
      const outer = ringArea(loop) > 0;
      for (let i = 0; i < loop.length; i += 2) {
        loop[i] += mask.x;
        loop[i + 1] += mask.y;
      }
      if (outer) polygon.exterior = loop;
      else polygon.holes.push(loop);
    }
  }
  return polygons;
}

/** [height, width] the number, 1 …, of the part each pixel belongs to; 0 where nothing is covered. */
function labelParts({ width, height, data }: PixelCrop, threshold: number): Int32Array {
  const parts = new Int32Array(width * height);
  const open: number[] = [];
  let count = 0;
  for (let start = 0; start < parts.length; start++) {
    if (!(data[start] > threshold) || parts[start] !== 0) continue;
    count++;
    const enter = (pixel: number): void => {
      if (!(data[pixel] > threshold) || parts[pixel] !== 0) return;
      parts[pixel] = count;
      open.push(pixel);
    };
    enter(start);
    for (let pixel = open.pop(); pixel !== undefined; pixel = open.pop()) {
      const x = pixel % width;
      if (x > 0) enter(pixel - 1);
      if (x < width - 1) enter(pixel + 1);
      if (pixel >= width) enter(pixel - width);
      if (pixel < parts.length - width) enter(pixel + width);
    }
  }
  return parts;
}

/**
 * Walks along all edges between covered and other pixels, the covered ones to the right. Where two covered pixels meet at a
 * corner only, it turns to its own, so that a walk never leaves its part.
 */
function* traceRings(parts: Int32Array, width: number, height: number): Generator<{ part: number; ring: number[] }> {
  const covered = (x: number, y: number): boolean =>
    x >= 0 && y >= 0 && x < width && y < height && parts[y * width + x] !== 0;
  // Every ring runs along the upper edge of some pixel, eastwards.
  const walked = new Uint8Array(parts.length);
  for (let start = 0; start < parts.length; start++) {
    const startX = start % width;
    const startY = Math.floor(start / width);
    if (parts[start] === 0 || walked[start] !== 0 || covered(startX, startY - 1)) continue;
    const ring: number[] = [];
    let [x, y] = [startX, startY];
    let [dx, dy] = [1, 0];
    do {
      if (dx === 1) walked[y * width + x] = 1;
      x += dx;
      y += dy;
      // The pixel ahead to the right of a corner lies towards (dx - dy, dy + dx), the one ahead to the left towards (dx + dy, dy - dx).
      const right = covered(x + (dx - dy - 1) / 2, y + (dy + dx - 1) / 2);
      if (right && !covered(x + (dx + dy - 1) / 2, y + (dy - dx - 1) / 2)) continue;
      ring.push(x, y);
      [dx, dy] = right ? [dy, -dx] : [-dy, dx];
    } while (x !== startX || y !== startY || dx !== 1);
    yield { part: parts[start], ring };
  }
}

/** Cuts a ring that comes to the same corner twice into rings that do not. @param columns of corners */
function simpleLoops(ring: readonly number[], columns: number): Ring[] {
  const loops: Ring[] = [];
  const path: number[] = [];
  // Where in `path` each of its corners stands.
  const places = new Map<number, number>();
  const corner = (xy: readonly number[], i: number): number => xy[i + 1] * columns + xy[i];
  for (let i = 0; i < ring.length; i += 2) {
    const before = places.get(corner(ring, i));
    if (before !== undefined) {
      const loop = path.splice(before);
      for (let j = 0; j < loop.length; j += 2) places.delete(corner(loop, j));
      loops.push(Int32Array.from(loop));
    }
    places.set(corner(ring, i), path.length);
    path.push(ring[i], ring[i + 1]);
  }
  loops.push(Int32Array.from(path));
  return loops;
}
