import { defineProgram } from '../gpu/program.ts';
import { boxGeometryWgsl } from './boxes.ts';
import { DROPPED_KEY } from './topK.ts';

/*
 * The first part of non-maximum suppression (nms.ts): one workgroup decides the boxes of a set in blocks, the best that are left first.
 *   1. The lanes compare the boxes of a block with each other, one lane decides them in order.
 *   2. The lanes compare all others that are left with the block's kept boxes and take the bits of those that overlap one away.
 * That is little work where boxes crowd, and much on few lanes where they lie apart. So it ends, and hands over what is left, when a
 * block keeps more than half of its boxes (they are handed over too) or has removed less than a quarter of the others. The work is
 * thereby bounded: no more than 4 · BLOCK comparisons for each box.
 */

/** Boxes that are decided at once; a lane each. */
const BLOCK = 64;
/** So few boxes are all decided here, however far they lie apart: that costs less than the two dispatches of the rest. */
export const FEW = 256;
/** Words of 32 boxes whose bits workgroup memory holds. */
export const MOST_WORDS = 2048;

export const decideBlocks = defineProgram({
  name: 'nmsBlocks',
  // `stride`: the largest power of two up to n. Of each set: `state` = how many boxes are left and how many were kept; `sorted` and `rest`
  // (index, id) those left, in order.
  uniforms: { n: 'u32', stride: 'u32', limit: 'u32', threshold: 'f32' },
  bindings: {
    order: ['read', 'vec2u'],
    boxes: ['read', 'vec4f'],
    idxs: ['read', 'i32'],
    sorted: ['write', 'vec4f'],
    rest: ['write', 'vec2u'],
    state: ['write', 'vec2u'],
    indices: ['write', 'i32'],
    count: ['write', 'u32'],
  },
  code: ({ batched }: { batched: boolean }) => `${boxGeometryWgsl}
var<workgroup> left: array<u32, ${MOST_WORDS}>;
var<workgroup> leftCount: atomic<u32>;
var<workgroup> leftTotal: u32;
var<workgroup> places: array<u32, ${BLOCK}>;
var<workgroup> blockBoxes: array<vec4f, ${BLOCK}>;
var<workgroup> blockIds: array<i32, ${BLOCK}>;
var<workgroup> overlapped: array<vec2u, ${BLOCK}>;
var<workgroup> keptBits: vec2u;

fn bitOf(place: u32) -> vec2u { return select(vec2u(0u, 1u << (place & 31u)), vec2u(1u << (place & 31u), 0u), place < 32u); }
// The bits of a block up to this one.
fn bitsUpTo(place: u32) -> vec2u {
  let bits = (2u << (place & 31u)) - 1u;
  return select(vec2u(~0u, bits), vec2u(bits, 0u), place < 32u);
}
fn bitCount(bits: vec2u) -> u32 { return countOneBits(bits.x) + countOneBits(bits.y); }

@compute @workgroup_size(${BLOCK})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let start = group.x * u.n;
  let out = group.x * u.limit;
  let words = (u.n + 31u) / 32u;
  // Dropped boxes come last.
  var remaining = 0u;
  for (var step = u.stride; step > 0u; step /= 2u) {
    let upTo = min(remaining + step, u.n);
    remaining = select(remaining, upTo, order[start + upTo - 1u].x < ${DROPPED_KEY}u);
  }
  for (var w = lane; w < words; w += ${BLOCK}u) {
    left[w] = select(select(0u, (1u << (remaining & 31u)) - 1u, w == remaining / 32u), ~0u, w < remaining / 32u);
  }
  var kept = 0u;
  var word = 0u;
  while (remaining > 0u) {
    workgroupBarrier();
    let size = min(remaining, ${BLOCK}u);
    if (lane == 0u) {
      var found = 0u;
      for (var w = word; found < size; w++) {
        for (var bits = left[w]; bits != 0u && found < size; bits &= bits - 1u) {
          places[found] = w * 32u + firstTrailingBit(bits);
          found++;
        }
      }
      atomicStore(&leftCount, 0u);
    }
    workgroupBarrier();
    let index = order[start + places[min(lane, size - 1u)]].y;
    let box = boxes[start + index];
    let area = boxArea(box);
    blockBoxes[lane] = box;
    ${batched ? 'let id = idxs[start + index];\n    blockIds[lane] = id;' : ''}
    workgroupBarrier();
    var bits = vec2u();
    for (var other = 0u; other < size; other++) {
      let otherBox = blockBoxes[other];
      let overlaps = intersectionOverUnion(box, otherBox, area, boxArea(otherBox)) > u.threshold;
      bits |= select(vec2u(), bitOf(other), ${batched ? 'overlaps & (id == blockIds[other])' : 'overlaps'});
    }
    overlapped[lane] = bits;
    workgroupBarrier();
    if (lane == 0u) {
      var open = bitsUpTo(size - 1u);
      var decided = vec2u();
      for (var b = 0u; b < size; b++) {
        if (any((open & bitOf(b)) != vec2u())) {
          decided |= bitOf(b);
          open &= ~overlapped[b];
        }
      }
      keptBits = decided;
    }
    let decided = workgroupUniformLoad(&keptBits);
    let keptHere = bitCount(decided);
    if (2u * keptHere > size && remaining > ${FEW}u) { break; }
    if (any((decided & bitOf(lane)) != vec2u())) {
      let place = bitCount(decided & bitsUpTo(lane)) - 1u;
      if (kept + place < u.limit) { indices[out + kept + place] = i32(index); }
      blockBoxes[place] = box;
      ${batched ? 'blockIds[place] = id;' : ''}
    }
    kept = min(kept + keptHere, u.limit);
    if (kept == u.limit) {
      remaining = 0u;
      break;
    }
    workgroupBarrier();
    let last = places[size - 1u];
    word = last / 32u;
    var found = 0u;
    for (var w = word + lane; w < words; w += ${BLOCK}u) {
      var open = left[w];
      if (w == word) { open &= ~((2u << (last & 31u)) - 1u); }
      for (var bits = open; bits != 0u; bits &= bits - 1u) {
        let b = firstTrailingBit(bits);
        let index = order[start + w * 32u + b].y;
        let box = boxes[start + index];
        let area = boxArea(box);
        ${batched ? 'let id = idxs[start + index];' : ''}
        for (var k = 0u; k < keptHere; k++) {
          let other = blockBoxes[k];
          let overlaps = intersectionOverUnion(other, box, boxArea(other), area) > u.threshold;
          if (${batched ? 'overlaps && id == blockIds[k]' : 'overlaps'}) {
            open &= ~(1u << b);
            break;
          }
        }
      }
      left[w] = open;
      found += countOneBits(open);
    }
    atomicAdd(&leftCount, found);
    workgroupBarrier();
    if (lane == 0u) { leftTotal = atomicLoad(&leftCount); }
    let behind = remaining - size;
    remaining = workgroupUniformLoad(&leftTotal);
    if (4u * remaining > 3u * behind && remaining > ${FEW}u) { break; }
  }
  if (lane == 0u) {
    count[group.x] = kept;
    state[group.x] = vec2u(remaining, kept);
  }
  if (remaining == 0u) {
    for (var place = kept + lane; place < u.limit; place += ${BLOCK}u) { indices[out + place] = -1; }
  } else {
    // What is left goes on in its order: a lane writes the boxes of neighbouring words.
    let run = (words + ${BLOCK - 1}u) / ${BLOCK}u;
    let first = max(lane * run, word);
    let end = min((lane + 1u) * run, words);
    var found = 0u;
    for (var w = first; w < end; w++) { found += countOneBits(left[w]); }
    places[lane] = found;
    workgroupBarrier();
    var at = start;
    for (var other = 0u; other < lane; other++) { at += places[other]; }
    for (var w = first; w < end; w++) {
      for (var bits = left[w]; bits != 0u; bits &= bits - 1u) {
        let index = order[start + w * 32u + firstTrailingBit(bits)].y;
        sorted[at] = boxes[start + index];
        rest[at] = vec2u(index, ${batched ? 'bitcast<u32>(idxs[start + index])' : '0u'});
        at++;
      }
    }
  }
}`,
});
