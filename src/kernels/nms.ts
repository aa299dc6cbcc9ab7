import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { boxGeometryWgsl } from './boxes.ts';
import { DROPPED_KEY, descendingOrder } from './topK.ts';

/*
 * Greedy non-maximum suppression, for R independent sets at once, without a readback:
 *   1. boxes are put in stable descending order of score (topK.ts);
 *   2. bit j of row i of a mask says IoU(i, j) > threshold, for j > i, in words of 32 boxes; the words are independent;
 *   3. one workgroup per set walks the words in order with the removed boxes' bits in workgroup memory: a word's 32
 *      boxes are decided one after another from the diagonal of the mask, then the rows of those kept are or-ed into the
 *      words that follow.
 * The mask takes N² / 8 bytes per set (12.5 MB for 10,000 boxes); words before the diagonal are neither written nor read.
 */
/** Lanes of a workgroup that compares boxes, and rows of the mask in each. */
const LANES = 64;
const ROWS = 4;
const WORDS = 2048;
const SCAN_LANES = 64;

/** What the masks of several sets take together; a single set may take more. */
const MASK_BYTES = 64 * 2 ** 20;

/** The most boxes of one set: their removed bits must fit in workgroup memory (the mask would take 512 MB). */
const MAX_BOXES = WORDS * 32;

const gatherSorted = defineProgram({
  name: 'nmsGather',
  uniforms: { count: 'u32', n: 'u32', batched: 'u32' },
  bindings: {
    order: ['read', 'vec2u'],
    boxes: ['read', 'vec4f'],
    idxs: ['read', 'i32'],
    sorted: ['write', 'vec4f'],
    sortedIdxs: ['write', 'i32'],
  },
  code: () =>
    perElement(`
    let source = (i / u.n) * u.n + order[i].y;
    sorted[i] = boxes[source];
    sortedIdxs[i] = select(0, idxs[source], u.batched == 1u);`),
});

const eachRow = (text: (row: number) => string): string =>
  Array.from({ length: ROWS }, (_, row) => text(row)).join('\n');

const overlapMask = defineProgram({
  name: 'nmsMask',
  uniforms: { n: 'u32', words: 'u32', threshold: 'f32', firstSet: 'u32' },
  bindings: {
    order: ['read', 'vec2u'],
    sorted: ['read', 'vec4f'],
    sortedIdxs: ['read', 'i32'],
    mask: ['write', 'u32'],
  },
  // A lane compares several rows with each column that it loads: loads are what a software adapter pays for. Columns are read straight from
  // the buffer, all lanes the same one: caches serve that, and a barrier costs more than it would save.
  code: ({ batched }: { batched: boolean }) => `${boxGeometryWgsl}
@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let start = (u.firstSet + group.z) * u.n;
  let firstRow = group.y * ${LANES * ROWS}u;
  let first = group.x * 32u;
  // Rows beyond the word's last column lie below the diagonal, and dropped boxes come last: nobody reads their bits.
  if (firstRow < first + 32u && order[start + max(firstRow, first)].x < ${DROPPED_KEY}u) {
${eachRow(
  (r) => `    let row${r} = firstRow + ${r * LANES}u + lane;
    let at${r} = start + min(row${r}, u.n - 1u);
    let box${r} = sorted[at${r}];
    let area${r} = boxArea(box${r});
    ${batched ? `let id${r} = sortedIdxs[at${r}];` : ''}
    var bits${r} = 0u;`,
)}
    let end = min(first + 32u, u.n);
    for (var column = first; column < end; column++) {
      let other = sorted[start + column];
      let area = boxArea(other);
      let bit = 1u << (column - first);
      ${batched ? 'let id = sortedIdxs[start + column];' : ''}
${eachRow((r) => {
  const overlaps = `intersectionOverUnion(box${r}, other, area${r}, area) > u.threshold`;
  return `      bits${r} |= select(0u, bit, ${batched ? `(${overlaps}) & (id == id${r})` : overlaps});`;
})}
    }
${eachRow((r) => `    if (row${r} < u.n) { mask[(group.z * u.n + row${r}) * u.words + group.x] = bits${r} & beyond(row${r}, first); }`)}
  }
}
// The bits of a word of columns from 'first' that lie behind the diagonal in this row.
fn beyond(row: u32, first: u32) -> u32 {
  if (row < first) { return ~0u; }
  return select(0u, ~((2u << (row - first)) - 1u), row - first < 32u);
}`,
});

const scan = defineProgram({
  name: 'nmsScan',
  uniforms: { n: 'u32', words: 'u32', limit: 'u32', firstSet: 'u32' },
  bindings: {
    order: ['read', 'vec2u'],
    mask: ['read', 'u32'],
    indices: ['write', 'i32'],
    count: ['write', 'u32'],
  },
  code: () => `
var<workgroup> removed: array<u32, ${WORDS}>;
var<workgroup> diagonal: array<u32, 32>;
var<workgroup> absent: array<u32, 32>;
var<workgroup> keptBits: u32;

@compute @workgroup_size(${SCAN_LANES})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let start = (u.firstSet + group.x) * u.n;
  let rows = group.x * u.n;
  let out = (u.firstSet + group.x) * u.limit;
  for (var w = lane; w < u.words; w += ${SCAN_LANES}u) { removed[w] = 0u; }
  var kept = 0u;
  for (var word = 0u; word < u.words; word++) {
    if (lane < 32u) {
      let row = word * 32u + lane;
      let inside = row < u.n;
      let at = min(row, u.n - 1u);
      diagonal[lane] = mask[(rows + at) * u.words + word];
      absent[lane] = select(1u, 0u, inside && order[start + at].x < ${DROPPED_KEY}u);
    }
    workgroupBarrier();
    if (lane == 0u) {
      var gone = removed[word];
      var bits = 0u;
      for (var b = 0u; b < 32u; b++) {
        if (((gone >> b) & 1u) == 0u && absent[b] == 0u) {
          bits |= 1u << b;
          gone |= diagonal[b];
        }
      }
      keptBits = bits;
    }
    let bits = workgroupUniformLoad(&keptBits);
    let full = kept + countOneBits(bits) >= u.limit;
    if (lane < 32u && ((bits >> lane) & 1u) == 1u) {
      let place = kept + countOneBits(bits & ((1u << lane) - 1u));
      if (place < u.limit) { indices[out + place] = i32(order[start + word * 32u + lane].y); }
    }
    kept = min(kept + countOneBits(bits), u.limit);
    if (full) { break; }
    for (var w = word + 1u + lane; w < u.words; w += ${SCAN_LANES}u) {
      var left = bits;
      var gone = removed[w];
      while (left != 0u) {
        let b = firstTrailingBit(left);
        left &= left - 1u;
        gone |= mask[(rows + word * 32u + b) * u.words + w];
      }
      removed[w] = gone;
    }
    workgroupBarrier();
  }
  for (var place = kept + lane; place < u.limit; place += ${SCAN_LANES}u) { indices[out + place] = -1; }
  if (lane == 0u) { count[u.firstSet + group.x] = kept; }
}`,
});

/** What was kept: the boxes' indices within their set, best score first, padded with -1; and how many they are. */
export interface Kept {
  /** i32 [N], or [R, N] for R sets; min(N, maxKept) instead of N where `maxKept` is given. */
  indices: Tensor;
  /** u32 [1], or [R]. */
  count: Tensor;
}

export interface NmsOptions {
  /** Stop after this many boxes of a set (the RPN's post-NMS top n, the detections per image). */
  maxKept?: number;
}

/** The largest float32 not above x: a float32 exceeds it exactly when it exceeds x, and torchvision compares in double. */
function floorToFloat32(x: number): number {
  const rounded = Math.fround(x);
  if (rounded <= x) return rounded;
  const bits = new Uint32Array(Float32Array.of(rounded).buffer);
  bits[0] -= 1;
  return new Float32Array(bits.buffer)[0];
}

function suppress(
  name: string,
  boxes: Tensor,
  scores: Tensor,
  idxs: Tensor | null,
  iouThreshold: number,
  { maxKept = Number.POSITIVE_INFINITY }: NmsOptions,
): Kept {
  const sets = boxes.shape.slice(0, -1);
  const n = boxes.shape[boxes.rank - 2];
  const sameSets = (tensor: Tensor) =>
    tensor.rank === sets.length && sets.every((extent, i) => tensor.shape[i] === extent);
  const wellFormed = boxes.dtype === 'f32' && (boxes.rank === 2 || boxes.rank === 3) && boxes.shape.at(-1) === 4;
  expectShape(wellFormed, name, 'boxes', 'f32 [N, 4] or [R, N, 4]', boxes);
  expectShape(n <= MAX_BOXES, name, 'boxes', `at most ${MAX_BOXES} boxes in a set`, boxes);
  expectShape(scores.dtype === 'f32' && sameSets(scores), name, 'scores', `f32 [${sets}]`, scores);
  if (idxs) expectShape(idxs.dtype === 'i32' && sameSets(idxs), name, 'idxs', `i32 [${sets}]`, idxs);
  if (!(iouThreshold >= 0)) throw new Error(`${name}: iouThreshold: expected a number from 0, got ${iouThreshold}.`);
  if (!(maxKept >= 0)) throw new Error(`${name}: maxKept: expected a number from 0, got ${maxKept}.`);

  const { device } = boxes;
  const rows = sets.length === 2 ? sets[0] : 1;
  const limit = Math.min(n, maxKept);
  const indices = device.empty([...sets.slice(0, -1), limit], 'i32');
  if (indices.size === 0) return { indices, count: device.zeros([rows], 'u32') };

  const count = device.empty([rows], 'u32');
  const words = Math.ceil(n / 32);
  const order = descendingOrder(scores, rows, n, n);
  const sorted = device.empty([rows, n, 4]);
  const sortedIdxs = device.empty([rows, n], 'i32');
  device.gpu.dispatch(gatherSorted, {
    // Without idxs their binding is never used, but must hold some buffer.
    buffers: { order, boxes, idxs: idxs ?? boxes, sorted, sortedIdxs },
    uniforms: { count: rows * n, n, batched: idxs ? 1 : 0 },
    workgroups: workgroupsFor(rows * n),
  });
  // As many sets at a time as fit into the memory of the masks.
  const together = Math.min(rows, Math.max(1, Math.floor(MASK_BYTES / (n * words * 4))));
  const mask = device.empty([together, n, words], 'u32');
  for (let firstSet = 0; firstSet < rows; firstSet += together) {
    const some = Math.min(together, rows - firstSet);
    device.gpu.dispatch(overlapMask, {
      flags: { batched: idxs !== null },
      buffers: { order, sorted, sortedIdxs, mask },
      uniforms: { n, words, threshold: floorToFloat32(iouThreshold), firstSet },
      workgroups: [words, Math.ceil(n / (LANES * ROWS)), some],
    });
    device.gpu.dispatch(scan, {
      buffers: { order, mask, indices, count },
      uniforms: { n, words, limit, firstSet },
      workgroups: [some, 1, 1],
    });
  }
  for (const temporary of [order, sorted, sortedIdxs, mask]) temporary.dispose();
  return { indices, count };
}

/**
 * Greedy non-maximum suppression: from the best score down, a box is kept unless its IoU with a kept box exceeds
 * `iouThreshold`. Equal scores are taken in index order. A box of score -Infinity stands for no box (see `dropBoxes`):
 * it is never kept. Nothing is read back; no gradient.
 *
 * @param boxes f32 [N, 4], or [R, N, 4] for R independent sets, in pixels; N ≤ 65,536
 * @param scores f32 [N] or [R, N]
 *
 * Source: torchvision.ops.nms on the CPU (its float32 arithmetic, operation by operation).
 */
export function nms(boxes: Tensor, scores: Tensor, iouThreshold: number, options: NmsOptions = {}): Kept {
  return suppress('nms', boxes, scores, null, iouThreshold, options);
}

/**
 * `nms` where only boxes of the same class or level suppress each other; all classes share one order of scores.
 *
 * @param idxs i32 [N] or [R, N]: the class or level of each box
 *
 * Source: torchvision.ops.batched_nms; ids are compared in the kernel instead of shifting each class's coordinates, which
 * would cost precision.
 */
export function batchedNms(
  boxes: Tensor,
  scores: Tensor,
  idxs: Tensor,
  iouThreshold: number,
  options: NmsOptions = {},
): Kept {
  return suppress('batchedNms', boxes, scores, idxs, iouThreshold, options);
}
