import type { Reference, RefTensor } from './index.ts';

interface Sampling {
  outputSize: number;
  samplingRatio: number;
  aligned?: boolean;
}

/**
 * The value of channel c at a real place: 0 more than a cell outside the map, else interpolated between the four cells
 * around the place moved onto the map.
 */
function bilinear(x: RefTensor, image: number, y: number, column: number, c: number): number {
  const [, height, width, channels] = x.shape;
  if (!(y >= -1 && y <= height && column >= -1 && column <= width)) return 0;
  const at = (r: number, k: number) =>
    x.data[((image * height + Math.min(r, height - 1)) * width + Math.min(k, width - 1)) * channels + c];
  const [py, px] = [Math.min(Math.max(y, 0), height - 1), Math.min(Math.max(column, 0), width - 1)];
  const [r, k] = [Math.floor(py), Math.floor(px)];
  const top = at(r, k) + (at(r, k + 1) - at(r, k)) * (px - k);
  const bottom = at(r + 1, k) + (at(r + 1, k + 1) - at(r + 1, k)) * (px - k);
  return top + (bottom - top) * (py - r);
}

/** Bins of one RoI (xmin, ymin, xmax, ymax) of one image: [S, S, C], written at `out[from …]`. */
function pool(
  x: RefTensor,
  image: number,
  box: ArrayLike<number>,
  scale: number,
  options: Sampling,
  out: Float64Array,
  from: number,
) {
  const { outputSize: bins, samplingRatio, aligned = false } = options;
  const channels = x.shape[3];
  if (image < 0 || image >= x.shape[0]) return;
  const shift = aligned ? 0.5 : 0;
  const [x1, y1, x2, y2] = Array.from(box, (value) => value * scale - shift);
  const height = aligned ? y2 - y1 : Math.max(y2 - y1, 1);
  const width = aligned ? x2 - x1 : Math.max(x2 - x1, 1);
  const rows = samplingRatio > 0 ? samplingRatio : Math.ceil(height / bins);
  const columns = samplingRatio > 0 ? samplingRatio : Math.ceil(width / bins);
  for (let by = 0; by < bins; by++) {
    for (let bx = 0; bx < bins; bx++) {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        for (let i = 0; i < rows; i++) {
          for (let j = 0; j < columns; j++) {
            const y = y1 + ((by + (i + 0.5) / rows) * height) / bins;
            sum += bilinear(x, image, y, x1 + ((bx + (j + 0.5) / columns) * width) / bins, c);
          }
        }
        out[from + (by * bins + bx) * channels + c] = sum / Math.max(rows * columns, 1);
      }
    }
  }
}

/** ROIAlign by definition: every sample interpolated by itself, then the mean. */
export const roiAlign: Reference = ({ x, rois }, params) => {
  const options = params as unknown as Sampling & { spatialScale: number };
  const [count, bins, channels] = [rois.shape[0], options.outputSize, x.shape[3]];
  const row = bins * bins * channels;
  const data = new Float64Array(count * row);
  for (let k = 0; k < count; k++) {
    const box = rois.data.subarray(k * 5 + 1, k * 5 + 5);
    pool(x, rois.data[k * 5], box, options.spatialScale, options, data, k * row);
  }
  return { shape: [count, bins, bins, channels], data };
};

export interface LevelRule {
  scales: number[];
  canonicalScale: number;
  canonicalLevel: number;
}

/** Index of the map that a box belongs to: equation (1) of "Feature Pyramid Networks", clamped. */
export function levelOf(box: ArrayLike<number>, { scales, canonicalScale, canonicalLevel }: LevelRule): number {
  const side = Math.sqrt((box[2] - box[0]) * (box[3] - box[1]));
  const [finest, coarsest] = [-Math.log2(scales[0]), -Math.log2(scales[scales.length - 1])];
  const level = Math.floor(canonicalLevel + Math.log2(side / canonicalScale) + 1e-6);
  return Math.min(Math.max(level, finest), coarsest) - finest;
}

/** Each RoI pooled from its level's map. */
export const multiScaleRoiAlign: Reference = (inputs, params) => {
  const options = params as unknown as Sampling & LevelRule;
  const { rois } = inputs;
  const maps = ['f0', 'f1', 'f2', 'f3'].flatMap((name) => inputs[name] ?? []);
  const [count, bins, channels] = [rois.shape[0], options.outputSize, maps[0].shape[3]];
  const row = bins * bins * channels;
  const data = new Float64Array(count * row);
  for (let k = 0; k < count; k++) {
    const box = rois.data.subarray(k * 5 + 1, k * 5 + 5);
    const level = levelOf(box, options);
    pool(maps[level], rois.data[k * 5], box, options.scales[level], options, data, k * row);
  }
  return { shape: [count, bins, bins, channels], data };
};
