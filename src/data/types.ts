/** What one image shows: `n` instances. Row-major, pixels of the image as loaded (after any resize). */
export interface Target {
  /** [n, 4] xmin, ymin, xmax, ymax in pixels; corners inclusive as the notebook's `get_box` (xmax = last column of the mask). */
  boxes: Float32Array;
  /** [n] class labels, 1 … numClasses - 1 (0 is background). */
  labels: Int32Array;
  /** [n, height, width] 0 or 1. */
  masks: Uint8Array;
  /** [n] square pixels of each box, `(ymax - ymin) × (xmax - xmin)` as the notebook's `area`. */
  area: Float32Array;
  /** [n] 1 for a region that holds many cells and no single one (COCO's crowd): never trained on, never counted against a detection. */
  iscrowd: Uint8Array;
  /** Position of the image in its data set, the notebook's `image_id`. */
  imageId: number;
}

/** One loaded image: float32 in 0…1, channels last (the device's layout). */
export interface LoadedImage {
  id: string;
  width: number;
  height: number;
  /** [height, width, 3]; a grey file has three equal channels, as `cv2.imread(…, IMREAD_COLOR)`. */
  data: Float32Array;
}

export interface Sample {
  image: LoadedImage;
  target: Target;
}

/** The pixels of one instance inside its integer box; everything outside the crop is 0. */
export interface MaskCrop {
  x: number;
  y: number;
  width: number;
  height: number;
  /** [height, width] probabilities 0…1. */
  data: Float32Array;
}

/** What the model found in one image, best score first (torchvision's `{boxes, labels, scores, masks}`). */
export interface Detections {
  /** [n, 4] xmin, ymin, xmax, ymax in pixels of the input image. */
  boxes: Float32Array;
  /** [n] class labels, 1 … numClasses - 1. */
  labels: Int32Array;
  /** [n] 0…1. */
  scores: Float32Array;
  /** n crops of pasted mask probabilities; absent for a box-only model. */
  masks?: MaskCrop[];
}
