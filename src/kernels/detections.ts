import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { batchedNms } from './nms.ts';
import { type PaddedBoxes, placeWgsl } from './padded.ts';
import { topK } from './topK.ts';

/*
 * From the box head's outputs to detections, for all images at once and without a readback:
 *   1. every proposal and class but the background is a candidate; its score stays if it passes the threshold and if its clipped
 *      box is large enough, else it becomes -Infinity;
 *   2. the best candidates of each image, in order (topK.ts), and their boxes and classes;
 *   3. NMS within classes, and the best n of what is left.
 * Proposals are those of all images one after another, [K] with padding at the end; counts [R] tell how many each image has.
 */

const roiProgram = defineProgram({
  name: 'proposalRois',
  uniforms: { count: 'u32', images: 'u32', perImage: 'u32' },
  bindings: { proposals: ['read', 'vec4f'], counts: ['read', 'u32'], rois: 'write', boxes: ['write', 'vec4f'] },
  code: () =>
    placeWgsl +
    perElement(`
    let place = placeOf(i, u.images);
    var box = vec4f();
    if (place.x < u.images) { box = proposals[place.x * u.perImage + place.y]; }
    rois[i * 5u] = select(-1.0, f32(place.x), place.x < u.images);
    for (var c = 0u; c < 4u; c++) { rois[i * 5u + 1u + c] = box[c]; }
    boxes[i] = box;`),
});

/** The proposals of all images one after another: RoIs f32 [R · P, 5], those of no image (-1) last, and their boxes f32 [R · P, 4]. */
export function proposalRois({ boxes: proposals, counts }: PaddedBoxes): { rois: Tensor; boxes: Tensor } {
  const { device } = proposals;
  const [images, perImage] = proposals.shape;
  const count = images * perImage;
  const rois = device.empty([count, 5]);
  const boxes = device.empty([count, 4]);
  device.gpu.dispatch(roiProgram, {
    buffers: { proposals, counts, rois, boxes },
    uniforms: { count, images, perImage },
    workgroups: workgroupsFor(count),
  });
  return { rois, boxes };
}

/** Where candidate 'candidate' of an image lies, and the box it has there. */
const candidateWgsl = `
// The proposal's row, or one past the image's own.
fn rowOf(image: u32, candidate: u32) -> u32 {
  var row = candidate / (u.classes - 1u);
  for (var other = 0u; other < image; other++) { row += counts[other]; }
  return row;
}

fn boxOf(image: u32, row: u32, label: u32) -> vec4f {
  let size = sizes[image];
  return min(max(decoded[row * u.classes + label], vec4f()), size.yxyx);
}
`;

const scoreProgram = defineProgram({
  name: 'candidateScores',
  uniforms: { count: 'u32', perImage: 'u32', classes: 'u32', threshold: 'f32', minSize: 'f32' },
  bindings: {
    scores: ['read', 'u32'],
    decoded: ['read', 'vec4f'],
    counts: ['read', 'u32'],
    sizes: ['read', 'vec2f'],
    y: ['write', 'u32'],
  },
  // -Infinity by its bits: see `dropProgram` in boxes.ts.
  code: () =>
    candidateWgsl +
    perElement(`
    let image = i / u.perImage;
    let candidate = i % u.perImage;
    var value = 0xff800000u;
    if (candidate / (u.classes - 1u) < counts[image]) {
      let row = rowOf(image, candidate);
      let label = 1u + candidate % (u.classes - 1u);
      let bits = scores[row * u.classes + label];
      let box = boxOf(image, row, label);
      let sides = box.zw - box.xy;
      if (bitcast<f32>(bits) > u.threshold && sides.x >= u.minSize && sides.y >= u.minSize) { value = bits; }
    }
    y[i] = value;`),
});

const boxProgram = defineProgram({
  name: 'candidateBoxes',
  uniforms: { count: 'u32', perImage: 'u32', classes: 'u32' },
  bindings: {
    indices: ['read', 'i32'],
    decoded: ['read', 'vec4f'],
    counts: ['read', 'u32'],
    sizes: ['read', 'vec2f'],
    boxes: ['write', 'vec4f'],
    labels: ['write', 'i32'],
  },
  code: () =>
    candidateWgsl +
    perElement(`
    let image = i / u.perImage;
    let candidate = u32(indices[i]);
    let label = 1u + candidate % (u.classes - 1u);
    var box = vec4f();
    if (candidate / (u.classes - 1u) < counts[image]) { box = boxOf(image, rowOf(image, candidate), label); }
    boxes[i] = box;
    labels[i] = i32(label);`),
});

const keepProgram = defineProgram({
  name: 'keptDetections',
  uniforms: { count: 'u32', kept: 'u32', candidates: 'u32' },
  bindings: {
    indices: ['read', 'i32'],
    boxes: ['read', 'vec4f'],
    scores: 'read',
    labels: ['read', 'i32'],
    ownBoxes: ['write', 'vec4f'],
    ownScores: 'write',
    ownLabels: ['write', 'i32'],
  },
  code: () =>
    perElement(`
    if (indices[i] >= 0) {
      let place = (i / u.kept) * u.candidates + u32(indices[i]);
      ownBoxes[i] = boxes[place];
      ownScores[i] = scores[place];
      ownLabels[i] = labels[place];
    }`),
});

/**
 * The most candidates of an image that enter the NMS, the best first. No more can pass a threshold of .05 among 1,000 proposals,
 * whose scores of all classes sum to 1.
 */
const MAX_CANDIDATES = 20_000;

export interface DetectionOptions {
  /** Detections must score more than this. */
  scoreThresh: number;
  nmsThresh: number;
  detectionsPerImg: number;
  /** Sides of detections are at least this many pixels. */
  minSize: number;
}

/** Detections of a batch, best first; what lies beyond an image's count is undefined. */
export interface PaddedDetections extends PaddedBoxes {
  /** f32 and i32 [R, D]. */
  scores: Tensor;
  labels: Tensor;
}

/**
 * The best detections of each image: [R, D] with D = `detectionsPerImg`, or fewer where there are fewer candidates.
 *
 * @param scores f32 [K, C] probabilities of the classes, background first
 * @param decoded f32 [K, 4 · C] boxes of all classes in pixels of the batch
 * @param counts u32 [R] rows of each image; @param sizes f32 [R, 2] height and width before padding
 * @param perImage rows an image may have, P
 * Source: torchvision's `RoIHeads.postprocess_detections`.
 */
export function selectDetections(
  { scores, decoded, counts, sizes }: { scores: Tensor; decoded: Tensor; counts: Tensor; sizes: Tensor },
  perImage: number,
  { scoreThresh, nmsThresh, detectionsPerImg, minSize }: DetectionOptions,
): PaddedDetections {
  const { device } = scores;
  const images = counts.size;
  const classes = scores.shape[1];
  const candidates = perImage * (classes - 1);
  const passed = device.empty([images, candidates]);
  device.gpu.dispatch(scoreProgram, {
    buffers: { scores, decoded, counts, sizes, y: passed },
    uniforms: { count: passed.size, perImage: candidates, classes, threshold: scoreThresh, minSize },
    workgroups: workgroupsFor(passed.size),
  });
  const best = topK(passed, MAX_CANDIDATES);
  const shape = best.indices.shape;
  const boxes = device.empty([...shape, 4]);
  const labels = device.empty(shape, 'i32');
  device.gpu.dispatch(boxProgram, {
    buffers: { indices: best.indices, decoded, counts, sizes, boxes, labels },
    uniforms: { count: labels.size, perImage: shape[1], classes },
    workgroups: workgroupsFor(labels.size),
  });
  const kept = batchedNms(boxes, best.values, labels, nmsThresh, { maxKept: detectionsPerImg });
  const own = {
    ownBoxes: device.empty([...kept.indices.shape, 4]),
    ownScores: device.empty(kept.indices.shape),
    ownLabels: device.empty(kept.indices.shape, 'i32'),
  };
  device.gpu.dispatch(keepProgram, {
    buffers: { indices: kept.indices, boxes, scores: best.values, labels, ...own },
    uniforms: { count: kept.indices.size, kept: kept.indices.shape[1], candidates: shape[1] },
    workgroups: workgroupsFor(kept.indices.size),
  });
  return { boxes: own.ownBoxes, scores: own.ownScores, labels: own.ownLabels, counts: kept.count };
}
