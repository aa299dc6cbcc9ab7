import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  formatBytes,
  formatCount,
  formatDuration,
  formatMoment,
  formatNumber,
  formatScore,
  median,
} from '../../src/report/format.ts';
import { html, trusted } from '../../src/report/html.ts';
import { readMarkup } from '../support/markup.ts';

describe('html', () => {
  it('escapes texts wherever they stand, and keeps what is HTML', () => {
    const text = `<b onclick="x">'&amp;`;
    const { text: page } = html`<p title="${text}">${text}${trusted('<i>ok</i>')}</p>`;
    const [paragraph, italic] = readMarkup(page);
    expect(paragraph).toMatchObject({ attributes: { title: text }, text: `${text}ok` });
    expect(italic.name).toBe('i');
  });

  it('joins lists and leaves out null and false', () => {
    expect(html`${[html`<i>`, ['a', 1], null]}${false}${null}${0}`.text).toBe('<i>a10');
  });

  it('gives every text back through a reader', () => {
    const printable = fc.string({ unit: 'grapheme' }).filter((text) => !/[\r\0]/.test(text));
    fc.assert(
      fc.property(printable, (text) => {
        const [element] = readMarkup(html`<p title="${text}">${text}</p>`.text);
        expect(element).toEqual({ name: 'p', attributes: { title: text }, text });
      }),
    );
  });
});

describe('numbers', () => {
  it.each([
    [formatScore(0.12345), '0.123'],
    [formatScore(null), '–'],
    [formatCount(1234567), '1,234,567'],
    [formatNumber(0), '0'],
    [formatNumber(0.02), '0.02'],
    [formatNumber(0.0001), '0.0001'],
    [formatNumber(1.5e-7), '1.5e-7'],
    [formatNumber(0.16666666), '0.167'],
    [formatNumber(1234.4), '1,234'],
    [formatNumber(-2.3456), '-2.35'],
    [formatDuration(0.0049), '4.9 ms'],
    [formatDuration(0.085), '85 ms'],
    [formatDuration(0.4149), '0.41 s'],
    [formatDuration(9.96), '10 s'],
    [formatDuration(59.6), '1 min 0 s'],
    [formatDuration(185), '3 min 5 s'],
    [formatDuration(3599.7), '1 h 0 min'],
    [formatDuration(7800), '2 h 10 min'],
    [formatBytes(999), '999 B'],
    [formatBytes(15700), '15.7 kB'],
    [formatBytes(999_700), '1 MB'],
    [formatBytes(3_968_152), '3.97 MB'],
    [formatBytes(123_400_000_000), '123 GB'],
    [formatMoment('2026-02-05T09:03:59.000Z'), '5 Feb 2026, 09:03 UTC'],
  ])('read %s', (text, expected) => {
    expect(text).toBe(expected);
  });

  it('have a median', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(median([])).toBeNaN();
  });
});
