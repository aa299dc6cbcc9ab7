import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';

/*
 * Boxes are [x1, y1, x2, y2] in pixels, one vec4 each. torchvision detaches them everywhere, so nothing here has a
 * gradient: these are plain functions, not operators. The order of the float32 operations is torchvision's, because
 * matching and suppression compare the results with thresholds.
 */

/**
 * WGSL shared by every kernel that compares boxes: `boxArea(b)` and `intersectionOverUnion(a, b, areaA, areaB)` =
 * I / (areaA + areaB - I). Boxes that do not overlap have +0, also where the union is empty and torchvision would have
 * 0 / 0, since WGSL promises no NaN. Never negative, so its bits order like unsigned integers.
 */
export const boxGeometryWgsl = `
fn boxArea(b: vec4f) -> f32 { return (b.z - b.x) * (b.w - b.y); }
fn intersectionOverUnion(a: vec4f, b: vec4f, areaA: f32, areaB: f32) -> f32 {
  let sides = max(min(a.zw, b.zw) - max(a.xy, b.xy), vec2f(0.0));
  let intersection = sides.x * sides.y;
  return select(0.0, intersection / (areaA + areaB - intersection), intersection > 0.0);
}
`;

/** Per-coordinate weights (x, y, w, h) of the box coder. */
export type BoxWeights = readonly [number, number, number, number];

const iouProgram = defineProgram({
  name: 'boxIou',
  uniforms: { count: 'u32', columns: 'u32' },
  bindings: { a: ['read', 'vec4f'], b: ['read', 'vec4f'], y: 'write' },
  code: () =>
    boxGeometryWgsl +
    perElement(`
    let first = a[i / u.columns];
    let second = b[i % u.columns];
    y[i] = intersectionOverUnion(first, second, boxArea(first), boxArea(second));`),
});

/**
 * Intersection over union of every box of a [N, 4] with every box of b [M, 4]: [N, M], in 0 … 1; 0 where both boxes are
 * empty (torchvision: NaN). Source: torchvision.ops.box_iou.
 */
export function boxIou(a: Tensor, b: Tensor): Tensor {
  expectBoxes('boxIou', 'a', a, '[N, 4]', 2);
  expectBoxes('boxIou', 'b', b, '[M, 4]', 2);
  const y = a.device.empty([a.shape[0], b.shape[0]]);
  a.device.gpu.dispatch(iouProgram, {
    buffers: { a, b, y },
    uniforms: { count: y.size, columns: b.shape[0] },
    workgroups: workgroupsFor(y.size),
  });
  return y;
}

const clipProgram = defineProgram({
  name: 'clipBoxesToImage',
  uniforms: { count: 'u32', height: 'f32', width: 'f32' },
  bindings: { x: ['read', 'vec4f'], y: ['write', 'vec4f'] },
  code: () => perElement('y[i] = min(max(x[i], vec4f(0.0)), vec4f(u.width, u.height, u.width, u.height));'),
});

/**
 * Moves the corners of boxes [..., 4] into an image of [height, width] pixels: 0 ≤ x ≤ width, 0 ≤ y ≤ height.
 * Source: torchvision.ops.clip_boxes_to_image.
 */
export function clipBoxesToImage(boxes: Tensor, [height, width]: readonly [number, number]): Tensor {
  expectShape(boxes.shape.at(-1) === 4, 'clipBoxesToImage', 'boxes', '[..., 4]', boxes);
  const y = boxes.device.empty(boxes.shape);
  boxes.device.gpu.dispatch(clipProgram, {
    buffers: { x: boxes, y },
    uniforms: { count: boxes.size / 4, height, width },
    workgroups: workgroupsFor(boxes.size / 4),
  });
  return y;
}

/*
 * With widths w, heights h and centres c of proposals p and truths t:
 *   code = (wx (ctx - cpx) / wp, wy (cty - cpy) / hp, ww log(wt / wp), wh log(ht / hp))
 */
export const encodeWgsl = `
fn encodeBox(t: vec4f, p: vec4f, weights: vec4f) -> vec4f {
  let sides = p.zw - p.xy;
  let truthSides = t.zw - t.xy;
  let centre = p.xy + 0.5 * sides;
  let truthCentre = t.xy + 0.5 * truthSides;
  return vec4f(weights.xy * (truthCentre - centre) / sides, weights.zw * log(truthSides / sides));
}
`;

const encodeProgram = defineProgram({
  name: 'encodeBoxes',
  uniforms: { count: 'u32', wx: 'f32', wy: 'f32', ww: 'f32', wh: 'f32' },
  bindings: { reference: ['read', 'vec4f'], proposals: ['read', 'vec4f'], y: ['write', 'vec4f'] },
  code: () => encodeWgsl + perElement('y[i] = encodeBox(reference[i], proposals[i], vec4f(u.wx, u.wy, u.ww, u.wh));'),
});

/**
 * What the regression should say to turn each proposal [N, 4] into its reference box [N, 4]: codes [N, 4] = (dx, dy, dw,
 * dh), times `weights`. Empty boxes give codes that are not finite. Source: torchvision.models.detection._utils.encode_boxes.
 */
export function encodeBoxes(reference: Tensor, proposals: Tensor, weights: BoxWeights): Tensor {
  expectBoxes('encodeBoxes', 'reference', reference, '[N, 4]', 2);
  expectBoxes('encodeBoxes', 'proposals', proposals, `[${reference.shape}] like reference`, 2, reference.shape[0]);
  const y = reference.device.empty(reference.shape);
  const [wx, wy, ww, wh] = weights;
  reference.device.gpu.dispatch(encodeProgram, {
    buffers: { reference, proposals, y },
    uniforms: { count: reference.shape[0], wx, wy, ww, wh },
    workgroups: workgroupsFor(reference.shape[0]),
  });
  return y;
}

const decodeProgram = defineProgram({
  name: 'decodeBoxes',
  uniforms: { count: 'u32', classes: 'u32', wx: 'f32', wy: 'f32', ww: 'f32', wh: 'f32', clip: 'f32' },
  bindings: { codes: ['read', 'vec4f'], boxes: ['read', 'vec4f'], y: ['write', 'vec4f'] },
  code: () =>
    perElement(`
    let code = codes[i] / vec4f(u.wx, u.wy, u.ww, u.wh);
    let box = boxes[i / u.classes];
    let sides = box.zw - box.xy;
    let centre = code.xy * sides + (box.xy + 0.5 * sides);
    let half = 0.5 * (exp(min(code.zw, vec2f(u.clip))) * sides);
    y[i] = vec4f(centre - half, centre + half);`),
});

/** log(1000 / 16): dw and dh are clamped to it, so `exp` cannot overflow (torchvision's `bbox_xform_clip`). */
export const BBOX_XFORM_CLIP = Math.log(1000 / 16);

/**
 * The inverse of `encodeBoxes`: applies codes [N, 4·k] (k classes per row) to boxes [N, 4], giving boxes [N, 4·k] in
 * pixels, not clipped to any image. dw and dh are clamped to `clip` first.
 * Source: torchvision.models.detection._utils.BoxCoder.decode_single.
 */
export function decodeBoxes(relCodes: Tensor, boxes: Tensor, weights: BoxWeights, clip = BBOX_XFORM_CLIP): Tensor {
  expectBoxes('decodeBoxes', 'boxes', boxes, '[N, 4]', 2);
  expectShape(
    relCodes.rank === 2 && relCodes.shape[0] === boxes.shape[0] && relCodes.shape[1] % 4 === 0,
    'decodeBoxes',
    'relCodes',
    `[${boxes.shape[0]}, 4·k]`,
    relCodes,
  );
  const y = relCodes.device.empty(relCodes.shape);
  const [wx, wy, ww, wh] = weights;
  relCodes.device.gpu.dispatch(decodeProgram, {
    buffers: { codes: relCodes, boxes, y },
    uniforms: { count: y.size / 4, classes: relCodes.shape[1] / 4, wx, wy, ww, wh, clip },
    workgroups: workgroupsFor(y.size / 4),
  });
  return y;
}

/*
 * -inf is written by its bits: WGSL has no literal for it, and its arithmetic may assume that there is none.
 */
const dropProgram = defineProgram({
  name: 'dropBoxes',
  uniforms: { count: 'u32', minSize: 'f32', atLeast: 'u32', above: 'u32', lowest: 'f32', bound: 'f32' },
  bindings: { boxes: ['read', 'vec4f'], scores: 'read', y: ['write', 'u32'] },
  code: () =>
    perElement(`
    let box = boxes[i];
    let score = scores[i];
    let sides = box.zw - box.xy;
    let keep = sides.x >= u.minSize && sides.y >= u.minSize
      && (u.atLeast == 0u || score >= u.lowest) && (u.above == 0u || score > u.bound);
    y[i] = select(0xff800000u, bitcast<u32>(score), keep);`),
});

/**
 * The scores [...] of boxes [..., 4], with -Infinity where the box is to be dropped: a side below `minSize` pixels, a
 * score below `scoreAtLeast`, or one not above `scoreAbove`. `nms` and `topK` place such boxes last and `nms` never keeps
 * them, so boxes are filtered without a readback. The RPN asks for `scoreAtLeast`, the box head for `scoreAbove`.
 * Source: torchvision.ops.remove_small_boxes and the score filters of rpn.py and roi_heads.py.
 */
export function dropBoxes(
  boxes: Tensor,
  scores: Tensor,
  { minSize, scoreAtLeast, scoreAbove }: { minSize: number; scoreAtLeast?: number; scoreAbove?: number },
): Tensor {
  expectShape(boxes.shape.at(-1) === 4, 'dropBoxes', 'boxes', '[..., 4]', boxes);
  expectShape(scores.size * 4 === boxes.size, 'dropBoxes', 'scores', `${boxes.size / 4} scores, one per box`, scores);
  const y = scores.device.empty(scores.shape);
  scores.device.gpu.dispatch(dropProgram, {
    buffers: { boxes, scores, y },
    uniforms: {
      count: scores.size,
      minSize,
      atLeast: scoreAtLeast === undefined ? 0 : 1,
      above: scoreAbove === undefined ? 0 : 1,
      lowest: scoreAtLeast ?? 0,
      bound: scoreAbove ?? 0,
    },
    workgroups: workgroupsFor(scores.size),
  });
  return y;
}

/** Throws unless `tensor` is a float tensor [..., 4] of the rank, with `rows` rows where these are given. */
export function expectBoxes(
  operator: string,
  argument: string,
  tensor: Tensor,
  expected: string,
  rank: number,
  rows = tensor.shape[0],
): void {
  expectShape(
    tensor.dtype === 'f32' && tensor.rank === rank && tensor.shape[rank - 1] === 4 && tensor.shape[0] === rows,
    operator,
    argument,
    expected,
    tensor,
  );
}
