import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { boxGeometryWgsl, expectBoxes } from './boxes.ts';

/*
 * Each of N boxes is given one of G truths by quality q[g, n] (IoU): its best truth (the first among equals) if that
 * quality is at least `highThreshold`; BETWEEN_THRESHOLDS from `lowThreshold` up; else BELOW_LOW_THRESHOLD. With
 * low-quality matches, a box whose quality with any truth equals that truth's maximum over all boxes is then given its
 * own best truth whatever its quality. Equality is exact, so a truth that overlaps no box has maximum 0, and every box of
 * quality 0 to it is restored: torchvision does the same.
 */
export const BELOW_LOW_THRESHOLD = -1;
export const BETWEEN_THRESHOLDS = -2;
/** What `matchBoxes` gives a place where there is no box. */
export const NO_BOX = -3;

export interface MatcherParams {
  /** Qualities from here up are matches. */
  highThreshold: number;
  /** Qualities below are background; between the two a box is neither. At most `highThreshold`. */
  lowThreshold: number;
  /** Give each truth its best boxes even if their quality is low. */
  allowLowQualityMatches: boolean;
}

/** What one box makes of its best quality; as in torch, the thresholds are compared in float32. */
const decideWgsl = `
fn decide(best: f32, bestTruth: u32, restored: bool) -> i32 {
  if (restored || best >= u.high) { return i32(bestTruth); }
  return select(${BETWEEN_THRESHOLDS}, ${BELOW_LOW_THRESHOLD}, best < u.low);
}
`;

const LANES = 64;

const rowMaximum = defineProgram({
  name: 'matcherRowMaximum',
  uniforms: { rows: 'u32', n: 'u32' },
  bindings: { quality: 'read', maximum: 'write' },
  code: () => `
var<workgroup> partial: array<f32, ${LANES}>;

@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = min(group.x + group.y * groups.x, u.rows - 1u);
  var best = quality[row * u.n];
  for (var column = lane; column < u.n; column += ${LANES}u) { best = max(best, quality[row * u.n + column]); }
  partial[lane] = best;
  workgroupBarrier();
  for (var half = ${LANES / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] = max(partial[lane], partial[lane + half]); }
    workgroupBarrier();
  }
  if (lane == 0u) { maximum[row] = partial[0]; }
}`,
});

const matchQuality = defineProgram({
  name: 'matcher',
  uniforms: { count: 'u32', truths: 'u32', high: 'f32', low: 'f32', restore: 'u32' },
  bindings: { quality: 'read', maximum: 'read', matches: ['write', 'i32'] },
  code: () =>
    decideWgsl +
    perElement(`
    var best = quality[i];
    var bestTruth = 0u;
    var restored = false;
    for (var g = 0u; g < u.truths; g++) {
      let q = quality[g * u.count + i];
      if (q > best) {
        best = q;
        bestTruth = g;
      }
      if (u.restore == 1u) { restored = restored || q == maximum[g]; }
    }
    matches[i] = decide(best, bestTruth, restored);`),
});

/**
 * Which truth each box belongs to, from the quality (IoU) of every pair.
 *
 * @param quality f32 [G, N], without NaN
 * @returns i32 [N]: 0 … G - 1, or -1 (below `lowThreshold`), or -2 (between the thresholds); all -1 when G is 0
 *
 * Source: torchvision.models.detection._utils.Matcher.
 */
export function matcher(quality: Tensor, params: MatcherParams): Tensor {
  expectShape(quality.dtype === 'f32' && quality.rank === 2, 'matcher', 'quality', 'f32 [G, N]', quality);
  const { device } = quality;
  const [truths, n] = quality.shape;
  const matches = device.empty([n], 'i32');
  if (truths === 0) return unmatched(matches);
  if (n === 0) return matches;
  const maximum = device.empty([truths]);
  if (params.allowLowQualityMatches) {
    device.gpu.dispatch(rowMaximum, {
      buffers: { quality, maximum },
      uniforms: { rows: truths, n },
      workgroups: truths,
    });
  }
  device.gpu.dispatch(matchQuality, {
    buffers: { quality, maximum, matches },
    uniforms: { count: n, truths, ...thresholds('matcher', params) },
    workgroups: workgroupsFor(n),
  });
  maximum.dispose();
  return matches;
}

/*
 * Both passes are one program, and the IoU is computed by one instruction sequence in one loop, because the second
 * compares for equality what the first found: two programs might be compiled to different roundings. IoU is never
 * negative, so the maximum of its bits as integers is its maximum; integer maxima do not depend on their order.
 */
const matchProgram = defineProgram({
  name: 'matchBoxes',
  uniforms: { count: 'u32', n: 'u32', sameBoxes: 'u32', high: 'f32', low: 'f32', restore: 'u32', collect: 'u32' },
  bindings: {
    gt: ['read', 'vec4f'],
    ranges: ['read', 'u32'],
    boxes: ['read', 'vec4f'],
    maximum: ['write', 'atomic<u32>'],
    matches: ['write', 'i32'],
  },
  code: () =>
    boxGeometryWgsl +
    decideWgsl +
    perElement(`
    let image = i / u.n;
    let box = boxes[select(i, i % u.n, u.sameBoxes == 1u)];
    let area = boxArea(box);
    let first = ranges[image];
    let end = ranges[image + 1u];
    var best = 0u;
    var bestTruth = first;
    var restored = false;
    for (var g = first; g < end; g++) {
      let truth = gt[g];
      let q = bitcast<u32>(intersectionOverUnion(truth, box, boxArea(truth), area));
      if (u.collect == 1u) {
        // Most pairs do not overlap, and a stale maximum is only too small: few atomics are left.
        if (q > 0u && q > atomicLoad(&maximum[g])) { atomicMax(&maximum[g], q); }
      } else {
        if (q > best) {
          best = q;
          bestTruth = g;
        }
        if (u.restore == 1u) { restored = restored || q == atomicLoad(&maximum[g]); }
      }
    }
    if (u.collect == 0u) {
      var found = decide(bitcast<f32>(best), bestTruth, restored);
      if (first == end) { found = ${BELOW_LOW_THRESHOLD}; }
      if (box.z < box.x) { found = ${NO_BOX}; }
      matches[i] = found;
    }`),
});

/**
 * `matcher(boxIou(gt, boxes), params)` without ever storing the G × N matrix: IoU, arg-max and the maximum of each truth
 * are computed as they are needed. Several sets (images) at once have their truths one after another in `gt`.
 *
 * @param gt f32 [G, 4] truths in pixels, of all sets
 * @param boxes f32 [N, 4] anchors or proposals in pixels, the same for every set; or [R, N, 4], those of each set, where a box
 * whose right side lies left of its left side stands for none
 * @param ranges u32 [R + 1]: set r has the truths `ranges[r]` up to `ranges[r + 1]`; without it there is one set with all of them
 * @returns i32 [N], or [R, N] with `ranges`; see `matcher`: rows of `gt` for matches, -1 for all boxes of a set without truths, -3
 * where there is no box
 */
export function matchBoxes(gt: Tensor, boxes: Tensor, params: MatcherParams, ranges?: Tensor): Tensor {
  expectBoxes('matchBoxes', 'gt', gt, 'f32 [G, 4]', 2);
  const { device } = gt;
  const sets = ranges ? ranges.size - 1 : 1;
  const shared = boxes.rank === 2;
  if (shared) expectBoxes('matchBoxes', 'boxes', boxes, 'f32 [N, 4]', 2);
  else expectBoxes('matchBoxes', 'boxes', boxes, `f32 [N, 4] or [${sets}, N, 4]`, 3, sets);
  const n = boxes.shape[boxes.rank - 2];
  const truths = gt.shape[0];
  const matches = device.empty(ranges ? [sets, n] : [n], 'i32');
  const maximum = device.zeros([truths], 'u32');
  const whole = ranges ?? device.tensor(Uint32Array.of(0, truths), [2]);
  const uniforms = { count: sets * n, n, sameBoxes: shared ? 1 : 0, ...thresholds('matchBoxes', params) };
  for (const collect of params.allowLowQualityMatches ? [1, 0] : [0]) {
    device.gpu.dispatch(matchProgram, {
      buffers: { gt, ranges: whole, boxes, maximum, matches },
      uniforms: { ...uniforms, collect },
      workgroups: workgroupsFor(sets * n),
    });
  }
  maximum.dispose();
  if (!ranges) whole.dispose();
  return matches;
}

const fillProgram = defineProgram({
  name: 'matcherUnmatched',
  uniforms: { count: 'u32' },
  bindings: { matches: ['write', 'i32'] },
  code: () => perElement(`matches[i] = ${BELOW_LOW_THRESHOLD};`),
});

function unmatched(matches: Tensor): Tensor {
  matches.device.gpu.dispatch(fillProgram, {
    buffers: { matches },
    uniforms: { count: matches.size },
    workgroups: workgroupsFor(matches.size),
  });
  return matches;
}

function thresholds(operator: string, params: MatcherParams): { high: number; low: number; restore: number } {
  const { highThreshold: high, lowThreshold: low } = params;
  if (!(low <= high)) throw new Error(`${operator}: lowThreshold: expected at most highThreshold ${high}, got ${low}.`);
  return { high, low, restore: params.allowLowQualityMatches ? 1 : 0 };
}
