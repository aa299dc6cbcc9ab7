import { describe, expect, it } from 'vitest';
import type { RgbImage } from '../../src/data/png.ts';
import { renderReport } from '../../src/report/reportPage.ts';
import { parseEpochRow, type ReportPanels } from '../../src/report/runReport.ts';
import { noise } from '../data/folders.ts';
import { type Element, readMarkup } from '../support/markup.ts';
import { HOSTILE, LOSSES, sampleEpochs, sampleReport } from './sampleRun.ts';

const elements = (name: string, page: readonly Element[]): Element[] => page.filter((element) => element.name === name);
const chartNames = (page: readonly Element[]): string[] =>
  elements('svg', page).map(({ attributes }) => attributes['aria-label']);
const rows = (page: readonly Element[]): string[] => elements('tr', page).map(({ text }) => text);
/** The two texts of each fact. */
const facts = (page: readonly Element[]): [string, string][] => {
  const names = elements('dt', page).map(({ text }) => text);
  return names.map((name, i) => [name, elements('dd', page)[i].text]);
};

const picture: RgbImage = { width: 20, height: 10, data: noise(20, 10, 3) };
const panels = (views: ReportPanels['index']['panels'][number]['views'], score: number | null): ReportPanels => ({
  index: {
    epoch: 5,
    thresholds: { minScore: [0, 0.3], maskThreshold: [0, 0.5] },
    panels: [
      {
        id: `image ${HOSTILE}`,
        file: 'a.png',
        score,
        boxes: 6,
        counts: [{ class: `class ${HOSTILE}`, label: 1, truth: 9, found: 7, detected: 30 }],
        views,
      },
    ],
  },
  pictures: [{ image: picture, href: 'panels/a.png' }],
});
const place = (x: number) => ({ x, y: 1, width: 4, height: 8 });

describe('the report of a finished run', () => {
  const text = renderReport(sampleReport());
  const page = readMarkup(text);

  it('is one well-formed page that asks for nothing', () => {
    expect(elements('html', page)).toHaveLength(1);
    expect(elements('script', page)).toEqual([]);
    expect(elements('link', page)).toEqual([]);
    for (const { name, attributes } of page) {
      for (const key of ['src', 'srcset', 'action', 'xlink:href']) expect(attributes[key], name).toBeUndefined();
      if (attributes.href !== undefined && name !== 'a')
        expect(attributes.href).toMatch(/^(data:image\/png;base64,|#)/);
    }
    const [style] = /<style>.*<\/style>/s.exec(text)!;
    expect(style).not.toMatch(/url\(|@import/);
  });

  it('has a curve of every loss, of scores, learning rate and time', () => {
    expect(chartNames(page)).toEqual([
      'Scores on the validation images',
      'Total loss',
      'RPN objectness loss',
      'RPN box regression loss',
      'Classifier loss',
      'Box regression loss',
      'Mask loss',
      'Learning rate',
      'Time of a training step',
    ]);
    // The best epoch is marked in each but the last two.
    expect(elements('text', page).filter((label) => label.text === 'best: 5')).toHaveLength(7);
    const ids = page.flatMap(({ attributes }) => attributes.id ?? []);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it('shows names as they are, whatever they hold', () => {
    expect(elements('h1', page)[0].text).toBe(`Training run run ${HOSTILE}`);
    expect(elements('title', page)[0].text).toBe(`Training run run ${HOSTILE}`);
    const whole = elements('body', page)[0].text;
    for (const name of ['folder', 'class', 'llvmpipe', 'config']) expect(whole).toContain(`${name} ${HOSTILE}`);
  });

  it('tells scores, best epoch, thresholds and cells of each class', () => {
    expect(elements('body', page)[0].text).toContain('Finished');
    const told = facts(page);
    expect(told).toContainEqual(['Competition score', '0.346thresholds chosen on validation']);
    expect(told).toContainEqual(['Best epoch', '5of 6, by competition score']);
    expect(told).toContainEqual(['Time of a step', '0.43 smedian, on lavapipe']);
    expect(rows(page)).toContainEqual(`class ${HOSTILE}1,234400.300.450.1110.2000.3000.400`);
    expect(rows(page)).toContainEqual('other206500.550.50–0.500–0.600');
  });

  it('has a row for each epoch, the best one marked', () => {
    const epochs = elements('tr', page).filter(({ text }) => text.endsWith(' s') && /^\d/.test(text));
    expect(epochs).toHaveLength(6);
    expect(epochs.map(({ attributes }) => attributes.class)).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
      'best',
      undefined,
    ]);
    expect(epochs[0].text).toBe(
      [
        '1',
        '0.000',
        '0.000',
        '0.000',
        '0.000',
        '2.600',
        '3.100',
        '0.600',
        '0.610',
        '0.620',
        '0.630',
        '0.640',
        '0.02',
        '0.40 s',
      ].join(''),
    );
  });

  it('tells configuration, data, adapter of every session, and links the files', () => {
    const told = facts(page);
    expect(told).toContainEqual(['Learning rate', '0.02']);
    expect(told).toContainEqual(['Seed', '2021']);
    expect(told).toContainEqual(['StepLR', 'none']);
    expect(told).toContainEqual(['Final decay', 'share 0.15, factor 0.1']);
    expect(told).toContainEqual(['Images to train', '60']);
    expect(told).toContainEqual(['Cells to train', '1,440']);
    expect(told).toContainEqual(['Cells of an image', '0 to 40, median 10.5']);
    expect(told).toContainEqual(['Adapter', `llvmpipe ${HOSTILE} (lavapipe)`]);
    expect(told).toContainEqual(['Parameters of the model', '492,631']);
    expect(rows(page)).toContainEqual('15 Feb 2026, 09:03 UTCcut offSwiftShader (swiftshader)');
    const links = elements('a', page).map(({ attributes }) => attributes.href);
    expect(links).toEqual(['config%20x.json']);
  });

  it('is the same text each time', () => {
    expect(renderReport(sampleReport())).toBe(text);
  });
});

describe('pictures', () => {
  const views = {
    image: place(0),
    truth: place(5),
    prediction: place(10),
    truthBoxes: place(5),
    predictedBoxes: place(15),
  };

  it('lie as layers over one picture, with counts and score', () => {
    const page = readMarkup(renderReport(sampleReport({ panels: panels(views, 0.1234) })));
    const [article] = elements('article', page);
    expect(article.text).toContain(`image ${HOSTILE}9 cells, 7 found, 30 before thresholds`);
    expect(article.text).toContain('score of this image 0.123');
    expect(article.text).toContain(`Truth: 9 class ${HOSTILE}`);
    expect(article.text).toContain(`Found: 7 class ${HOSTILE}`);
    expect(article.text).toContain('Boxes found, after NMS at IoU .6: 6');
    const images = elements('image', page);
    expect(images).toHaveLength(5);
    for (const { attributes } of images) {
      expect(attributes.href).toMatch(/^data:image\/png;base64,iVBOR/);
      expect([attributes.width, attributes.height]).toEqual(['4', '8']);
    }
    expect(elements('use', page).map(({ attributes }) => attributes.href)).toEqual(
      Array(4).fill(`#${images[0].attributes.id}`),
    );
    expect(elements('a', page).filter(({ attributes }) => attributes.href === 'panels/a.png')).toHaveLength(5);
  });

  it('of a box-only model are its boxes', () => {
    const { image, truthBoxes, predictedBoxes } = views;
    const page = readMarkup(
      renderReport(sampleReport({ panels: panels({ image, truthBoxes, predictedBoxes }, null) })),
    );
    expect(elements('image', page)).toHaveLength(3);
    expect(elements('details', page)).toEqual([]);
    expect(elements('article', page)[0].text).not.toContain('score of this image');
  });
});

describe('the report of another run', () => {
  it('that was stopped says how far it is, and takes its scores from the best epoch', () => {
    const epochs = sampleEpochs(3);
    const page = readMarkup(renderReport(sampleReport({ epochs, bestEpoch: 3, final: null })));
    expect(elements('body', page)[0].text).toContain('3 of 6 epochs done');
    expect(facts(page)).toContainEqual(['Competition score', '0.100on the validation images']);
  });

  it('that has ended no epoch, or noted nothing of its machine, is a page all the same', () => {
    const page = readMarkup(
      renderReport(
        sampleReport({ epochs: [], bestEpoch: null, learningRate: [], classes: [], final: null, environment: null }),
      ),
    );
    expect(elements('body', page)[0].text).toContain('No epoch finished yet');
    expect(chartNames(page)).toEqual([]);
    expect(facts(page)).toContainEqual(['Adapter', 'not recorded']);
  });

  it('of a single epoch draws its points', () => {
    const page = readMarkup(renderReport(sampleReport({ epochs: sampleEpochs(1), plannedEpochs: 1, bestEpoch: 1 })));
    expect(chartNames(page)).toHaveLength(9);
  });

  it('of a box-only model has no curve of masks', () => {
    const epochs = sampleEpochs(4, LOSSES.slice(0, 4)).map((row) => ({
      ...row,
      scores: { ...row.scores, iouMap: null, maskAP50: null },
    }));
    const page = readMarkup(renderReport(sampleReport({ epochs, final: null })));
    expect(chartNames(page)).not.toContain('Mask loss');
    expect(chartNames(page)).toHaveLength(8);
    expect(facts(page).map(([name]) => name)).not.toContain('Competition score');
    expect(rows(page).find((row) => row.startsWith('Epoch'))).not.toContain('Mask');
  });
});

describe('parseEpochRow', () => {
  const line = {
    epoch: 2,
    steps: 5,
    lr: 0.1,
    secondsPerStep: 1,
    train: { total: 1 },
    validation: { total: 2 },
    iouMap: null,
    extra: 0.5,
    coco: { bbox: [1] },
  };

  it('takes every other number as a score', () => {
    const { iouMap, extra, coco, ...rest } = line;
    expect(parseEpochRow(JSON.stringify(line))).toEqual({ ...rest, scores: { iouMap, extra } });
  });

  it('refuses what is no line of metrics', () => {
    expect(parseEpochRow('{"epoch": 1')).toBeNull();
    expect(parseEpochRow('{"epoch": 1}')).toBeNull();
    expect(parseEpochRow(JSON.stringify({ ...line, train: { total: 'x' } }))).toBeNull();
  });
});
