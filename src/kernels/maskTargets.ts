import { maskBox } from '../data/maskBox.ts';
import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import type { Device } from '../tensor/device.ts';
import { expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { cellsWgsl, roiGeometry, weightWgsl } from './roiPooling.ts';

/*
 * Targets of the mask loss: truth masks pooled into M × M bins by ROIAlign.
 *
 * Hundreds of masks at the network's size would take hundreds of MB as floats. Here they stay at the size they were loaded at, cut
 * to the box of what they cover, one bit a pixel; a pixel at the network's size is looked up in its nearest pixel, floor(to · step)
 * with step = loaded / network side in float32, as torch's `interpolate` does it with a recomputed scale factor.
 *
 * A row of the table holds: the crop's x, y, width, height; its first word; the last row and column as loaded; the last row and
 * column at the network's size; step y and x (the bits of a float).
 */
const ROW = 11;

/** RoIs of any image are pooled: which mask is theirs is told by their match. */
const MANY_IMAGES = 2 ** 24;

/** Truth masks of a batch on the device. */
export interface TruthMasks {
  /** u32: crops one after another, each from a word of its own, rows without padding, lowest bit first. */
  bits: Tensor;
  /** u32 [T, 11], see the head of this file. */
  table: Tensor;
}

/** The truth masks of one image. */
export interface MasksOfImage {
  /** [n, height, width] of `size`, 0 or 1. */
  masks: Uint8Array;
  /** [height, width] as loaded. */
  size: readonly [number, number];
  /** [height, width] at which the network sees them. */
  networkSize: readonly [number, number];
}

function packCrop(mask: Uint8Array, width: number, [x1, y1, x2, y2]: readonly number[]): Uint32Array {
  const columns = x2 - x1 + 1;
  const words = new Uint32Array(Math.ceil((columns * (y2 - y1 + 1)) / 32));
  let at = 0;
  for (let y = y1; y <= y2; y++) {
    for (let from = y * width + x1, end = from + columns; from < end; from++, at++) {
      words[at >> 5] |= mask[from] << (at & 31);
    }
  }
  return words;
}

/** Packs the truth masks of a batch, images in order, and uploads them. */
export function uploadTruthMasks(device: Device, images: readonly MasksOfImage[]): TruthMasks {
  const rows: number[] = [];
  const crops: Uint32Array[] = [];
  let words = 0;
  const steps = new Float32Array(2);
  const stepBits = new Uint32Array(steps.buffer);
  for (const { masks, size, networkSize } of images) {
    const [height, width] = size;
    steps.set([height / networkSize[0], width / networkSize[1]]);
    const lasts = [height - 1, width - 1, networkSize[0] - 1, networkSize[1] - 1];
    for (let first = 0; first < masks.length; first += height * width) {
      const mask = masks.subarray(first, first + height * width);
      const box = maskBox(mask, width, height);
      const extent = box ? [box[0], box[1], box[2] - box[0] + 1, box[3] - box[1] + 1] : [0, 0, 0, 0];
      rows.push(...extent, words, ...lasts, ...stepBits);
      if (!box) continue;
      const crop = packCrop(mask, width, box);
      crops.push(crop);
      words += crop.length;
    }
  }
  const all = new Uint32Array(words);
  let at = 0;
  for (const crop of crops) {
    all.set(crop, at);
    at += crop.length;
  }
  return {
    bits: device.tensor(all, [words]),
    table: device.tensor(Uint32Array.from(rows), [rows.length / ROW, ROW]),
  };
}

const targetProgram = defineProgram({
  name: 'maskTargets',
  uniforms: { count: 'u32', bins: 'u32' },
  bindings: {
    geometry: ['read', 'vec4f'],
    matched: ['read', 'i32'],
    table: ['read', 'u32'],
    bits: ['read', 'u32'],
    y: 'write',
  },
  code: () => `
${weightWgsl}
${cellsWgsl}
// Whether the mask covers a pixel at the network's size.
fn covered(entry: u32, row: u32, column: u32) -> bool {
  let step = vec2f(bitcast<f32>(table[entry + 9u]), bitcast<f32>(table[entry + 10u]));
  let nearest = vec2u(vec2f(f32(row), f32(column)) * step);
  let place = min(nearest, vec2u(table[entry + 5u], table[entry + 6u])) - vec2u(table[entry + 1u], table[entry]);
  let width = table[entry + 2u];
  // What lies before the crop has wrapped around and lies behind it.
  if (place.x >= table[entry + 3u] || place.y >= width) { return false; }
  let bit = place.x * width + place.y;
  return ((bits[table[entry + 4u] + bit / 32u] >> (bit % 32u)) & 1u) == 1u;
}
${perElement(`
    let bx = i % u.bins;
    let by = i / u.bins % u.bins;
    let roi = i / (u.bins * u.bins);
    let found = matched[roi];
    var sum = -1.0;
    if (found >= 0) {
      sum = 0.0;
      let entry = u32(found) * ${ROW}u;
      let box = geometry[2u * roi];
      let samples = geometry[2u * roi + 1u].xy;
      let last = vec2f(f32(table[entry + 7u]), f32(table[entry + 8u]));
      let rows = cellsOf(box.x, box.z, samples.x, f32(by), last.x);
      let columns = cellsOf(box.y, box.w, samples.y, f32(bx), last.y);
      for (var row = rows.x; row <= rows.y; row++) {
        let wy = axisWeight(box.x, box.z, samples.x, f32(by), f32(row), last.x);
        for (var column = columns.x; wy != 0.0 && column <= columns.y; column++) {
          let weight = wy * axisWeight(box.y, box.w, samples.y, f32(bx), f32(column), last.y);
          if (weight != 0.0 && covered(entry, row, column)) { sum += weight; }
        }
      }
    }
    y[i] = sum;`)}`,
});

/**
 * Targets of the mask loss: of the truth masks the one `matched[k]` (i32 [K]), averaged over the M × M bins of RoI k: [K, M, M]
 * in 0 … 1. A RoI matched to no mask (a number below 0) gives -1, which `binaryCrossEntropyWithLogits` ignores. No gradient.
 *
 * @param rois f32 [K, 5]: image (any from 0), then xmin, ymin, xmax, ymax in pixels at the network's size
 * Source: torchvision's `project_masks_on_boxes` (roi_heads.py): roi_align with scale 1, adaptive sampling, not aligned, of masks
 * resized by `_resize_image_and_masks` (transform.py).
 */
export function projectMasksOnBoxes(masks: TruthMasks, rois: Tensor, matched: Tensor, M: number): Tensor {
  const name = 'projectMasksOnBoxes';
  expectShape(rois.rank === 2 && rois.shape[1] === 5, name, 'rois', '[K, 5]', rois);
  const count = rois.shape[0];
  const fits = matched.dtype === 'i32' && matched.rank === 1 && matched.size === count;
  expectShape(fits, name, 'matched', `i32[${count}]`, matched);
  const { device } = rois;
  const pooling = { outputSize: M, samplingRatio: 0, aligned: false, scales: [1], areas: [] };
  const geometry = roiGeometry(rois, MANY_IMAGES, pooling);
  const y = device.empty([count, M, M]);
  device.gpu.dispatch(targetProgram, {
    buffers: { geometry, matched, table: masks.table, bits: masks.bits, y },
    uniforms: { count: y.size, bins: M },
    workgroups: workgroupsFor(y.size),
  });
  geometry.dispose();
  return y;
}
