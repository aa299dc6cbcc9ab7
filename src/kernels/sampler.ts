import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { BELOW_LOW_THRESHOLD, NO_BOX } from './matcher.ts';
import { placeWgsl } from './padded.ts';

/*
 * torchvision's BalancedPositiveNegativeSampler without a readback. Where it takes the first k of a random permutation of n
 * candidates, here every candidate has a key, a function of its rank (its place among the candidates) and the order's seed, and
 * those with the k smallest keys are taken: the permutation is the argsort of the keys. All keys of an order differ, so "the k
 * smallest" are those up to a threshold, and the threshold depends on n and k alone. One workgroup per set:
 *   1. each lane counts the positives and negatives of its run of rows; sums over the lanes before give the ranks;
 *   2. the threshold is searched between the smallest and the largest key: by interpolation, since hashed keys are spread evenly,
 *      in turn with halving; each trial counts the keys up to it, all lanes together;
 *   3. each lane counts the rows that it takes, and after another sum over the lanes writes them: ascending, as torchvision has them.
 */

/** Which candidates a sampler takes, in place of `torch.randperm`: those first in this order. */
export type SampleOrder =
  /** By rank, or by rank backwards: the goldens'. */
  | { kind: 'identity' | 'reversed' }
  /** By fmix32(start + rank · 0x9E3779B9), the same for all sets: the goldens' `hashed`, see `goldenSampleOrder`. */
  | { kind: 'hashed'; start: number }
  /** As `hashed`, with a start of its own for the positives and the negatives of every set. */
  | { kind: 'random'; seed: number };

const KINDS: readonly SampleOrder['kind'][] = ['identity', 'reversed', 'hashed', 'random'];

// Few lanes: see `LANES` of topK.ts. Two hundred thousand anchors are still some 3,000 rows a lane.
const LANES = 64;

const sampleProgram = defineProgram({
  name: 'samplePositiveNegative',
  uniforms: { n: 'u32', size: 'u32', mostPositives: 'u32', kind: 'u32', seed: 'u32', firstSet: 'u32' },
  bindings: { matches: ['read', 'i32'], rows: ['write', 'i32'], counts: ['write', 'u32'] },
  code: () => `
// murmur3's finalizer: a permutation of the 32-bit numbers.
fn fmix32(value: u32) -> u32 {
  var x = value;
  x ^= x >> 16u;
  x *= 0x85ebca6bu;
  x ^= x >> 13u;
  x *= 0xc2b2ae35u;
  return x ^ (x >> 16u);
}

fn startOf(stream: u32) -> u32 {
  return select(u.seed, fmix32(u.seed + stream * 0x9e3779b9u), u.kind == ${KINDS.indexOf('random')}u);
}

fn keyOf(rank: u32, start: u32) -> u32 {
  switch u.kind {
    case ${KINDS.indexOf('identity')}u: { return rank; }
    case ${KINDS.indexOf('reversed')}u: { return ~rank; }
    default: { return fmix32(start + rank * 0x9e3779b9u); }
  }
}

var<workgroup> shares: array<vec2u, ${LANES}>;
var<workgroup> total: vec2u;

// The sums of the lanes before, and in 'total' that of all.
fn sumBefore(lane: u32, own: vec2u) -> vec2u {
  workgroupBarrier();
  shares[lane] = own;
  workgroupBarrier();
  var sum = vec2u();
  for (var other = 0u; other < lane; other++) { sum += shares[other]; }
  if (lane == ${LANES - 1}u) { total = sum + own; }
  return sum;
}

// The key of the last of the 'taken' first among n candidates, 0 < taken ≤ n, or any up to the next one's.
fn thresholdOf(lane: u32, n: u32, taken: u32, start: u32) -> u32 {
  // The threshold lies from low to high; so many keys are below low, and up to high.
  var low = 0u;
  var high = 0xffffffffu;
  if (u.kind == ${KINDS.indexOf('identity')}u) { high = n - 1u; }
  if (u.kind == ${KINDS.indexOf('reversed')}u) { low = ~(n - 1u); }
  var below = 0u;
  var upTo = n;
  var halve = false;
  while (upTo != taken) {
    let share = select((f32(taken - below) + 0.5) / (f32(upTo - below) + 1.0), 0.5, halve);
    let trial = low + min(u32(f32(high - low) * share), high - low);
    var own = 0u;
    for (var rank = lane; rank < n; rank += ${LANES}u) { own += select(0u, 1u, keyOf(rank, start) <= trial); }
    _ = sumBefore(lane, vec2u(own, 0u));
    let found = workgroupUniformLoad(&total).x;
    if (found < taken) {
      low = trial + 1u;
      below = found;
    } else {
      high = select(trial - 1u, trial, found == taken);
      upTo = found;
    }
    halve = !halve;
  }
  return high;
}

@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let image = group.x;
  let run = (u.n + ${LANES - 1}u) / ${LANES}u;
  let first = min(lane * run, u.n);
  let end = min(first + run, u.n);
  var own = vec2u();
  for (var row = first; row < end; row++) {
    let found = matches[image * u.n + row];
    own += vec2u(select(0u, 1u, found >= 0), select(0u, 1u, found == ${BELOW_LOW_THRESHOLD}));
  }
  let rankBefore = sumBefore(lane, own);
  let candidates = workgroupUniformLoad(&total);
  let positives = min(candidates.x, u.mostPositives);
  let negatives = min(candidates.y, u.size - positives);
  let stream = (u.firstSet + image) * 2u;
  let starts = vec2u(startOf(stream), startOf(stream + 1u));
  var thresholds = vec2u();
  if (positives > 0u) { thresholds.x = thresholdOf(lane, candidates.x, positives, starts.x); }
  if (negatives > 0u) { thresholds.y = thresholdOf(lane, candidates.y, negatives, starts.y); }
  let some = vec2<bool>(positives > 0u, negatives > 0u);

  // Twice over the lane's rows: to count those it takes, then to write them behind those of the lanes before.
  var place = 0u;
  for (var turn = 0u; turn < 2u; turn++) {
    var rank = rankBefore;
    var taken = 0u;
    for (var row = first; row < end; row++) {
      let found = matches[image * u.n + row];
      var take = false;
      if (found >= 0) {
        take = some.x && keyOf(rank.x, starts.x) <= thresholds.x;
        rank.x++;
      } else if (found == ${BELOW_LOW_THRESHOLD}) {
        take = some.y && keyOf(rank.y, starts.y) <= thresholds.y;
        rank.y++;
      }
      if (take) {
        if (turn == 1u) { rows[image * u.size + place + taken] = i32(row); }
        taken++;
      }
    }
    if (turn == 0u) { place = sumBefore(lane, vec2u(taken, 0u)).x; }
  }
  for (var padding = positives + negatives + lane; padding < u.size; padding += ${LANES}u) {
    rows[image * u.size + padding] = -1;
  }
  if (lane == 0u) { counts[image] = positives + negatives; }
}`,
});

/** What was sampled of each set. */
export interface Sampled {
  /** i32 [R, batchSize]: rows within the set, ascending, then -1. */
  rows: Tensor;
  /** u32 [R]: how many they are. */
  counts: Tensor;
}

export interface SamplerOptions {
  /** Rows per set at most. */
  batchSize: number;
  /** The largest share of positives, 0 … 1. */
  positiveFraction: number;
  order: SampleOrder;
  /** The number of the first set, for `random`: two samplers of one step take different ones. */
  firstSet?: number;
}

/**
 * A balanced sample of each set's rows: at most `batchSize · positiveFraction` (rounded down) of those with a match, the rest of
 * `batchSize` from those below the matcher's threshold. Nothing is read back.
 *
 * @param matches i32 [R, N] as `matchBoxes` gives them; rows of -2 or less are never taken
 *
 * Source: torchvision.models.detection._utils.BalancedPositiveNegativeSampler.
 */
export function samplePositiveNegative(matches: Tensor, options: SamplerOptions): Sampled {
  const { batchSize, positiveFraction, order, firstSet = 0 } = options;
  const fits = matches.dtype === 'i32' && matches.rank === 2;
  expectShape(fits, 'samplePositiveNegative', 'matches', 'i32 [R, N]', matches);
  const { device } = matches;
  const [sets, n] = matches.shape;
  const rows = device.empty([sets, batchSize], 'i32');
  const counts = device.empty([sets], 'u32');
  device.gpu.dispatch(sampleProgram, {
    buffers: { matches, rows, counts },
    uniforms: {
      n,
      size: batchSize,
      mostPositives: Math.trunc(batchSize * positiveFraction),
      kind: KINDS.indexOf(order.kind),
      seed: 'start' in order ? order.start : 'seed' in order ? order.seed : 0,
      firstSet,
    },
    workgroups: [sets, 1, 1],
  });
  return { rows, counts };
}

const joinProgram = defineProgram({
  name: 'joinSamples',
  uniforms: { count: 'u32', sets: 'u32', size: 'u32', n: 'u32' },
  bindings: {
    samples: ['read', 'i32'],
    counts: ['read', 'u32'],
    matches: ['read', 'i32'],
    rows: ['write', 'i32'],
    matched: ['write', 'i32'],
    total: 'write',
    length: ['write', 'u32'],
  },
  code: () =>
    placeWgsl +
    perElement(`
    let place = placeOf(i, u.sets);
    var row = -1;
    var found = ${NO_BOX};
    if (place.x < u.sets) {
      row = i32(place.x * u.n) + samples[place.x * u.size + place.y];
      found = matches[row];
    }
    rows[i] = row;
    matched[i] = found;
    if (i == 0u) {
      var sum = 0u;
      for (var other = 0u; other < u.sets; other++) { sum += counts[other]; }
      total[0] = f32(max(sum, 1u));
      length[0] = sum;
    }`),
});

/** The samples of all sets, one after another. */
export interface JoinedSamples {
  /** i32 [K]: rows of the flattened [R · N], then -1; K is R · batchSize. */
  rows: Tensor;
  /** i32 [K]: their matches, then -3. */
  matched: Tensor;
  /** f32 []: how many they are, at least 1: what losses are divided by. */
  total: Tensor;
  /** u32 [1]: how many they are. */
  length: Tensor;
}

/** Puts the samples of all sets together, so that all padding is at the end. @param matches i32 [R, N] they were drawn from */
export function joinSamples({ rows: samples, counts }: Sampled, matches: Tensor): JoinedSamples {
  const { device } = matches;
  const [sets, n] = matches.shape;
  const size = samples.shape[1];
  const count = sets * size;
  const rows = device.empty([count], 'i32');
  const matched = device.empty([count], 'i32');
  const total = device.empty([]);
  const length = device.empty([1], 'u32');
  device.gpu.dispatch(joinProgram, {
    buffers: { samples, counts, matches, rows, matched, total, length },
    uniforms: { count, sets, size, n },
    workgroups: workgroupsFor(count),
  });
  return { rows, matched, total, length };
}
