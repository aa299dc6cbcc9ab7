import { defineProgram } from '../gpu/program.ts';
import { expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { boxGeometryWgsl } from './boxes.ts';
import { decideBlocks, FEW, MOST_WORDS } from './nmsBlocks.ts';
import { descendingOrder } from './topK.ts';

/*
 * Greedy non-maximum suppression, for R independent sets at once, without a readback:
 *   1. boxes are put in stable descending order of score (topK.ts);
 *   2. one workgroup per set decides the best of them in blocks, as long as these remove many of the others (nmsBlocks.ts): where boxes
 *      crowd, little is left after a few blocks, and most pairs are never compared;
 *   3. what is left is compared pair by pair, by all of the device: bit j of row i of a mask says IoU(i, j) > threshold, for
 *      j > i, in words of 32 boxes; the words are independent;
 *   4. one workgroup per set walks the words in order with the removed boxes' bits in workgroup memory: a word's 32
 *      boxes are decided one after another from the diagonal of the mask, then the rows of those kept are or-ed into the
 *      words that follow.
 * The mask takes N² / 8 bytes per set (12.5 MB for 10,000 boxes); words before the diagonal are neither written nor read.
 */
/** Lanes of a workgroup that compares boxes, rows of the mask in each, and about how many words of each row. */
const LANES = 32;
const ROWS = 8;
const WORDS_EACH = 8;
const SCAN_LANES = 64;

/** What the masks of several sets take together; a single set may take more. */
const MASK_BYTES = 64 * 2 ** 20;

/** The most boxes of one set: their bits must fit in workgroup memory (the mask would take 512 MB). */
const MAX_BOXES = MOST_WORDS * 32;

const eachRow = (text: (row: number) => string): string =>
  Array.from({ length: ROWS }, (_, row) => text(row)).join('\n');

const overlapMask = defineProgram({
  name: 'nmsMask',
  uniforms: { n: 'u32', words: 'u32', threshold: 'f32', firstSet: 'u32' },
  bindings: {
    state: ['read', 'vec2u'],
    sorted: ['read', 'vec4f'],
    rest: ['read', 'vec2u'],
    mask: ['write', 'u32'],
  },
  // A lane compares several rows with each column that it loads: loads are what a software adapter pays for. Columns are read straight from
  // the buffer, all lanes the same one: caches serve that, and a barrier costs more than it would save.
  code: ({ batched }: { batched: boolean }) => `${boxGeometryWgsl}
@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let start = (u.firstSet + group.z) * u.n;
  let length = state[u.firstSet + group.z].x;
  let firstRow = group.y * ${LANES * ROWS}u;
  if (firstRow < length) {
${eachRow(
  (r) => `    let row${r} = firstRow + ${r * LANES}u + lane;
    let at${r} = start + min(row${r}, length - 1u);
    let box${r} = sorted[at${r}];
    let area${r} = boxArea(box${r});
    ${batched ? `let id${r} = rest[at${r}].y;` : ''}`,
)}
    // Words before the diagonal are left out: nobody reads their bits.
    for (var word = firstRow / 32u + group.x; word * 32u < length; word += groups.x) {
      let first = word * 32u;
      ${eachRow((r) => `var bits${r} = 0u;`)}
      let end = min(first + 32u, length);
      for (var column = first; column < end; column++) {
        let other = sorted[start + column];
        let area = boxArea(other);
        let bit = 1u << (column - first);
        ${batched ? 'let id = rest[start + column].y;' : ''}
${eachRow((r) => {
  const overlaps = `intersectionOverUnion(box${r}, other, area${r}, area) > u.threshold`;
  return `        bits${r} |= select(0u, bit, ${batched ? `(${overlaps}) & (id == id${r})` : overlaps});`;
})}
      }
${eachRow((r) => `      if (row${r} < length) { mask[(group.z * u.n + row${r}) * u.words + word] = bits${r} & beyond(row${r}, first); }`)}
    }
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
    state: ['read', 'vec2u'],
    rest: ['read', 'vec2u'],
    mask: ['read', 'u32'],
    indices: ['write', 'i32'],
    count: ['write', 'u32'],
  },
  code: () => `
var<workgroup> removed: array<u32, ${MOST_WORDS}>;
var<workgroup> diagonal: array<u32, 32>;
var<workgroup> keptBits: u32;

@compute @workgroup_size(${SCAN_LANES})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let own = u.firstSet + group.x;
  let start = own * u.n;
  let rows = group.x * u.n;
  let out = own * u.limit;
  let length = state[own].x;
  let words = (length + 31u) / 32u;
  var kept = state[own].y;
  if (length == 0u) { return; }
  for (var w = lane; w < words; w += ${SCAN_LANES}u) { removed[w] = 0u; }
  for (var word = 0u; word < words; word++) {
    let size = min(32u, length - word * 32u);
    if (lane < size) { diagonal[lane] = mask[(rows + word * 32u + lane) * u.words + word]; }
    workgroupBarrier();
    if (lane == 0u) {
      var gone = removed[word];
      var bits = 0u;
      for (var b = 0u; b < size; b++) {
        if (((gone >> b) & 1u) == 0u) {
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
      if (place < u.limit) { indices[out + place] = i32(rest[start + word * 32u + lane].x); }
    }
    kept = min(kept + countOneBits(bits), u.limit);
    if (full) { break; }
    for (var w = word + 1u + lane; w < words; w += ${SCAN_LANES}u) {
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
  if (lane == 0u) { count[own] = kept; }
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
  const rest = device.empty([rows, n, 2], 'u32');
  const state = device.empty([rows, 2], 'u32');
  const flags = { batched: idxs !== null };
  const threshold = floorToFloat32(iouThreshold);
  device.gpu.dispatch(decideBlocks, {
    flags,
    // Without idxs their binding is never used, but must hold some buffer.
    buffers: { order, boxes, idxs: idxs ?? boxes, sorted, rest, state, indices, count },
    uniforms: { n, stride: 2 ** Math.floor(Math.log2(n)), limit, threshold },
    workgroups: [rows, 1, 1],
  });
  if (n > FEW) {
    // As many sets at a time as fit into the memory of the masks.
    const together = Math.min(rows, Math.max(1, Math.floor(MASK_BYTES / (n * words * 4))));
    const mask = device.empty([together, n, words], 'u32');
    for (let firstSet = 0; firstSet < rows; firstSet += together) {
      const some = Math.min(together, rows - firstSet);
      device.gpu.dispatch(overlapMask, {
        flags,
        buffers: { state, sorted, rest, mask },
        uniforms: { n, words, threshold, firstSet },
        workgroups: [Math.ceil(words / WORDS_EACH), Math.ceil(n / (LANES * ROWS)), some],
      });
      device.gpu.dispatch(scan, {
        buffers: { state, rest, mask, indices, count },
        uniforms: { n, words, limit, firstSet },
        workgroups: [some, 1, 1],
      });
    }
    mask.dispose();
  }
  for (const temporary of [order, sorted, rest, state]) temporary.dispose();
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
