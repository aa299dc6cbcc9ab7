/**
 * What this program asks of another engine, and the answers: lines of JSON over stdin and stdout. Tensors travel in files of raw
 * little-endian float32 or int32, in this program's layouts: maps [N, H, W, C], convolution weights [kh, kw, in, out], boxes
 * xmin, ymin, xmax, ymax. An engine brings them into its own layout before anything is timed.
 */

/** A convolution of [images, height, width, in] by [kernel, kernel, in, out]. */
export interface ConvShape {
  images: number;
  height: number;
  width: number;
  in: number;
  out: number;
  kernel: number;
  stride: number;
  padding: number;
}

/** `y` is the output; `dx` and `dw` the gradients by input and weight. */
export type ConvResult = 'y' | 'dx' | 'dw';

export type Work =
  /** a [n, n] · b [n, n] = y */
  | { op: 'matmul'; n: number }
  /** Inputs x, weight, upstream (the loss's gradient by y); `results` are wanted, and no other is computed. */
  | { op: 'conv2d'; shape: ConvShape; results: readonly ConvResult[] }
  /** Inputs boxes [count, 4] and scores [count]; the result `kept` holds indices, best first (int32). */
  | { op: 'nms'; count: number; threshold: number }
  /** Inputs x [1, height, width, channels], rois [count, 5] (0, box) and upstream [count, bins, bins, channels]. */
  | { op: 'roiAlign'; setting: RoiSetting; results: readonly ('y' | 'dx')[] }
  /** An ONNX file as torchvision exports it; its input x [3, height, width] from 0 to 1, its results under the file's names. */
  | { op: 'onnx'; file: string; height: number; width: number };

export interface RoiSetting {
  count: number;
  bins: number;
  channels: number;
  height: number;
  width: number;
  spatialScale: number;
  samplingRatio: number;
}

/** A tensor in a file. */
export interface Stored {
  file: string;
  shape: number[];
  dtype: 'float32' | 'int32';
}

export type Request =
  | { do: 'prepare'; work: Work; inputs: Record<string, Stored>; folder: string }
  | { do: 'run' }
  | { do: 'release' };

/** The first line of an engine that could start. */
export interface Ready {
  /** What the engine itself says of the device it computes on; empty where it has no words for it. */
  adapter: string;
  versions: Record<string, string>;
}

/** After `prepare`: the results of one run, and its milliseconds (after another, which compiled). */
export interface Prepared {
  results: Record<string, Stored>;
  ms: number;
}

/** After `run`. */
export interface Ran {
  ms: number;
}

/** Instead of any answer: why it cannot be done. */
export interface Failed {
  error: string;
}
