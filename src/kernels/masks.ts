import type { MaskCrop } from '../data/types.ts';
import { defineProgram, perElement } from '../gpu/program.ts';
import { expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';

/*
 * Predicted M × M probabilities are pasted into the image's pixels:
 *   1. a mask gets a border of one 0 on each side, and its box grows by (M + 2) / M about its centre, cut to whole pixels;
 *   2. the bordered mask is resized to the box (bilinear, corners not aligned), at x: (x - x0 + ½) · (M + 2) / w - ½;
 *   3. what lies outside the image is dropped.
 * Only the pixels inside boxes are computed and read back: dense masks of 540 instances would take 540 times the image.
 */
/** A rectangle of whole pixels. */
export interface PixelRegion {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** Zeros around a mask before it is resized (torchvision's `padding`). */
const BORDER = 1;

/** The whole-pixel boxes that bordered masks are resized to, not clipped. float32 in torch's order of operations. */
function grownBoxes(boxes: Float32Array, maskSize: number): PixelRegion[] {
  const f = Math.fround;
  const scale = f((maskSize + 2 * BORDER) / maskSize);
  const grow = (low: number, high: number): [number, number] => {
    const half = f(f(f(high - low) * 0.5) * scale);
    const centre = f(f(high + low) * 0.5);
    const start = Math.trunc(f(centre - half));
    return [start, Math.max(Math.trunc(f(centre + half)) - start + 1, 1)];
  };
  return Array.from({ length: boxes.length / 4 }, (_, i) => {
    const [x, width] = grow(boxes[i * 4], boxes[i * 4 + 2]);
    const [y, height] = grow(boxes[i * 4 + 1], boxes[i * 4 + 3]);
    return { x, y, width, height };
  });
}

function clipRegion(region: PixelRegion, [height, width]: readonly [number, number]): PixelRegion {
  const x = Math.min(Math.max(region.x, 0), width);
  const y = Math.min(Math.max(region.y, 0), height);
  return {
    x,
    y,
    width: Math.max(Math.min(region.x + region.width, width) - x, 0),
    height: Math.max(Math.min(region.y + region.height, height) - y, 0),
  };
}

/**
 * The pixels that pasted masks can cover: boxes [n, 4] (xmin, ymin, xmax, ymax in pixels) grown by (maskSize + 2) / maskSize,
 * cut to whole pixels and clipped to an image of `size` (height, width). A box beside the image gives an empty region.
 * Source: torchvision's `expand_boxes` and `paste_mask_in_image` (roi_heads.py).
 */
export function maskRegions(boxes: Float32Array, maskSize: number, size: readonly [number, number]): PixelRegion[] {
  return grownBoxes(boxes, maskSize).map((box) => clipRegion(box, size));
}

const BLOCK = 64;
/** Numbers of the table's rows: instance, its grown box (x, y, width, height), its region (x, y, width, height), first block. */
const ROW = 10;

/*
 * The crops lie one after another, each from a block of 64 pixels of its own; a workgroup makes one block, and `blocks` tells
 * whose it is. A chunk is a run of blocks.
 */
const pasteProgram = defineProgram({
  name: 'pasteMasks',
  uniforms: { count: 'u32', first: 'u32', side: 'u32' },
  bindings: { masks: 'read', table: ['read', 'i32'], blocks: ['read', 'u32'], y: 'write' },
  code: () => `
// The bordered mask's value: 0 on its rim.
fn valueAt(mask: u32, row: i32, column: i32) -> f32 {
  let side = i32(u.side);
  let inside = row >= 1 && row <= side && column >= 1 && column <= side;
  let at = (mask * u.side + u32(clamp(row - 1, 0, side - 1))) * u.side + u32(clamp(column - 1, 0, side - 1));
  return select(0.0, masks[at], inside);
}
${perElement(
  `
    let entry = blocks[u.first + i / ${BLOCK}u] * ${ROW}u;
    let region = vec4i(table[entry + 5u], table[entry + 6u], table[entry + 7u], table[entry + 8u]);
    let pixel = i32(u.first * ${BLOCK}u + i) - table[entry + 9u] * ${BLOCK};
    let origin = vec2f(f32(table[entry + 1u]), f32(table[entry + 2u]));
    let extent = vec2f(f32(table[entry + 3u]), f32(table[entry + 4u]));
    let place = vec2f(f32(region.x + pixel % region.z), f32(region.y + pixel / region.z)) - origin;
    let bordered = f32(u.side + 2u);
    let source = max((place + 0.5) * (bordered / extent) - 0.5, vec2f());
    let low = vec2i(min(floor(source), vec2f(bordered - 1.0)));
    let high = min(low + 1, vec2i(i32(u.side) + 1));
    let part = source - vec2f(low);
    let mask = u32(table[entry]);
    let top = mix(valueAt(mask, low.y, low.x), valueAt(mask, low.y, high.x), part.x);
    let bottom = mix(valueAt(mask, high.y, low.x), valueAt(mask, high.y, high.x), part.x);
    y[i] = mix(top, bottom, part.y);`,
  BLOCK,
)}`,
});

/** Crops of one chunk on the device at most: a readback in steps, whatever the number of instances. */
const CHUNK_BYTES = 32 * 2 ** 20;

/**
 * Predicted mask probabilities [n, M, M] put into the pixels of an image of `size` (height, width): the crop of each instance
 * inside its grown box, in order; everything outside a crop is 0. Reads back once per 32 MiB of crops.
 *
 * @param boxes [n, 4] xmin, ymin, xmax, ymax in pixels of that image (not of the network's input).
 * @param chunkBytes the most memory of crops on the device at once.
 * Source: torchvision's `paste_masks_in_image` (roi_heads.py).
 */
export async function pasteMasks(
  masks: Tensor,
  boxes: Float32Array,
  size: readonly [number, number],
  chunkBytes = CHUNK_BYTES,
): Promise<MaskCrop[]> {
  const n = boxes.length / 4;
  const fits = masks.rank === 3 && masks.shape[0] === n && masks.shape[1] === masks.shape[2];
  expectShape(fits, 'pasteMasks', 'masks', `[${n}, M, M] for ${n} boxes`, masks);
  const { device } = masks;
  const side = masks.shape[1];
  const grown = grownBoxes(boxes, side);
  const crops = grown.map((box): MaskCrop => {
    const region = clipRegion(box, size);
    return { ...region, data: new Float32Array(region.width * region.height) };
  });
  const table = new Int32Array(n * ROW);
  const firsts: number[] = [];
  let total = 0;
  crops.forEach(({ x, y, width, height, data }, i) => {
    const box = grown[i];
    table.set([i, box.x, box.y, box.width, box.height, x, y, width, height, total], i * ROW);
    firsts.push(total);
    total += Math.ceil(data.length / BLOCK);
  });
  const owners = new Uint32Array(total);
  crops.forEach(({ data }, i) => {
    owners.fill(i, firsts[i], firsts[i] + Math.ceil(data.length / BLOCK));
  });
  await device.scope(async () => {
    const onDevice = { table: device.tensor(table, [n, ROW]), blocks: device.tensor(owners, [total]) };
    const perChunk = Math.max(1, Math.floor(chunkBytes / (BLOCK * 4)));
    for (let first = 0; first < total; first += perChunk) {
      const blocks = Math.min(perChunk, total - first);
      const y = device.empty([blocks * BLOCK]);
      device.gpu.dispatch(pasteProgram, {
        buffers: { masks, ...onDevice, y },
        uniforms: { count: blocks * BLOCK, first, side },
        workgroups: blocks,
      });
      const values = await y.floats();
      y.dispose();
      // A crop may begin in one chunk and end in another.
      for (let i = owners[first]; i <= owners[first + blocks - 1]; i++) {
        const start = (first - firsts[i]) * BLOCK;
        const { data } = crops[i];
        const piece = values.subarray(Math.max(-start, 0), Math.max(data.length - start, 0));
        data.set(piece, Math.max(start, 0));
      }
    }
  });
  return crops;
}

/** Crops as whole masks [n, 1, height, width], 0 outside them: torchvision's own form of detections' masks. */
export function denseMasks(crops: readonly MaskCrop[], [height, width]: readonly [number, number]): Float32Array {
  const out = new Float32Array(crops.length * height * width);
  crops.forEach((crop, i) => {
    for (let row = 0; row < crop.height; row++) {
      const line = crop.data.subarray(row * crop.width, (row + 1) * crop.width);
      out.set(line, (i * height + crop.y + row) * width + crop.x);
    }
  });
  return out;
}
