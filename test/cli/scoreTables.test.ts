import { expect, it } from 'vitest';
import { scoreTables } from '../../src/cli/scoreTables.ts';
import { Evaluator } from '../../src/eval/evaluator.ts';
import { cells, certain, detectionsOf, height, targetOf, width } from '../eval/cells.ts';

/** The cells of a table's rows, by their first. */
function rows(text: string): Map<string, string[]> {
  const lines = text.split('\n').filter((line) => line.startsWith('│'));
  const split = lines.map((line) =>
    line
      .split('│')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
  return new Map(split.map(([name, ...rest]) => [name, rest]));
}

it.each([true, false])('shows every score, dashes where there is none; masks: %s', (withMasks) => {
  const evaluator = new Evaluator({ numClasses: 4 });
  evaluator.add(detectionsOf(certain(cells.slice(1)), withMasks), targetOf(cells), width, height);
  const scores = evaluator.compute();
  const shown = rows(scoreTables(scores, ['disc', 'oval', 'rod']));
  const masks = (text: string): string => (withMasks ? text : '–');
  expect(shown.get('competition score (IoU .50:.95)')).toEqual([masks('0.6667')]);
  expect(shown.get('box mAP (NMS .3, IoU .3)')).toEqual(['0.7500']);
  expect(shown.get("the notebook's compute_mAP")).toEqual([scores.computeMAP.toFixed(4)]);
  expect(shown.get('cells')).toEqual(['3']);
  expect(shown.get('disc')).toEqual([
    '2',
    masks('0.5000'),
    '0.5000',
    masks('0.5000'),
    '0.5000',
    masks('0.5050'),
    '0.5050',
  ]);
  // A class that the data set lacks.
  expect(shown.get('rod')).toEqual(['0', '–', '–', '–', '–', '–', '–']);
  expect(shown.get('AP')).toEqual(['IoU .50:.95', masks('0.7525'), '0.7525']);
  expect(shown.get('ARl')).toEqual(['large', '–', '–']);
});
