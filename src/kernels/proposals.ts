import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { BBOX_XFORM_CLIP } from './boxes.ts';

/*
 * The RPN's best anchors of one level become proposals, for all images at once: deltas of the picked anchors are decoded (box
 * coder weights 1), clipped to their image and written, with sigmoid(logit) and the level, behind those of the levels before.
 */
const decode = defineProgram({
  name: 'decodeProposals',
  uniforms: {
    count: 'u32',
    picked: 'u32',
    anchorsInLevel: 'u32',
    firstAnchor: 'u32',
    total: 'u32',
    first: 'u32',
    level: 'i32',
    clip: 'f32',
  },
  bindings: {
    indices: ['read', 'i32'],
    logits: 'read',
    deltas: ['read', 'vec4f'],
    anchors: ['read', 'vec4f'],
    imageSizes: ['read', 'vec2f'],
    boxes: ['write', 'vec4f'],
    scores: 'write',
    levels: ['write', 'i32'],
  },
  code: () =>
    perElement(`
    let image = i / u.picked;
    let index = u32(indices[i]);
    let code = deltas[image * u.anchorsInLevel + index];
    let anchor = anchors[u.firstAnchor + index];
    let sides = anchor.zw - anchor.xy;
    let centre = code.xy * sides + (anchor.xy + 0.5 * sides);
    let half = 0.5 * (exp(min(code.zw, vec2f(u.clip))) * sides);
    let size = imageSizes[image];
    let at = image * u.total + u.first + i % u.picked;
    boxes[at] = clamp(vec4f(centre - half, centre + half), vec4f(0.0), size.yxyx);
    scores[at] = 1.0 / (1.0 + exp(-logits[i]));
    levels[at] = u.level;`),
});

export interface Proposals {
  /** f32 [N, total, 4] in pixels of the batch. */
  boxes: Tensor;
  /** f32 [N, total] objectness, 0…1. */
  scores: Tensor;
  /** i32 [N, total]. */
  levels: Tensor;
}

export interface LevelOfProposals {
  /** i32 [N, k] places of the best anchors in the level, and f32 [N, k] their logits. */
  indices: Tensor;
  values: Tensor;
  /** f32 [N, anchors in the level, 4]. */
  deltas: Tensor;
  level: number;
  /** Where the level begins in the list of all anchors. */
  firstAnchor: number;
  /** Where its proposals begin in the output. */
  first: number;
}

/**
 * Writes one level's proposals into `into` (torchvision's `RegionProposalNetwork.filter_proposals` up to the NMS).
 *
 * @param anchors f32 [A, 4] of all levels.
 * @param imageSizes f32 [N, 2] height and width before padding.
 */
export function decodeProposals(source: LevelOfProposals, anchors: Tensor, imageSizes: Tensor, into: Proposals): void {
  const { indices, values, deltas, level, firstAnchor, first } = source;
  indices.device.gpu.dispatch(decode, {
    buffers: { indices, logits: values, deltas, anchors, imageSizes, ...into },
    uniforms: {
      count: indices.size,
      picked: indices.shape[1],
      anchorsInLevel: deltas.shape[1],
      firstAnchor,
      total: into.scores.shape[1],
      first,
      level,
      clip: BBOX_XFORM_CLIP,
    },
    workgroups: workgroupsFor(indices.size),
  });
}

const gather = defineProgram({
  name: 'gatherBoxes',
  uniforms: { count: 'u32', kept: 'u32', total: 'u32' },
  bindings: { indices: ['read', 'i32'], boxes: ['read', 'vec4f'], y: ['write', 'vec4f'] },
  code: () =>
    perElement(`
    let index = indices[i];
    y[i] = select(vec4f(0.0), boxes[(i / u.kept) * u.total + u32(max(index, 0))], index >= 0);`),
});

/** Rows of boxes [R, N, 4] by indices i32 [R, k] (as `nms` gives them); zeros where the index is -1. [R, k, 4]. */
export function gatherBoxes(boxes: Tensor, indices: Tensor): Tensor {
  const y = boxes.device.empty([...indices.shape, 4]);
  boxes.device.gpu.dispatch(gather, {
    buffers: { indices, boxes, y },
    uniforms: { count: indices.size, kept: indices.shape[1], total: boxes.shape[1] },
    workgroups: workgroupsFor(indices.size),
  });
  return y;
}
