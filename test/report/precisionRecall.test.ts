import { describe, expect, it } from 'vitest';
import { cocoData } from '../../bench/cocoData.ts';
import { evaluateCoco } from '../../src/eval/cocoEval.ts';
import { precisionRecallPicture } from '../../src/report/precisionRecall.ts';

const { truth, results } = cocoData(2, { images: 4, detections: 60, width: 160, height: 120 });
const evaluation = (iouType: 'segm' | 'bbox') => evaluateCoco(truth, results, iouType);

describe('precisionRecallPicture', () => {
  it('draws a panel for each threshold and kind, a line for each class with its average precision', () => {
    const [segm, bbox] = [evaluation('segm'), evaluation('bbox')];
    const svg = precisionRecallPicture({ segm, bbox }, ['astro', 'cort', 'shsy5y']);
    for (const title of ['Masks, IoU ≥ 0.50', 'Masks, IoU ≥ 0.75', 'Boxes, IoU ≥ 0.50', 'Boxes, IoU ≥ 0.75']) {
      expect(svg.split(title)).toHaveLength(2);
    }
    // AP50 of each class stands in the panel of IoU .50.
    for (const [k, name] of ['astro', 'cort', 'shsy5y'].entries()) {
      for (const { perClass } of [segm, bbox]) expect(svg).toContain(`${name}, AP ${perClass[k].stats[1].toFixed(3)}`);
    }
    const ids = [...svg.matchAll(/\bid="([^"]+)"/g)].map(([, id]) => id);
    expect(new Set(ids).size).toBe(ids.length);
    for (const [, id] of svg.matchAll(/url\(#([^)]+)\)/g)) expect(ids).toContain(id);
  });

  it('leaves out masks of a box-only model and classes without truths', () => {
    const bbox = evaluateCoco({ ...truth, categories: [...truth.categories, { id: 9 }] }, results, 'bbox');
    const svg = precisionRecallPicture({ segm: null, bbox }, ['astro', 'cort', 'shsy5y', 'absent']);
    expect(svg).not.toContain('Masks');
    expect(svg).not.toContain('absent');
    expect(svg.match(/shsy5y, AP/g)).toHaveLength(2);
  });

  it('draws the mean of more classes than it can name, and a single class under its name', () => {
    const categories = Array.from({ length: 7 }, (_, i) => ({ id: i + 1 }));
    const annotations = truth.annotations.map((annotation, i) => ({ ...annotation, category_id: 1 + (i % 7) }));
    const many = evaluateCoco({ ...truth, categories, annotations }, results, 'bbox');
    const names = categories.map(({ id }) => `class ${id}`);
    const svg = precisionRecallPicture({ segm: null, bbox: many }, names);
    expect(svg).toContain(`IoU ≥ 0.50: mean of 7 classes, AP ${many.stats[1].toFixed(3)}`);
    const one = evaluateCoco(
      { ...truth, categories: [{ id: 1 }], annotations: annotations.map((a) => ({ ...a, category_id: 1 })) },
      results,
      'bbox',
    );
    expect(precisionRecallPicture({ segm: null, bbox: one }, ['cell'])).toContain(
      `IoU ≥ 0.50: cell, AP ${one.stats[1].toFixed(3)}`,
    );
  });
});
