import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';

/*
 * A stable descending sort, and selection as its first k.
 *
 * Each value becomes a pair (key, index) whose unsigned order is the wanted one: the key is the value's bits, turned so
 * that larger values come first, and equal values (-0 equals +0) follow by index. All pairs differ, so the order is total.
 *   1. Runs of RUN pairs are sorted by a bitonic network in workgroup memory.
 *   2. Neighbouring runs are merged until one is left: a pair's place in the merged run is its place in its own run
 *      plus the number of smaller pairs in the other, found by binary search; pairs beyond place k are dropped.
 * That is 2 + log2(N / RUN) dispatches; with small k the runs are cut to k at once, so later merges touch little.
 */
const RUN = 1024;
// Few lanes: software adapters pay for each subgroup of a workgroup that has barriers (SwiftShader: some 40 µs), a GPU hardly cares.
const LANES = 32;

/** WGSL type of one entry of a sorted order: x = key (ascending), y = index in the row. */
const PAIR = 'vec2u';

/** The keys of what `dropBoxes` marked: -Infinity, and nothing real after it. */
export const DROPPED_KEY = 0xff800000;

const pairLess = `
fn less(a: vec2u, b: vec2u) -> bool { return a.x < b.x || (a.x == b.x && a.y < b.y); }
`;

const sortRuns = defineProgram({
  name: 'sortRuns',
  // rows × runs workgroups; n values per row; `kept` pairs per run are stored; `size` is the power of two that is sorted.
  uniforms: { n: 'u32', runs: 'u32', total: 'u32', kept: 'u32', size: 'u32' },
  bindings: { values: ['read', 'u32'], y: ['write', PAIR] },
  code: () => `${pairLess}
var<workgroup> pairs: array<vec2u, ${RUN}>;

fn keyOf(value: u32) -> u32 {
  // NaN counts as largest, as in torch; -0 equals +0.
  if ((value & 0x7fffffffu) > 0x7f800000u) { return 0u; }
  let bits = select(value, 0u, value == 0x80000000u);
  let ascending = select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
  return ~ascending;
}

@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let block = group.x + group.y * groups.x;
  let row = block / u.runs;
  let first = (block % u.runs) * ${RUN}u;
  for (var t = lane; t < u.size; t += ${LANES}u) {
    let index = first + t;
    var pair = vec2u(0xffffffffu, index);
    if (index < u.n && block < u.total) { pair.x = keyOf(values[row * u.n + index]); }
    pairs[t] = pair;
  }
  workgroupBarrier();
  for (var span = 2u; span <= u.size; span *= 2u) {
    for (var step = span / 2u; step > 0u; step /= 2u) {
      for (var t = lane; t < u.size / 2u; t += ${LANES}u) {
        let low = 2u * t - (t & (step - 1u));
        let high = low + step;
        let a = pairs[low];
        let b = pairs[high];
        if (less(b, a) == ((low & span) == 0u)) {
          pairs[low] = b;
          pairs[high] = a;
        }
      }
      workgroupBarrier();
    }
  }
  if (block < u.total) {
    for (var t = lane; t < u.kept; t += ${LANES}u) {
      y[block * u.kept + t] = pairs[t];
    }
  }
}`,
});

const mergeRuns = defineProgram({
  name: 'mergeRuns',
  // Runs of `width` values of a row of `n`, each stored as its first `kept` = min(width, k) pairs, become runs of `nextKept`.
  uniforms: { count: 'u32', n: 'u32', width: 'u32', runs: 'u32', kept: 'u32', nextRuns: 'u32', nextKept: 'u32' },
  bindings: { x: ['read', PAIR], y: ['write', PAIR] },
  code: () =>
    pairLess +
    perElement(`
    let place = i % u.kept;
    let run = (i / u.kept) % u.runs;
    let row = i / (u.kept * u.runs);
    if (place < min(u.kept, u.n - run * u.width)) {
      let pair = x[i];
      let other = run ^ 1u;
      var low = 0u;
      if (other < u.runs) {
        let start = (row * u.runs + other) * u.kept;
        var high = min(u.kept, u.n - other * u.width);
        while (low < high) {
          let middle = (low + high) / 2u;
          if (less(x[start + middle], pair)) { low = middle + 1u; } else { high = middle; }
        }
      }
      if (place + low < u.nextKept) {
        y[(row * u.nextRuns + run / 2u) * u.nextKept + place + low] = pair;
      }
    }`),
});

const takePairs = defineProgram({
  name: 'takePairs',
  uniforms: { count: 'u32', n: 'u32', k: 'u32' },
  bindings: { order: ['read', PAIR], x: 'read', values: 'write', indices: ['write', 'i32'] },
  code: () =>
    perElement(`
    let index = order[i].y;
    values[i] = x[(i / u.k) * u.n + index];
    indices[i] = i32(index);`),
});

/**
 * The first k places of each row's stable descending order, as pairs (key, index): u32 [R, k, 2] for values f32 [R, N],
 * k ≤ N. Keys ascend; -Infinity has `DROPPED_KEY`. For kernels that follow an order; `topK` is for everyone else.
 */
export function descendingOrder(values: Tensor, rows: number, n: number, k: number): Tensor {
  const { device } = values;
  let runs = Math.ceil(n / RUN);
  let width = RUN;
  let kept = Math.min(RUN, k);
  let order = device.empty([rows, runs * kept, 2], 'u32');
  if (rows === 0 || k === 0) return order;
  device.gpu.dispatch(sortRuns, {
    buffers: { values, y: order },
    uniforms: { n, runs, total: rows * runs, kept, size: Math.min(RUN, 2 ** Math.ceil(Math.log2(n))) },
    workgroups: rows * runs,
  });
  while (runs > 1) {
    const nextRuns = Math.ceil(runs / 2);
    const nextKept = Math.min(width * 2, k);
    const next = device.empty([rows, nextRuns * nextKept, 2], 'u32');
    const count = rows * runs * kept;
    device.gpu.dispatch(mergeRuns, {
      buffers: { x: order, y: next },
      uniforms: { count, n, width, runs, kept, nextRuns, nextKept },
      workgroups: workgroupsFor(count),
    });
    order.dispose();
    order = next;
    runs = nextRuns;
    kept = nextKept;
    width *= 2;
  }
  return order;
}

/**
 * The k largest values of each row, largest first, and where they were; k is cut to N. Equal values keep their order
 * (-0 equals +0), NaN counts as largest. Batches of rows run in the same dispatches. No gradient.
 *
 * @param values f32 [N] or [R, N]
 * @returns values f32 and indices i32, both [k] or [R, k]; indices count within the row
 *
 * Source: torch.topk, made stable (value, then index).
 */
export function topK(values: Tensor, k: number): { values: Tensor; indices: Tensor } {
  expectShape(
    values.dtype === 'f32' && (values.rank === 1 || values.rank === 2),
    'topK',
    'values',
    'f32 [N] or [R, N]',
    values,
  );
  if (!Number.isInteger(k) || k < 0) throw new Error(`topK: k: expected a whole number from 0, got ${k}.`);
  const { device } = values;
  const n = values.shape[values.rank - 1];
  const rows = values.rank === 2 ? values.shape[0] : 1;
  const taken = Math.min(k, n);
  const shape = values.rank === 2 ? [rows, taken] : [taken];
  const top = device.empty(shape);
  const indices = device.empty(shape, 'i32');
  if (top.size === 0) return { values: top, indices };
  const order = descendingOrder(values, rows, n, taken);
  device.gpu.dispatch(takePairs, {
    buffers: { order, x: values, values: top, indices },
    uniforms: { count: top.size, n, k: taken },
    workgroups: workgroupsFor(top.size),
  });
  order.dispose();
  return { values: top, indices };
}

/** All values [N] or [R, N] of each row, largest first, with their indices (i32): `topK` with k = N. Source: torch.sort(descending, stable). */
export function sortDescending(values: Tensor): { values: Tensor; indices: Tensor } {
  return topK(values, values.shape[values.rank - 1]);
}
