import { defineOperator, expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { MAX_LEVELS, type Pooling, poolLevel, poolLevelGradient, roiGeometry } from './roiPooling.ts';

/*
 * ROIAlign over a feature pyramid: each RoI is pooled from one level alone,
 *   level = floor(canonicalLevel + log2(√area / canonicalScale) + 1e-6), clamped to the levels there are,
 * which is decided on the device as area ≥ (canonicalScale · 2^(level - canonicalLevel - 1e-6))²: no logarithm, whose rounding
 * differs between devices. Rows stay in the order of the RoIs; one dispatch per level writes the rows of that level.
 */

/** Levels of a pyramid, and how RoIs are pooled from them. */
export interface MultiScaleRoiAlignOptions {
  /** Bins per side (S). */
  outputSize: number;
  /** Samples per bin and axis; 0 or less: ceil(RoI side / outputSize). */
  samplingRatio: number;
  /** Cells per pixel of each map, fine to coarse: powers of two. */
  scales: readonly number[];
  /** A RoI with sides of this many pixels … */
  canonicalScale: number;
  /** … belongs to the level of scale 2^-canonicalLevel. */
  canonicalLevel: number;
}

/** torchvision's `LevelMapper.eps`. */
const LEVEL_EPSILON = 1e-6;

function poolingOf(options: MultiScaleRoiAlignOptions): Pooling {
  const { outputSize, samplingRatio, scales, canonicalScale, canonicalLevel } = options;
  const finest = -Math.log2(scales[0]);
  // As torchvision, levels are counted from the first and the last scale; small maps' rounded scales may skip one between.
  const above = Math.min(-Math.log2(scales[scales.length - 1]) - finest, scales.length - 1);
  const areas = Array.from(
    { length: above },
    (_, index) => (canonicalScale * 2 ** (finest + index + 1 - canonicalLevel - LEVEL_EPSILON)) ** 2,
  );
  return { outputSize, samplingRatio, aligned: false, scales, areas };
}

type MultiScaleInputs = { f0: Tensor; f1?: Tensor; f2?: Tensor; f3?: Tensor; rois: Tensor };
const LEVEL_NAMES = ['f0', 'f1', 'f2', 'f3'] as const;

const name = 'multiscale_roi_align';

const operator = defineOperator<
  MultiScaleInputs,
  { [K in keyof MultiScaleRoiAlignOptions]: MultiScaleRoiAlignOptions[K] }
>({
  name,
  halves: LEVEL_NAMES,
  forward({ rois, ...maps }, params) {
    const features = LEVEL_NAMES.flatMap((level) => maps[level] ?? []);
    const { scales, outputSize } = params;
    const [images, , , channels] = features[0].shape;
    features.forEach((map, level) => {
      const fits = map.rank === 4 && map.shape[0] === images && map.shape[3] === channels;
      expectShape(fits, name, `f${level}`, `[${images}, H, W, ${channels}] as the other levels`, map);
    });
    expectShape(rois.rank === 2 && rois.shape[1] === 5, name, 'rois', '[K, 5]', rois);
    if (scales.length !== features.length || scales.some((scale) => !Number.isInteger(Math.log2(scale)))) {
      throw new Error(`${name}: scales: expected ${features.length} powers of two, got [${scales}].`);
    }
    const geometry = roiGeometry(rois, images, poolingOf(params));
    const y = rois.device.empty([rois.shape[0], outputSize, outputSize, channels], features[0].dtype);
    for (const [level, map] of features.entries()) poolLevel(map, geometry, level, y);
    return { output: y, saved: { geometry } };
  },
  backward: ({ shapes, saved: { geometry }, upstream }) =>
    Object.fromEntries(
      LEVEL_NAMES.map((input, level) => [
        input,
        (into?: Tensor) => poolLevelGradient(shapes[input] as readonly number[], geometry, level, upstream, into),
      ]),
    ),
  examples: [
    {
      inputs: {
        f0: { shape: [2, 12, 10, 4] },
        f1: { shape: [2, 6, 5, 4] },
        f2: { shape: [2, 3, 3, 4] },
        f3: undefined,
        rois: {
          shape: [5, 5],
          values: [0, 1, 2, 9, 8, 1, -3, 0, 37, 30, 1, 5, 9, 26, 29, 0, 12, 3, 21, 17, 0, 0, 0, 40, 48],
          differentiable: false,
        },
      },
      params: { outputSize: 3, samplingRatio: 2, scales: [0.25, 0.125, 0.0625], canonicalScale: 16, canonicalLevel: 3 },
    },
    {
      inputs: {
        f0: { shape: [1, 9, 8, 3] },
        f1: undefined,
        f2: undefined,
        f3: undefined,
        rois: { shape: [1, 5], values: [0, 2, 3, 20, 27], differentiable: false },
      },
      params: { outputSize: 2, samplingRatio: 0, scales: [0.25], canonicalScale: 224, canonicalLevel: 4 },
    },
  ],
});

/**
 * ROIAlign from a feature pyramid: [K, S, S, C] in the order of the RoIs, each pooled from the level that fits its area.
 * Gradients reach each level's map from the RoIs of that level only, in ascending order (deterministic); RoIs have none.
 *
 * @param features one to four maps [N, H, W, C], fine to coarse.
 * @param rois [K, 5]: image index, xmin, ymin, xmax, ymax in pixels; K may be 0. A row of no image of the batch gives zeros.
 * @throws Error on maps of unlike batch or channels, more than four levels, or scales that are no powers of two.
 * Source: torchvision.ops.MultiScaleRoIAlign (torchvision/ops/poolers.py), with the scales given instead of inferred.
 */
export function multiScaleRoiAlign(
  features: readonly Tensor[],
  rois: Tensor,
  options: MultiScaleRoiAlignOptions,
): Tensor {
  if (features.length < 1 || features.length > MAX_LEVELS) {
    throw new Error(`${name}: features: expected 1 to ${MAX_LEVELS} levels, got ${features.length}.`);
  }
  const [f0, f1, f2, f3] = features;
  return operator({ f0, f1, f2, f3, rois }, { ...options });
}
