import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type MaskPolygon, maskPolygons, type PixelCrop, ringArea } from '../../src/eval/contours.ts';

/** A crop from rows of text; # is covered. */
function drawing(rows: string[], x = 0, y = 0): PixelCrop {
  const data = Uint8Array.from(rows.join(''), (character) => Number(character === '#'));
  return { x, y, width: rows[0].length, height: rows.length, data };
}

const rings = ({ exterior, holes }: MaskPolygon) => [exterior, ...holes];
const points = (ring: Int32Array): [number, number][] =>
  Array.from({ length: ring.length / 2 }, (_, i) => [ring[2 * i], ring[2 * i + 1]]);
const lists = (polygons: MaskPolygon[]) =>
  polygons.map(({ exterior, holes }) => ({ exterior: points(exterior), holes: holes.map(points) }));

/** Is the centre of pixel (x, y) inside by the even-odd rule? A ray to the right counts the vertical edges it meets. */
function inside(polygon: MaskPolygon, x: number, y: number): boolean {
  let crossings = 0;
  for (const ring of rings(polygon)) {
    const corners = points(ring);
    corners.forEach(([x1, y1], i) => {
      const [x2, y2] = corners[(i + 1) % corners.length];
      if (x1 === x2 && x1 > x && Math.min(y1, y2) <= y && y < Math.max(y1, y2)) crossings++;
    });
  }
  return crossings % 2 === 1;
}

/** Parts by the sides of their pixels, counted independently: repeated merging of neighbours' numbers. */
function countParts({ width, height, data }: PixelCrop): number {
  const number = Array.from(data, (value, i) => (value > 0 ? i : -1));
  for (let changed = true; changed; ) {
    changed = false;
    for (let i = 0; i < width * height; i++) {
      for (const j of [i % width < width - 1 ? i + 1 : -1, i + width]) {
        if (j < 0 || j >= number.length || number[i] < 0 || number[j] < 0 || number[i] === number[j]) continue;
        number[i] = number[j] = Math.min(number[i], number[j]);
        changed = true;
      }
    }
  }
  return new Set(number.filter((value) => value >= 0)).size;
}

describe('maskPolygons', () => {
  it('gives the corners of a pixel, of an L and of a crop inside an image', () => {
    expect(lists(maskPolygons(drawing(['#'])))).toEqual([
      {
        exterior: [
          [1, 0],
          [1, 1],
          [0, 1],
          [0, 0],
        ],
        holes: [],
      },
    ]);
    expect(lists(maskPolygons(drawing(['#.', '##'], 10, 20)))[0].exterior).toEqual([
      [11, 20],
      [11, 21],
      [12, 21],
      [12, 22],
      [10, 22],
      [10, 20],
    ]);
  });

  it('tells holes from parts, and a part inside a hole from its surroundings', () => {
    const polygons = maskPolygons(drawing(['#####', '#...#', '#.#.#', '#...#', '#####', '.....', '##.##']));
    expect(polygons.map(({ exterior, holes }) => [ringArea(exterior), holes.map(ringArea)])).toEqual([
      [25, [-9]],
      [1, []],
      [2, []],
      [2, []],
    ]);
  });

  it('cuts rings where pixels meet at a corner only', () => {
    // Two pixels corner to corner are two parts.
    expect(maskPolygons(drawing(['#.', '.#'])).map((polygon) => ringArea(polygon.exterior))).toEqual([1, 1]);
    // A band whose ends meet at a corner encloses a hole that touches the outside there.
    const [band, ...rest] = maskPolygons(drawing(['###', '#.#', '##.']));
    expect(rest).toEqual([]);
    expect([ringArea(band.exterior), band.holes.map(ringArea)]).toEqual([8, [-1]]);
    // Two holes that meet at a corner.
    const [plate] = maskPolygons(drawing(['####', '#.##', '##.#', '####']));
    expect(plate.holes.map(ringArea)).toEqual([-1, -1]);
  });

  it('compares with the threshold strictly, and has nothing for an empty mask', () => {
    const mask = { x: 0, y: 0, width: 3, height: 1, data: Float32Array.of(0.5, 0.75, 0.25) };
    expect(maskPolygons(mask, 0.5).map(({ exterior }) => ringArea(exterior))).toEqual([1]);
    expect(maskPolygons(mask, 0.75)).toEqual([]);
  });

  it('covers exactly the pixels of any mask, with simple rings of one sense and no needless corner', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 9 }).chain((width) =>
          fc.record({
            width: fc.constant(width),
            pixels: fc.array(fc.array(fc.boolean(), { minLength: width, maxLength: width }), {
              minLength: 1,
              maxLength: 9,
            }),
            x: fc.integer({ min: -5, max: 700 }),
            y: fc.integer({ min: -5, max: 700 }),
          }),
        ),
        ({ width, pixels, x, y }) => {
          const height = pixels.length;
          const mask = { x, y, width, height, data: Uint8Array.from(pixels.flat(), Number) };
          const polygons = maskPolygons(mask);
          expect(polygons).toHaveLength(countParts(mask));
          let area = 0;
          for (const polygon of polygons) {
            expect(ringArea(polygon.exterior)).toBeGreaterThan(0);
            for (const hole of polygon.holes) expect(ringArea(hole)).toBeLessThan(0);
            for (const ring of rings(polygon)) {
              area += ringArea(ring);
              const corners = points(ring);
              expect(new Set(corners.map(String)).size).toBe(corners.length);
              corners.forEach(([x1, y1], i) => {
                const [x2, y2] = corners[(i + 1) % corners.length];
                const [x3, y3] = corners[(i + 2) % corners.length];
                // Sides lie along the axes, and each corner turns from one axis to the other.
                expect((x1 === x2) !== (y1 === y2)).toBe(true);
                expect((x1 === x2) !== (x2 === x3)).toBe(true);
                expect((y1 === y2) !== (y2 === y3)).toBe(true);
              });
            }
          }
          expect(area).toBe(mask.data.reduce((sum, value) => sum + value, 0));
          mask.data.forEach((value, i) => {
            const [column, row] = [x + (i % width), y + Math.floor(i / width)];
            expect(polygons.filter((polygon) => inside(polygon, column, row))).toHaveLength(value);
          });
        },
      ),
      { numRuns: 300, seed: 11 },
    );
  });

  it('takes well under a second for a noisy mask of 704 × 520', () => {
    const data = Uint8Array.from({ length: 704 * 520 }, (_, i) => Number((i * 2654435761) % 7 < 4));
    const before = performance.now();
    const polygons = maskPolygons({ x: 0, y: 0, width: 704, height: 520, data });
    expect(performance.now() - before).toBeLessThan(1500);
    const area = polygons.flatMap(rings).reduce((sum, ring) => sum + ringArea(ring), 0);
    expect(area).toBe(data.reduce((sum, value) => sum + value, 0));
  });
});
