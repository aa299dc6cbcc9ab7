import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TensorToWrite, writeSafetensors } from '../../src/model/safetensors.ts';

const bytes = (name: string, shape: number[], ...values: number[]): TensorToWrite => ({
  name,
  dtype: 'U8',
  shape,
  data: Uint8Array.from(values),
});

/** An image of one grey level; OpenCV gives the same level at every size. */
const flat = (name: string, height: number, width: number): TensorToWrite =>
  bytes(name, [height, width, 3], ...Array<number>(height * width * 3).fill(70));

/** Worked by hand, but for the split (scikit-learn 1.9) and the descriptions (pandas 3.1). */
const values = () => ({
  seed: 1,
  rle: { shape: [2, 3], masks: [{ rle: '2 3 6 1', area: 4 }] },
  rleSmall: [
    {
      mask: [
        [0, 1, 1],
        [1, 0, 1],
      ],
      rle: '2 3 6 1',
    },
  ],
  removeOverlaps: { shape: [2, 4], in: ['1 3', '2 4'], out: ['1 3', '4 2'] },
  resizeMask: { in: ['1 1', '8 1'] },
  boxes: [
    [0, 0, 0, 0],
    [1, 0, 1, 0],
  ],
  split: [{ testSize: 0.25, randomState: 7, train: [1, 7, 3, 5, 2, 4], test: [6, 0] }],
  splitTypes: [...'abababbb'],
  describe: {
    counts: [3, 10, 5, 20, 12, 4, 9, 1],
    byType: {
      a: { count: 3, mean: 6.666666666666667, std: 4.725815626252609, min: 3, '25%': 4, '50%': 5, '75%': 8.5, max: 12 },
      b: { count: 5, mean: 8.8, std: 7.259476565152614, min: 1, '25%': 4, '50%': 9, '75%': 10, max: 20 },
    },
    qcut5Edges: {
      a: [3, 3.8, 4.6, 6.400000000000003, 9.200000000000001, 12],
      b: [1, 3.4000000000000004, 7, 9.4, 12.000000000000002, 20],
    },
  },
  boxAP: [
    {
      annotations: [[0, '1', 0, 10, 0, 10]],
      predictions: [[0, '1', 0.9, 0, 10, 0, 10]],
      meanAveragePrecisionForBoxes: { '0.5': { mAP: 1, perClass: { '1': [1, 1] } } },
      // The area under one step of recall and precision 1 / (1 + 1e-6), halved for the background.
      computeMAP: { nClasses: 2, mAP: 0.49999925, perThreshold: Array<number>(9).fill(0.49999925) },
    },
  ],
  iouMap: [
    {
      shape: [2, 4],
      // IoU .75 is above five of the ten thresholds.
      images: [{ truth: ['1 4'], predicted: ['1 3'], score: 0.5, perThreshold: [1, 1, 1, 1, 1, 0, 0, 0, 0, 0] }],
      score: 0.5,
    },
  ],
  coco: [
    {
      truth: {
        images: [{ id: 1, height: 2, width: 4 }],
        annotations: [
          {
            ...{ id: 1, image_id: 1, category_id: 1, iscrowd: 0, area: 4, bbox: [0, 0, 2, 2] },
            segmentation: { size: [2, 4], counts: [0, 4, 4] },
          },
        ],
        categories: [{ id: 1, name: 'round' }],
      },
      detections: [{ image_id: 1, category_id: 1, score: 0.9, segmentation: { size: [2, 4], counts: [0, 4, 4] } }],
      // A small cell: nothing is medium or large.
      stats: { segm: [1, 1, 1, 1, -1, -1, 1, 1, 1, 1, -1, -1], bbox: [1, 1, 1, 1, -1, -1, 1, 1, 1, 1, -1, -1] },
    },
  ],
});

export type SmallData = ReturnType<typeof values>;

/** A fresh folder of a data case. `change` may spoil its values or tensors. */
export function dataFolder(
  change: (values: SmallData, tensors: TensorToWrite[]) => void = () => undefined,
  rewrite: (text: string) => string = (text) => text,
): string {
  const folder = mkdtempSync(join(tmpdir(), 'data-golden-'));
  const json = values();
  const tensors = [
    bytes('combine.in', [2, 1, 3], 200, 100, 255, 0, 160, 154),
    bytes('combine.out', [1, 3], 1, 2, 1),
    flat('resize.image.in', 2, 4),
    flat('resize.image.out', 1, 2),
    flat('resize.image.out_odd', 1, 3),
    flat('resize.image.out_up', 3, 5),
    bytes('resize.mask.out', [2, 1, 2], 1, 0, 0, 1),
  ];
  change(json, tensors);
  writeFileSync(join(folder, 'data.json'), rewrite(JSON.stringify(json)));
  writeSafetensors(join(folder, 'data.safetensors'), tensors);
  return folder;
}
