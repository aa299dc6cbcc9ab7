/** The metrics of a data case. */
import { rleDecode } from '../data/rle.ts';
import { meanAveragePrecisionForBoxes } from '../eval/boxAveragePrecision.ts';
import { COCO_STATS } from '../eval/cocoAccumulator.ts';
import { evaluateCoco } from '../eval/cocoEval.ts';
import type { CocoResult, CocoTruth } from '../eval/cocoFiles.ts';
import { iouMap } from '../eval/competitionScore.ts';
import { computeMAP } from '../eval/computeMAP.ts';
import { maskIou, packMasks } from '../eval/maskIou.ts';
import type { DataValues } from './dataSchema.ts';
import type { DataGolden } from './golden.ts';
import { compareExactly, compareValues, type Row } from './rows.ts';

/** Scores lie in 0…1; differences are absolute. */
const METRIC = { tolerance: 1e-6, scale: 1 };

/** The notebook's two box scores. */
export function boxRows({ values: { boxAP } }: DataGolden): Row[] {
  return boxAP.flatMap((item, i) => [
    ...averagePrecisionRows(item, `boxAP.${i}`),
    ...computeMAPRows(item, `boxAP.${i}`),
  ]);
}

type BoxCase = DataValues['boxAP'][number];

function averagePrecisionRows(
  { annotations, predictions, meanAveragePrecisionForBoxes: byThreshold }: BoxCase,
  at: string,
): Row[] {
  const stage = 'meanAveragePrecisionForBoxes';
  return Object.entries(byThreshold).flatMap(([threshold, { mAP, perClass }]) => {
    const own = meanAveragePrecisionForBoxes(annotations, predictions, Number(threshold));
    const name = `${at}.${stage}.${threshold}`;
    const [classes, expected] = [own.perClass, perClass].map((item) => Object.keys(item).sort());
    return [
      compareValues([own.mean], [mAP], { name: `${name}.mAP`, stage, ...METRIC }),
      compareExactly(classes, expected, { name: `${name}.perClass`, stage }),
      ...expected
        .filter((label) => Object.hasOwn(own.perClass, label))
        .map((label) => {
          const { averagePrecision, annotations: count } = own.perClass[label];
          const comparison = { name: `${name}.perClass.${label}`, stage, ...METRIC };
          return compareValues([averagePrecision, count], perClass[label], comparison);
        }),
    ];
  });
}

function computeMAPRows({ annotations, predictions, computeMAP: expected }: BoxCase, at: string): Row[] {
  const truths = annotations.map(([imageId, label, x0, x1, y0, y1]) => ({
    ...{ imageId, label: Number(label), score: 1 },
    box: [x0, y0, x1, y1] as const,
  }));
  const found = predictions.map(([imageId, label, score, x0, x1, y0, y1]) => ({
    ...{ imageId, label: Number(label), score },
    box: [x0, y0, x1, y1] as const,
  }));
  const own = computeMAP(truths, found, expected.nClasses);
  const stage = 'computeMAP';
  return [
    compareValues([own.mean], [expected.mAP], { name: `${at}.${stage}.mAP`, stage, ...METRIC }),
    compareValues(own.perThreshold, expected.perThreshold, { name: `${at}.${stage}.perThreshold`, stage, ...METRIC }),
  ];
}

/** The competition's score of sets and of their images. */
export function iouMapRows({ values }: DataGolden): Row[] {
  const stage = 'iouMap';
  return values.iouMap.flatMap(({ shape: [height, width], images, score }, i) => {
    const tables = images.map(({ truth, predicted }, j) => {
      const masks = (texts: readonly string[], part: string) =>
        texts.flatMap((text, k) =>
          packMasks(rleDecode(text, width, height, `iouMap.${i}.images.${j}.${part}.${k}`), width, height),
        );
      const [truths, predictions] = [masks(truth, 'truth'), masks(predicted, 'predicted')];
      return { iou: maskIou(predictions, truths), predicted: predictions.length, truth: truths.length };
    });
    const perImage = images.flatMap((expected, j) => {
      const own = iouMap([tables[j]]);
      const name = `${stage}.${i}.images.${j}`;
      return [
        compareValues([own.score], [expected.score], { name: `${name}.score`, stage, ...METRIC }),
        compareValues(own.perThreshold, expected.perThreshold, { name: `${name}.perThreshold`, stage, ...METRIC }),
      ];
    });
    return [
      ...perImage,
      compareValues([iouMap(tables).score], [score], { name: `${stage}.${i}.score`, stage, ...METRIC }),
    ];
  });
}

/** COCO's twelve numbers for masks and boxes. */
export function cocoRows({ values: { coco } }: DataGolden): Row[] {
  return coco.flatMap(({ truth, detections, stats }, i) =>
    (['segm', 'bbox'] as const).flatMap((iouType) => {
      const names = { truth: `coco.${i}.truth`, results: `coco.${i}.detections` };
      // Their forms are looked at by `evaluateCoco` itself.
      const own = evaluateCoco(truth as unknown as CocoTruth, detections as CocoResult[], iouType, names).stats;
      return COCO_STATS.map(({ name: stat }, k) => {
        const name = `coco.${i}.stats.${iouType}.${k} (${stat})`;
        return compareValues([own[k]], [stats[iouType][k]], { name, stage: `COCO ${iouType}`, ...METRIC });
      });
    }),
  );
}
