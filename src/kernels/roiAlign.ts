import { defineOperator, expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { poolLevel, poolLevelGradient, roiGeometry } from './roiPooling.ts';

/* Mean of bilinear samples over each bin of each RoI; mathematics and kernels are in roiPooling.ts. */

export interface RoiAlignOptions {
  /** Bins per side (S). */
  outputSize: number;
  /** Cells of the map per unit of the RoIs' coordinates. */
  spatialScale: number;
  /** Samples per bin and axis; 0 or less: ceil(RoI side / outputSize). */
  samplingRatio: number;
  /** True shifts by half a cell, so that a cell's centre lies at +½, and lets RoIs be smaller than one cell. Default false. */
  aligned?: boolean;
}

const operator = defineOperator<{ x: Tensor; rois: Tensor }, { [K in keyof RoiAlignOptions]: RoiAlignOptions[K] }>({
  name: 'roi_align',
  halves: ['x'],
  forward({ x, rois }, { outputSize, spatialScale, samplingRatio, aligned = false }) {
    expectShape(x.rank === 4, 'roi_align', 'x', '[N, H, W, C]', x);
    expectShape(rois.rank === 2 && rois.shape[1] === 5, 'roi_align', 'rois', '[K, 5]', rois);
    const pooling = { outputSize, samplingRatio, aligned, scales: [spatialScale], areas: [] };
    const geometry = roiGeometry(rois, x.shape[0], pooling);
    const y = x.device.empty([rois.shape[0], outputSize, outputSize, x.shape[3]], x.dtype);
    poolLevel(x, geometry, 0, y);
    return { output: y, saved: { geometry } };
  },
  backward: ({ shapes, saved: { geometry }, upstream }) => ({
    x: (into) => poolLevelGradient(shapes.x, geometry, 0, upstream, into),
  }),
  examples: [
    {
      inputs: {
        x: { shape: [2, 9, 11, 4] },
        rois: {
          shape: [4, 5],
          values: [1, 3, 5, 30, 28, 0, -9, -6, 12, 11, 1, 20, 17, 60, 50, 0, 7, 7, 7, 7],
          differentiable: false,
        },
      },
      params: { outputSize: 4, spatialScale: 0.25, samplingRatio: 2 },
    },
    {
      inputs: {
        x: { shape: [1, 14, 13, 3] },
        rois: { shape: [2, 5], values: [0, 1, 1, 25, 26, 0, 6, 2, 13, 9], differentiable: false },
      },
      params: { outputSize: 2, spatialScale: 0.5, samplingRatio: 0, aligned: true },
    },
  ],
});

/**
 * ROIAlign: x [N, H, W, C] pooled over RoIs [K, 5] to [K, S, S, C]. The gradient reaches x only and is deterministic.
 *
 * @param rois image index, xmin, ymin, xmax, ymax in units of 1 / spatialScale cells; K may be 0. A row of no image of the
 * batch gives zeros.
 * Source: torchvision.ops.roi_align; He et al., Mask R-CNN, 2017, section 3.
 */
export function roiAlign(x: Tensor, rois: Tensor, options: RoiAlignOptions): Tensor {
  return operator({ x, rois }, { ...options });
}
