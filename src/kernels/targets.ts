import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type BoxWeights, encodeWgsl } from './boxes.ts';
import { IGNORED_LABEL } from './losses.ts';
import { NO_BOX } from './matcher.ts';
import type { PaddedBoxes } from './padded.ts';
import type { JoinedSamples } from './sampler.ts';

/*
 * What the sampled rows are asked to become, from their matches. The lists are as long as the samples may become; what pads them
 * has targets that the losses ignore, and box codes of 0 against regressions of 0 (see `indexSelect`): no gradient, and no wait
 * for a count.
 */

/** The code of row i's truth, or 0 where it has none. */
const codeWgsl = `
${encodeWgsl}
fn codeOf(found: i32, box: vec4f) -> vec4f {
  if (found < 0) { return vec4f(); }
  return encodeBox(truths[found], box, vec4f(u.wx, u.wy, u.ww, u.wh));
}
`;

const weightUniforms = { wx: 'f32', wy: 'f32', ww: 'f32', wh: 'f32' } as const;

function weightValues([wx, wy, ww, wh]: BoxWeights): { wx: number; wy: number; ww: number; wh: number } {
  return { wx, wy, ww, wh };
}

const anchorProgram = defineProgram({
  name: 'anchorTargets',
  uniforms: { count: 'u32', anchors: 'u32', ...weightUniforms },
  bindings: {
    rows: ['read', 'i32'],
    matched: ['read', 'i32'],
    anchors: ['read', 'vec4f'],
    truths: ['read', 'vec4f'],
    positives: ['write', 'i32'],
    labels: 'write',
    codes: ['write', 'vec4f'],
  },
  code: () =>
    codeWgsl +
    perElement(`
    let row = rows[i];
    let found = matched[i];
    positives[i] = select(-1, row, found >= 0);
    labels[i] = select(select(0.0, 1.0, found >= 0), -1.0, row < 0);
    codes[i] = codeOf(found, anchors[u32(max(row, 0)) % u.anchors]);`),
});

export interface AnchorTargets {
  /** i32 [K]: rows of the positives, -1 for all others. */
  positives: Tensor;
  /** f32 [K]: objectness 1 or 0; -1, ignored, for padding. */
  labels: Tensor;
  /** f32 [K, 4]: what the regression should say of the positives, else 0. */
  codes: Tensor;
}

/**
 * Targets of sampled anchors.
 *
 * @param anchors f32 [A, 4], the same for every image; a sampled row is image · A + anchor
 * @param truths f32 [T, 4] of all images, which `matched` counts
 * Source: torchvision's `RegionProposalNetwork.assign_targets_to_anchors` and `BoxCoder.encode`.
 */
export function anchorTargets(
  { rows, matched }: JoinedSamples,
  anchors: Tensor,
  truths: Tensor,
  weights: BoxWeights,
): AnchorTargets {
  const { device } = rows;
  const positives = device.empty(rows.shape, 'i32');
  const labels = device.empty(rows.shape);
  const codes = device.empty([rows.size, 4]);
  device.gpu.dispatch(anchorProgram, {
    buffers: { rows, matched, anchors, truths, positives, labels, codes },
    uniforms: { count: rows.size, anchors: anchors.shape[0], ...weightValues(weights) },
    workgroups: workgroupsFor(rows.size),
  });
  return { positives, labels, codes };
}

const candidateProgram = defineProgram({
  name: 'addTruthBoxes',
  uniforms: { count: 'u32', proposals: 'u32', most: 'u32' },
  bindings: {
    proposals: ['read', 'vec4f'],
    counts: ['read', 'u32'],
    truths: ['read', 'vec4f'],
    ranges: ['read', 'u32'],
    y: ['write', 'vec4f'],
  },
  code: () =>
    perElement(`
    let image = i / u.most;
    let place = i % u.most;
    let truth = ranges[image] + place - u.proposals;
    var box = vec4f(0.0, 0.0, -1.0, -1.0);
    if (place < u.proposals) {
      if (place < counts[image]) { box = proposals[image * u.proposals + place]; }
    } else if (truth < ranges[image + 1u]) {
      box = truths[truth];
    }
    y[i] = box;`),
});

/**
 * Truth boxes behind the proposals of their image, as candidates of the box head: [R, P + G, 4], where G is `most`, the largest
 * number of truths of an image. Places without a box hold (0, 0, -1, -1), as `matchBoxes` wants it.
 *
 * @param proposals f32 [R, P, 4]; counts u32 [R]: how many of them there are
 * @param truths f32 [T, 4]; ranges u32 [R + 1]: which are whose
 * Source: torchvision's `RoIHeads.add_gt_proposals`.
 */
export function addTruthBoxes(
  { boxes: proposals, counts }: PaddedBoxes,
  { boxes: truths, ranges, most }: { boxes: Tensor; ranges: Tensor; most: number },
): Tensor {
  const [images, perImage] = proposals.shape;
  const y = proposals.device.empty([images, perImage + most, 4]);
  proposals.device.gpu.dispatch(candidateProgram, {
    buffers: { proposals, counts, truths, ranges, y },
    uniforms: { count: images * (perImage + most), proposals: perImage, most: perImage + most },
    workgroups: workgroupsFor(images * (perImage + most)),
  });
  return y;
}

const roiProgram = defineProgram({
  name: 'roiTargets',
  uniforms: { count: 'u32', candidates: 'u32', ...weightUniforms },
  bindings: {
    rows: ['read', 'i32'],
    matched: ['read', 'i32'],
    boxes: ['read', 'vec4f'],
    truths: ['read', 'vec4f'],
    truthLabels: ['read', 'i32'],
    rois: 'write',
    labels: ['write', 'i32'],
    codes: ['write', 'vec4f'],
  },
  code: () =>
    codeWgsl +
    perElement(`
    let row = rows[i];
    let found = matched[i];
    let box = boxes[max(row, 0)];
    rois[i * 5u] = select(-1.0, f32(u32(row) / u.candidates), row >= 0);
    for (var c = 0u; c < 4u; c++) { rois[i * 5u + 1u + c] = box[c]; }
    var label = select(0, ${IGNORED_LABEL}, row < 0);
    if (found >= 0) { label = truthLabels[found]; }
    labels[i] = label;
    codes[i] = codeOf(found, box);`),
});

export interface RoiTargets {
  /** f32 [K, 5] (image, xmin, ymin, xmax, ymax); no image (-1) for padding. */
  rois: Tensor;
  /** i32 [K]: the class, 0 for background; `IGNORED_LABEL` for padding. */
  labels: Tensor;
  /** f32 [K, 4]: what the regression should say of the positives, else 0. */
  codes: Tensor;
}

/**
 * RoIs, classes and box codes of the sampled candidates.
 *
 * @param candidates f32 [R, M, 4], see `addTruthBoxes`; a sampled row is image · M + candidate
 * @param truths boxes f32 [T, 4] and labels i32 [T] of all images, which `matched` counts
 * Source: torchvision's `RoIHeads.select_training_samples`.
 */
export function roiTargets(
  { rows, matched }: JoinedSamples,
  candidates: Tensor,
  { boxes: truths, labels: truthLabels }: { boxes: Tensor; labels: Tensor },
  weights: BoxWeights,
): RoiTargets {
  const { device } = rows;
  const rois = device.empty([rows.size, 5]);
  const labels = device.empty(rows.shape, 'i32');
  const codes = device.empty([rows.size, 4]);
  device.gpu.dispatch(roiProgram, {
    buffers: { rows, matched, boxes: candidates, truths, truthLabels, rois, labels, codes },
    uniforms: { count: rows.size, candidates: candidates.shape[1], ...weightValues(weights) },
    workgroups: workgroupsFor(rows.size),
  });
  return { rois, labels, codes };
}

// Few lanes: see `LANES` of topK.ts.
const LANES = 32;

const positiveProgram = defineProgram({
  name: 'positiveRois',
  uniforms: { n: 'u32', most: 'u32' },
  bindings: {
    rois: 'read',
    labels: ['read', 'i32'],
    matched: ['read', 'i32'],
    rows: ['write', 'i32'],
    positiveRois: 'write',
    positiveLabels: ['write', 'i32'],
    positiveMatched: ['write', 'i32'],
    total: ['write', 'u32'],
  },
  code: () => `
var<workgroup> shares: array<u32, ${LANES}>;

@compute @workgroup_size(${LANES})
fn main(@builtin(local_invocation_index) lane: u32) {
  let run = (u.n + ${LANES - 1}u) / ${LANES}u;
  let first = min(lane * run, u.n);
  let end = min(first + run, u.n);
  var own = 0u;
  for (var i = first; i < end; i++) { own += select(0u, 1u, labels[i] > 0); }
  shares[lane] = own;
  workgroupBarrier();
  var place = 0u;
  var all = 0u;
  for (var other = 0u; other < ${LANES}u; other++) {
    place += select(0u, shares[other], other < lane);
    all += shares[other];
  }
  for (var i = first; i < end; i++) {
    if (labels[i] > 0) {
      rows[place] = i32(i);
      positiveLabels[place] = labels[i];
      positiveMatched[place] = matched[i];
      for (var c = 0u; c < 5u; c++) { positiveRois[place * 5u + c] = rois[i * 5u + c]; }
      place++;
    }
  }
  for (var padding = all + lane; padding < u.most; padding += ${LANES}u) {
    rows[padding] = -1;
    positiveLabels[padding] = ${IGNORED_LABEL};
    positiveMatched[padding] = ${NO_BOX};
    positiveRois[padding * 5u] = -1.0;
    for (var c = 1u; c < 5u; c++) { positiveRois[padding * 5u + c] = 0.0; }
  }
  if (lane == 0u) { total[0] = all; }
}`,
});

export interface PositiveRois {
  /** i32 [P]: rows of the samples, ascending, then -1. */
  rows: Tensor;
  /** f32 [P, 5]: their RoIs, then RoIs of no image. */
  rois: Tensor;
  /** i32 [P]: their classes, then `IGNORED_LABEL`. */
  labels: Tensor;
  /** i32 [P]: their truths, then -3. */
  matched: Tensor;
  /** u32 [1]: how many they are. */
  total: Tensor;
}

/** The positives among the samples. @param matched i32 [K] their truths; @param most P: as many as the sampler may have taken */
export function positiveRois({ rois, labels }: RoiTargets, matched: Tensor, most: number): PositiveRois {
  const { device } = rois;
  const rows = device.empty([most], 'i32');
  const ownRois = device.empty([most, 5]);
  const ownLabels = device.empty([most], 'i32');
  const ownMatched = device.empty([most], 'i32');
  const total = device.empty([1], 'u32');
  device.gpu.dispatch(positiveProgram, {
    buffers: {
      ...{ rois, labels, matched, rows, total },
      ...{ positiveRois: ownRois, positiveLabels: ownLabels, positiveMatched: ownMatched },
    },
    uniforms: { n: labels.size, most },
    workgroups: 1,
  });
  return { rows, rois: ownRois, labels: ownLabels, matched: ownMatched, total };
}
