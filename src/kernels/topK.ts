import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';

/*
 * A stable descending sort, and selection as its first k.
 *
 * Each value becomes a pair (key, index) whose unsigned order is the wanted one: the key is the value's bits, turned so
 * that larger values come first, and equal values (-0 equals +0) follow by index. All pairs differ, so the order is total.
 *   1. Runs of RUN values are sorted by counting: a value's place is the number of pairs of its run that come before its own.
 *   2. Several runs at a time are merged until one is left: a pair's place is its place in its own run plus the numbers of
 *      pairs of the others that come before it, found by binary search; pairs beyond place k are dropped.
 * Nothing waits for anything within a dispatch: a software adapter pays much for barriers, and a sorting network in workgroup
 * memory takes 36 of them for such a run. With small k the runs are cut to k at once, so later merges touch little.
 */
const RUN = 256;
/** Up to so many values are one run: counting costs less than a merge. */
const LONGEST_RUN = 512;
/** Up to so many runs are merged in one dispatch; more, in steps of at most MERGED. */
const MERGED_AT_ONCE = 16;
const MERGED = 4;

const LANES = 32;
/** Values of a lane: it compares all of them with each key that it loads. */
const COUNTED = 8;
/** Pairs of a lane, whose searches go on side by side. */
const SEARCHED = 4;

/** WGSL type of one entry of a sorted order: x = key (ascending), y = index in the row. */
const PAIR = 'vec2u';

/** The keys of what `dropBoxes` marked: -Infinity, and nothing real after it. */
export const DROPPED_KEY = 0xff800000;

const each = (count: number, text: (index: number) => string): string =>
  Array.from({ length: count }, (_, index) => text(index)).join('\n');

/** WGSL that adds to every rank how many values from `from` to before `until` have a key below the lane's own `bound`. */
function countBelow(from: string, until: string, bound: 'key' | 'nextKey'): string {
  const unroll = 4;
  const count = (other: string) => each(COUNTED, (c) => `rank${c} += select(0u, 1u, ${other} < ${bound}${c});`);
  return `
  for (at = ${from}; at + ${unroll - 1}u < ${until}; at += ${unroll}u) {
    ${each(unroll, (i) => `let other${i} = keyOf(values[row + at + ${i}u]);`)}
    ${each(unroll, (i) => count(`other${i}`))}
  }
  for (; at < ${until}; at++) {
    let other = keyOf(values[row + at]);
    ${count('other')}
  }`;
}

const sortRuns = defineProgram({
  name: 'sortRuns',
  // `total` runs of `width` values in rows of `n`; `kept` pairs of each are stored; `parts` workgroups for each.
  uniforms: { n: 'u32', width: 'u32', runs: 'u32', total: 'u32', parts: 'u32', kept: 'u32' },
  bindings: { values: ['read', 'u32'], y: ['write', PAIR] },
  // Keys are compared as signed integers, which SIMD units can do at once; the smallest of them is NaN's.
  code: () => `
fn keyOf(value: u32) -> i32 {
  // NaN counts as largest, as in torch; -0 equals +0.
  let bits = bitcast<i32>(select(value, 0u, value == 0x80000000u));
  let ascending = bits ^ select(0, 0x7fffffff, bits < 0);
  return select(~ascending, bitcast<i32>(0x80000000u), (value & 0x7fffffffu) > 0x7f800000u);
}

@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let part = group.x + group.y * groups.x;
  let block = part / u.parts;
  let row = block / u.runs * u.n;
  let first = (block % u.runs) * u.width;
  let end = min(first + u.width, u.n);
  let own = first + (part % u.parts) * ${LANES * COUNTED}u;
  if (block < u.total && own < end) {
${each(
  COUNTED,
  (c) => `    let index${c} = own + ${c * LANES}u + lane;
    let key${c} = keyOf(values[row + min(index${c}, u.n - 1u)]);
    let nextKey${c} = key${c} + 1;
    var rank${c} = 0u;`,
)}
    let ownEnd = min(own + ${LANES * COUNTED}u, end);
    var at = first;
    // Equal keys come first where their index is smaller.
    ${countBelow('first', 'own', 'nextKey')}
    for (at = own; at < ownEnd; at++) {
      let other = keyOf(values[row + at]);
      ${each(COUNTED, (c) => `rank${c} += select(0u, 1u, other < select(key${c}, nextKey${c}, at < index${c}));`)}
    }
    ${countBelow('ownEnd', 'end', 'key')}
${each(
  COUNTED,
  (c) => `    if (index${c} < end && rank${c} < u.kept) {
      y[block * u.kept + rank${c}] = vec2u(bitcast<u32>(key${c}) ^ 0x80000000u, index${c});
    }`,
)}
  }
}`,
});

const mergeRuns = defineProgram({
  name: 'mergeRuns',
  // `total` runs of `width` values in rows of `n`, each stored as its first `kept` = min(width, k) pairs: `ways` of them become one of
  // `nextKept`. `stride` is the largest power of two up to `kept`; `parts` workgroups for each run.
  uniforms: {
    n: 'u32',
    width: 'u32',
    runs: 'u32',
    total: 'u32',
    parts: 'u32',
    kept: 'u32',
    stride: 'u32',
    ways: 'u32',
    nextRuns: 'u32',
    nextKept: 'u32',
  },
  bindings: { x: ['read', PAIR], y: ['write', PAIR] },
  code: () => `
@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let part = group.x + group.y * groups.x;
  let block = part / u.parts;
  let row = block / u.runs;
  let run = block % u.runs;
  let length = min(u.kept, u.n - run * u.width);
  if (block < u.total) {
${each(
  SEARCHED,
  (s) => `    let at${s} = (part % u.parts) * ${LANES * SEARCHED}u + ${s * LANES}u + lane;
    let pair${s} = x[block * u.kept + min(at${s}, length - 1u)];
    var place${s} = at${s};`,
)}
    let next = run / u.ways;
    for (var other = next * u.ways; other < min((next + 1u) * u.ways, u.runs); other++) {
      if (other == run) { continue; }
      let start = (row * u.runs + other) * u.kept;
      let otherLength = min(u.kept, u.n - other * u.width);
      // All indices of a run before are smaller, so equal keys come first there.
      let equal = select(0u, 1u, other < run);
      ${each(SEARCHED, (s) => `var less${s} = 0u;`)}
      for (var step = u.stride; step > 0u; step /= 2u) {
${each(
  SEARCHED,
  (s) => `        let upTo${s} = min(less${s} + step, otherLength);
        less${s} = select(less${s}, upTo${s}, x[start + upTo${s} - 1u].x < pair${s}.x + equal);`,
)}
      }
      ${each(SEARCHED, (s) => `place${s} += less${s};`)}
    }
    let out = (row * u.nextRuns + next) * u.nextKept;
${each(SEARCHED, (s) => `    if (at${s} < length && place${s} < u.nextKept) { y[out + place${s}] = pair${s}; }`)}
  }
}`,
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
  let width = n <= LONGEST_RUN ? n : RUN;
  let runs = Math.ceil(n / Math.max(width, 1));
  let kept = Math.min(width, k);
  let order = device.empty([rows, runs * kept, 2], 'u32');
  if (rows === 0 || k === 0) return order;
  const sorters = Math.ceil(width / (LANES * COUNTED));
  device.gpu.dispatch(sortRuns, {
    buffers: { values, y: order },
    uniforms: { n, width, runs, total: rows * runs, parts: sorters, kept },
    workgroups: rows * runs * sorters,
  });
  while (runs > 1) {
    const ways = runsMerged(runs);
    const nextRuns = Math.ceil(runs / ways);
    const nextKept = Math.min(width * ways, k);
    const next = device.empty([rows, nextRuns * nextKept, 2], 'u32');
    const parts = Math.ceil(kept / (LANES * SEARCHED));
    const stride = 2 ** Math.floor(Math.log2(kept));
    device.gpu.dispatch(mergeRuns, {
      buffers: { x: order, y: next },
      uniforms: { n, width, runs, total: rows * runs, parts, kept, stride, ways, nextRuns, nextKept },
      workgroups: rows * runs * parts,
    });
    order.dispose();
    order = next;
    runs = nextRuns;
    kept = nextKept;
    width *= ways;
  }
  return order;
}

/** How many of so many runs to merge into one: about equally many in each of the dispatches that will be needed. */
function runsMerged(runs: number): number {
  if (runs <= MERGED_AT_ONCE) return runs;
  let dispatches = 1;
  while (MERGED ** dispatches < runs) dispatches++;
  let ways = 2;
  while (ways ** dispatches < runs) ways++;
  return ways;
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
