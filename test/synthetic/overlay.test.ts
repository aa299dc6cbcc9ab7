import { describe, expect, it } from 'vitest';
import type { RgbImage } from '../../src/data/png.ts';
import { makeTarget } from '../../src/data/target.ts';
import { type Colour, drawText, textHeight, textWidth } from '../../src/eval/bitmapFont.ts';
import {
  classColour,
  comparisonPicture,
  drawInstances,
  enlarge,
  panelGrid,
  panelRow,
  panelScale,
  targetInstances,
  toRgb,
} from '../../src/eval/overlay.ts';

const grey = (width: number, height: number, value = 100): RgbImage => ({
  width,
  height,
  data: new Uint8Array(3 * width * height).fill(value),
});
const pixel = (image: RgbImage, x: number, y: number) => [
  ...image.data.subarray(3 * (y * image.width + x), 3 * (y * image.width + x) + 3),
];
const white = [255, 255, 255];
/** A full-size mask with a filled rectangle. */
function rectangle(width: number, height: number, x: number, y: number, w: number, h: number): Uint8Array {
  return Uint8Array.from({ length: width * height }, (_, i) => {
    const [px, py] = [i % width, Math.floor(i / width)];
    return Number(px >= x && px < x + w && py >= y && py < y + h);
  });
}

describe('drawInstances', () => {
  it('blends the class colour inside, draws the outline in it, leaves the rest and its input alone', () => {
    const image = grey(8, 7);
    const drawn = drawInstances(image, [{ mask: rectangle(8, 7, 2, 1, 4, 4), label: 2 }], { opacity: 0.5 });
    for (let y = 0; y < 7; y++) {
      for (let x = 0; x < 8; x++) {
        const inside = x >= 2 && x < 6 && y >= 1 && y < 5;
        const core = x >= 3 && x < 5 && y >= 2 && y < 4;
        const mixed = classColour(2).map((c) => 100 + Math.round(0.5 * (c - 100)));
        expect(pixel(drawn, x, y)).toEqual(core ? mixed : inside ? [...classColour(2)] : [100, 100, 100]);
      }
    }
    expect(image.data.every((value) => value === 100)).toBe(true);
  });

  it('draws a crop that hangs over the edge as the same pixels of a full mask', () => {
    const data = Float32Array.from({ length: 12 }, () => 0.6);
    data[11] = 0.5;
    const mask = rectangle(6, 5, 0, 3, 2, 2);
    const crop = { x: -2, y: 3, width: 4, height: 3, data };
    for (const scale of [1, 3]) {
      const expected = drawInstances(grey(6, 5), [{ mask, label: 1 }], { scale });
      expect(drawInstances(grey(6, 5), [{ mask: crop, label: 1 }], { scale })).toEqual(expected);
    }
  });

  it('keeps outlines one dot thin when it enlarges', () => {
    const drawn = drawInstances(grey(5, 5), [{ mask: rectangle(5, 5, 1, 1, 3, 3), label: 1 }], {
      scale: 4,
      opacity: 0,
    });
    expect([drawn.width, drawn.height]).toEqual([20, 20]);
    let outline = 0;
    for (let y = 0; y < 20; y++) for (let x = 0; x < 20; x++) if (pixel(drawn, x, y)[0] !== 100) outline++;
    expect(outline).toBe(4 * 12 - 4);
  });

  it('writes a score only where it fits', () => {
    const options = { scale: 1, opacity: 0, contours: false };
    const wide = { mask: rectangle(40, 20, 2, 2, 30, 15), label: 1, score: 0.87 };
    const thin = { mask: rectangle(40, 20, 2, 2, 12, 15), label: 1, score: 0.87 };
    expect(drawInstances(grey(40, 20), [thin], options)).toEqual(grey(40, 20));
    expect(drawInstances(grey(40, 20), [wide], { ...options, scores: false })).toEqual(grey(40, 20));
    const drawn = drawInstances(grey(40, 20), [wide], options);
    expect(drawn.data).toContain(255);
    expect(drawn).not.toEqual(drawInstances(grey(40, 20), [{ ...wide, score: 0.12 }], options));
  });

  it('draws nothing for an empty mask and refuses one of another size', () => {
    const empty = { mask: new Uint8Array(20), label: 1, score: 1 };
    expect(drawInstances(grey(5, 4), [empty])).toEqual(grey(5, 4));
    expect(() => drawInstances(grey(5, 5), [empty])).toThrow('20 pixels');
  });

  it('has distinct colours for the first seven classes', () => {
    expect(new Set([1, 2, 3, 4, 5, 6, 7].map((label) => classColour(label).join())).size).toBe(7);
    expect(classColour(8)).toEqual(classColour(1));
  });
});

describe('images', () => {
  it('are enlarged by whole factors', () => {
    const image: RgbImage = { width: 2, height: 1, data: Uint8Array.of(1, 2, 3, 4, 5, 6) };
    const large = enlarge(image, 2);
    expect([...large.data]).toEqual([1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6, 1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6]);
    expect(() => enlarge(image, 1.5)).toThrow(RangeError);
    expect([panelScale(176), panelScale(352), panelScale(704)]).toEqual([2, 1, 1]);
  });

  it('come from loaded ones, rounded and clamped', () => {
    const data = Float32Array.of(0, 0.5, 1, -1, 2, 10 / 255);
    expect([...toRgb({ id: 'a', width: 2, height: 1, data }).data]).toEqual([0, 128, 255, 0, 255, 10]);
  });

  it('take their truth apart into instances', () => {
    const masks = Uint8Array.of(1, 0, 0, 1);
    const target = makeTarget(new Float32Array(8), Int32Array.of(2, 1), masks);
    expect(targetInstances(target, 2, 1)).toEqual([
      { mask: Uint8Array.of(1, 0), label: 2 },
      { mask: Uint8Array.of(0, 1), label: 1 },
    ]);
  });
});

describe('text', () => {
  const ink: Colour = [0, 0, 0];
  const rows = (text: string) => {
    const image = grey(textWidth(text), textHeight(), 255);
    drawText(image, text, 0, 0, ink);
    return Array.from({ length: image.height }, (_, y) =>
      Array.from({ length: image.width }, (_, x) => (pixel(image, x, y)[0] === 0 ? '#' : '.')).join(''),
    );
  };

  it('has upright letters, a column between them, and a different glyph for each', () => {
    expect(rows('Lt')).toEqual([
      '#.......#..',
      '#.......#..',
      '#.....#####',
      '#.......#..',
      '#.......#..',
      '#.......#.#',
      '#####....#.',
      '...........',
    ]);
    const letters = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i));
    expect(new Set(letters.map((letter) => rows(letter).join('\n'))).size).toBe(95);
    expect(rows('é')).toEqual(rows('?'));
  });

  it('is cut off at the edges', () => {
    const image = grey(4, 4, 255);
    drawText(image, 'MMM', -3, -2, ink, 2);
    expect(image.data).toHaveLength(48);
    expect(image.data).toContain(0);
  });
});

describe('panels', () => {
  it('stand side by side below their titles', () => {
    const row = panelRow([
      { image: grey(30, 10, 10), title: 'one' },
      { image: grey(20, 5, 20), title: 'a title that is too long' },
    ]);
    const top = row.height - 10;
    expect(row.width).toBe(30 + 6 + 20);
    expect(pixel(row, 0, top)).toEqual([10, 10, 10]);
    expect(pixel(row, 29, top + 9)).toEqual([10, 10, 10]);
    expect(pixel(row, 32, top)).toEqual(white);
    expect(pixel(row, 36, top)).toEqual([20, 20, 20]);
    expect(pixel(row, 36, top + 5)).toEqual(white);
    // The title is there and stays above its own panel.
    const dark = (from: number, to: number) =>
      Array.from({ length: (to - from) * top }, (_, i) =>
        pixel(row, from + (i % (to - from)), Math.floor(i / (to - from))),
      ).some(([red]) => red < 255);
    expect([dark(0, 30), dark(30, 36), dark(36, 56)]).toEqual([true, false, true]);
  });

  it('form a grid with a legend that breaks into lines', () => {
    const row = panelRow([{ image: grey(100, 10), title: '' }]);
    const plain = panelGrid([row, row]);
    expect([plain.width, plain.height]).toEqual([112, 6 + 2 * (row.height + 6)]);
    const withLegend = panelGrid([row], ['round', 'spindle', 'branched']);
    const swatches = [1, 2, 3].map((label) => {
      const [red, green, blue] = classColour(label);
      let count = 0;
      for (let i = 0; i < withLegend.data.length; i += 3) {
        const { data } = withLegend;
        if (data[i] === red && data[i + 1] === green && data[i + 2] === blue) count++;
      }
      return count;
    });
    expect(swatches).toEqual([64, 64, 64]);
    expect(withLegend.height).toBeGreaterThan(panelGrid([row], ['round']).height);
  });

  it('compare image, truth and prediction', () => {
    const truth = [{ mask: rectangle(50, 40, 5, 5, 20, 20), label: 1 }];
    const picture = comparisonPicture([{ id: 'x', image: grey(50, 40), truth, predicted: [] }], ['round']);
    expect(picture.width).toBe(3 * 350 + 2 * 6 + 12);
    expect(picture.data).toHaveLength(3 * picture.width * picture.height);
    const middle = 6 + textHeight() + 4 + 15 * 7;
    const at = (panel: number) => pixel(picture, 6 + panel * 356 + 15 * 7, middle);
    expect(at(0)).toEqual([100, 100, 100]);
    expect(at(1)).not.toEqual([100, 100, 100]);
    expect(at(2)).toEqual([100, 100, 100]);
  });
});
