import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { inParts } from '../tensor/parts.ts';
import type { Tensor } from '../tensor/tensor.ts';

/*
 * What `roiAlign`, `multiScaleRoiAlign` and the mask targets share.
 *
 * A bin of a RoI is the mean of bilinear samples at regular places p inside it. Bilinear interpolation is a product of two
 * hats, and the places form a grid, so a bin is separable:
 *   y[by, bx] = Σ_row Σ_col wy(by, row) · wx(bx, col) · x[row, col],
 *   w(b, cell) = 1/n · Σ_k [-1 ≤ p_k ≤ size] · max(0, 1 - |clamp(p_k, 0, size - 1) - cell|),   p_k = start + b·bin + (k + ½)·bin/n.
 * (torchvision: a sample more than one cell outside the map counts as 0, a nearer one takes the border's value.)
 * The gradient is the transposed sum, and each cell of dx gathers it alone, RoIs in ascending order, bins in ascending
 * order: no atomics, and the same bits in every run.
 *   dx[row, col] = Σ_roi Σ_by Σ_bx wy(by, row) · wx(bx, col) · dy[roi, by, bx]
 * Both directions loop over the few cells (or bins) whose hats can meet, and both read exactly the non-zero products once.
 * So that a cell does not test every RoI, a pass before it lists, in order, the RoIs that can touch each square tile of cells.
 *
 * geometry [K, 8] holds per RoI: start y, x; bin height, width (cells of its level); samples per bin y, x; image; level.
 */

/** Maps of one call, fine to coarse: `multiScaleRoiAlign` has up to four, everything else one. */
export const MAX_LEVELS = 4;

export interface Pooling {
  /** Bins per side. */
  outputSize: number;
  /** Samples per bin and axis; 0 or less: ceil(RoI side / outputSize), per RoI and axis. */
  samplingRatio: number;
  /** Shifts RoIs by half a cell and drops the minimum RoI side of one cell. */
  aligned: boolean;
  /** Cells per pixel of each level's map, fine to coarse. */
  scales: readonly number[];
  /** Level j > 0 takes the RoIs whose area in pixels is at least `areas[j - 1]` (ascending). */
  areas: readonly number[];
}

const LARGEST_FLOAT = 3.4e38;

const geometryProgram = defineProgram({
  name: 'roiGeometry',
  uniforms: {
    count: 'u32',
    images: 'f32',
    bins: 'f32',
    samples: 'i32',
    aligned: 'u32',
    scale0: 'f32',
    scale1: 'f32',
    scale2: 'f32',
    scale3: 'f32',
    area1: 'f32',
    area2: 'f32',
    area3: 'f32',
  },
  bindings: { rois: 'read', geometry: ['write', 'vec4f'] },
  // A quotient that should be whole may come out a rounding error above it; the product by whole numbers is exact.
  code: () => `
fn adaptive(side: f32) -> f32 {
  let samples = max(ceil(side / u.bins), 0.0);
  return select(samples, samples - 1.0, samples >= 1.0 && (samples - 1.0) * u.bins >= side);
}
${perElement(`
    let image = rois[i * 5u];
    let low = vec2f(rois[i * 5u + 2u], rois[i * 5u + 1u]);
    let high = vec2f(rois[i * 5u + 4u], rois[i * 5u + 3u]);
    let area = (high.x - low.x) * (high.y - low.y);
    var level = 0.0;
    var scale = u.scale0;
    if (area >= u.area1) { level = 1.0; scale = u.scale1; }
    if (area >= u.area2) { level = 2.0; scale = u.scale2; }
    if (area >= u.area3) { level = 3.0; scale = u.scale3; }
    let offset = select(0.0, 0.5, u.aligned == 1u);
    let start = low * scale - offset;
    var side = (high * scale - offset) - start;
    if (u.aligned == 0u) { side = max(side, vec2f(1.0)); }
    var samples = vec2f(f32(u.samples));
    if (u.samples <= 0) { samples = vec2f(adaptive(side.x), adaptive(side.y)); }
    // A RoI of no image of the batch has no samples: its bins are 0.
    if (!(image >= 0.0 && image < u.images)) { samples = vec2f(); }
    geometry[2u * i] = vec4f(start, side / u.bins);
    geometry[2u * i + 1u] = vec4f(samples, floor(image), level);`)}`,
});

/** WGSL: `axisWeight`, the w of the head of this file. */
export const weightWgsl = `
fn samplePlace(first: f32, step: f32, k: f32) -> f32 { return first + (k + 0.5) * step; }

// w(b, cell); 'last' is the map's last cell on this axis.
fn axisWeight(start: f32, bin: f32, samples: f32, b: f32, cell: f32, last: f32) -> f32 {
  let first = start + b * bin;
  let step = bin / max(samples, 1.0);
  var low = 0.0;
  var high = samples - 1.0;
  // With many samples only those around the cell are looked at.
  if (samples > 4.0 && step > 0.0) {
    low = max(low, floor((cell - 1.0 - first) / step - 0.6));
    high = min(high, ceil((cell + 1.0 - first) / step - 0.4));
  }
  var sum = 0.0;
  for (var k = low; k <= high; k += 1.0) {
    let place = samplePlace(first, step, k);
    let hat = max(0.0, 1.0 - abs(clamp(place, 0.0, last) - cell));
    sum += select(0.0, hat, place >= -1.0 && place <= last + 1.0);
  }
  return sum / max(samples, 1.0);
}`;

/** WGSL after `weightWgsl`: `cellsOf`, the cells in which a bin's weights are not 0. */
export const cellsWgsl = `
// The first and last cell that samples of bin b can reach.
fn cellsOf(start: f32, bin: f32, samples: f32, b: f32, last: f32) -> vec2u {
  let first = start + b * bin;
  let step = bin / max(samples, 1.0);
  let near = samplePlace(first, step, 0.0);
  let far = samplePlace(first, step, max(samples, 1.0) - 1.0);
  return vec2u(vec2f(clamp(floor(min(near, far)), 0.0, last), clamp(floor(max(near, far)) + 1.0, 0.0, last)));
}
`;

/** How channels are spread over invocations: `unroll` groups of one or four channels each. */
interface Lanes extends Record<string, string | number | boolean> {
  element: 'f32' | 'vec4f';
  unroll: 1 | 4;
}

/** Weights cost as much as a load, so with many channels an invocation shares them among four vectors. */
function lanesFor(channels: number): { flags: Lanes; lanes: number } {
  if (channels % 4 !== 0) return { flags: { element: 'f32', unroll: 1 }, lanes: channels };
  const unroll = channels % 16 === 0 && channels >= 128 ? 4 : 1;
  return { flags: { element: 'vec4f', unroll }, lanes: channels / 4 / unroll };
}

function each(unroll: number, text: (index: number) => string): string {
  return Array.from({ length: unroll }, (_, index) => text(index)).join('\n');
}

// One invocation makes `run` neighbouring bins of a row of bins. RoIs of other levels get an empty loop: their dispatch follows.
const poolProgram = defineProgram({
  name: 'roiPool',
  uniforms: {
    count: 'u32',
    lanes: 'u32',
    runs: 'u32',
    run: 'u32',
    bins: 'u32',
    height: 'u32',
    width: 'u32',
    level: 'f32',
    /** The images of x. RoIs of no image count to the first or the last, which these bounds leave open. */
    firstImage: 'f32',
    atLeast: 'f32',
    below: 'f32',
  },
  bindings: ({ element }: Lanes) =>
    ({ geometry: ['read', 'vec4f'], x: ['read', element], y: ['write', element] }) as const,
  code: ({ element, unroll }) => `
${weightWgsl}
${cellsWgsl}
${perElement(`
    let lane = i % u.lanes;
    let run = i / u.lanes % u.runs;
    let by = i / (u.lanes * u.runs) % u.bins;
    let roi = i / (u.lanes * u.runs * u.bins);
    let box = geometry[2u * roi];
    let grid = geometry[2u * roi + 1u];
    let last = vec2f(f32(u.height - 1u), f32(u.width - 1u));
    let rows = cellsOf(box.x, box.z, grid.x, f32(by), last.x);
    let mine = grid.w == u.level && grid.z >= u.atLeast && grid.z < u.below;
    let end = select(0u, min((run + 1u) * u.run, u.bins), mine);
    for (var bx = run * u.run; bx < end; bx++) {
      let columns = cellsOf(box.y, box.w, grid.y, f32(bx), last.y);
      ${each(unroll, (v) => `var sum${v} = ${element}();`)}
      for (var row = rows.x; row <= rows.y; row++) {
        let wy = axisWeight(box.x, box.z, grid.x, f32(by), f32(row), last.x);
        let line = (u32(grid.z - u.firstImage) * u.height + row) * u.width;
        for (var column = columns.x; wy != 0.0 && column <= columns.y; column++) {
          let weight = wy * axisWeight(box.y, box.w, grid.y, f32(bx), f32(column), last.y);
          if (weight != 0.0) {
            let at = (line + column) * u.lanes * ${unroll}u + lane;
            ${each(unroll, (v) => `sum${v} += weight * x[at + ${v}u * u.lanes];`)}
          }
        }
      }
      let to = ((roi * u.bins + by) * u.bins + bx) * u.lanes * ${unroll}u + lane;
      ${each(unroll, (v) => `y[to + ${v}u * u.lanes] = sum${v};`)}
    }`)}`,
});

const listProgram = defineProgram({
  name: 'roiTileLists',
  uniforms: {
    count: 'u32',
    rois: 'u32',
    tile: 'u32',
    tilesY: 'u32',
    tilesX: 'u32',
    bins: 'f32',
    level: 'f32',
    firstImage: 'f32',
  },
  bindings: { geometry: ['read', 'vec4f'], list: ['write', 'u32'], counts: ['write', 'u32'] },
  code: () =>
    perElement(`
    let corner = vec2f(f32(i / u.tilesX % u.tilesY), f32(i % u.tilesX)) * f32(u.tile);
    let image = u.firstImage + f32(i / (u.tilesX * u.tilesY));
    var found = 0u;
    for (var roi = 0u; roi < u.rois; roi++) {
      let grid = geometry[2u * roi + 1u];
      if (grid.z == image && grid.w == u.level) {
        let box = geometry[2u * roi];
        let end = box.xy + box.zw * u.bins;
        // A sample reaches cells up to one cell away.
        if (all(max(box.xy, end) >= corner - 1.0) && all(min(box.xy, end) <= corner + f32(u.tile))) {
          list[i * u.rois + found] = roi;
          found++;
        }
      }
    }
    counts[i] = found;`),
});

const gradientProgram = defineProgram({
  name: 'roiPoolBackward',
  uniforms: {
    count: 'u32',
    lanes: 'u32',
    rois: 'u32',
    tile: 'u32',
    tilesY: 'u32',
    tilesX: 'u32',
    bins: 'u32',
    height: 'u32',
    width: 'u32',
    accumulate: 'u32',
  },
  bindings: ({ element }: Lanes) =>
    ({
      geometry: ['read', 'vec4f'],
      list: ['read', 'u32'],
      counts: ['read', 'u32'],
      dy: ['read', element],
      dx: ['write', element],
    }) as const,
  code: ({ element, unroll }) => `
${weightWgsl}
// The first bin with a sample that can reach the cell, and the one after the last.
// Samples keep half a step from their bin's ends; the slack is for the division's rounding.
fn binsOf(start: f32, bin: f32, samples: f32, cell: f32) -> vec2u {
  let bins = f32(u.bins);
  if (abs(bin) < 1e-6) { return vec2u(0u, u.bins); }
  let a = (cell - 1.0 - start) / bin;
  let b = (cell + 1.0 - start) / bin;
  let margin = 0.5 / max(samples, 1.0) - 0.001;
  let first = floor(min(a, b) + margin);
  let end = floor(max(a, b) - margin) + 1.0;
  return vec2u(clamp(vec2f(first, end), vec2f(), vec2f(bins)));
}
${perElement(`
    let lane = i % u.lanes;
    let cell = i / u.lanes;
    let column = cell % u.width;
    let row = cell / u.width % u.height;
    let image = cell / (u.width * u.height);
    let tile = (image * u.tilesY + row / u.tile) * u.tilesX + column / u.tile;
    let last = vec2f(f32(u.height - 1u), f32(u.width - 1u));
    let at = vec2f(f32(row), f32(column));
    ${each(unroll, (v) => `var sum${v} = ${element}();`)}
    let found = counts[tile];
    for (var entry = 0u; entry < found; entry++) {
      let roi = list[tile * u.rois + entry];
      let box = geometry[2u * roi];
      let samples = geometry[2u * roi + 1u].xy;
      let binsY = binsOf(box.x, box.z, samples.x, at.x);
      let binsX = binsOf(box.y, box.w, samples.y, at.y);
      for (var by = binsY.x; by < binsY.y; by++) {
        let wy = axisWeight(box.x, box.z, samples.x, f32(by), at.x, last.x);
        for (var bx = binsX.x; wy != 0.0 && bx < binsX.y; bx++) {
          let weight = wy * axisWeight(box.y, box.w, samples.y, f32(bx), at.y, last.y);
          if (weight != 0.0) {
            let source = ((roi * u.bins + by) * u.bins + bx) * u.lanes * ${unroll}u + lane;
            ${each(unroll, (v) => `sum${v} += weight * dy[source + ${v}u * u.lanes];`)}
          }
        }
      }
    }
    let to = cell * u.lanes * ${unroll}u + lane;
    if (u.accumulate == 1u) {
      ${each(unroll, (v) => `sum${v} += dx[to + ${v}u * u.lanes];`)}
    }
    ${each(unroll, (v) => `dx[to + ${v}u * u.lanes] = sum${v};`)}`)}`,
});

/** Where the RoIs [K, 5] lie on their levels' maps, for a batch of `images`; the layout is told at the head of this file. */
export function roiGeometry(rois: Tensor, images: number, pooling: Pooling): Tensor {
  const { outputSize, samplingRatio, aligned, scales, areas } = pooling;
  const count = rois.shape[0];
  const geometry = rois.device.empty([count, 8]);
  const scale = (level: number): number => scales[level] ?? scales[0];
  const area = (level: number): number => areas[level - 1] ?? LARGEST_FLOAT;
  rois.device.gpu.dispatch(geometryProgram, {
    buffers: { rois, geometry },
    uniforms: {
      count,
      images,
      bins: outputSize,
      samples: samplingRatio,
      aligned: aligned ? 1 : 0,
      scale0: scale(0),
      scale1: scale(1),
      scale2: scale(2),
      scale3: scale(3),
      area1: area(1),
      area2: area(2),
      area3: area(3),
    },
    workgroups: workgroupsFor(count),
  });
  return geometry;
}

/** Writes the rows of y [K, S, S, C] whose RoI belongs to `level`, pooled from that level's map x [N, H, W, C]. */
export function poolLevel(x: Tensor, geometry: Tensor, level: number, y: Tensor): void {
  const [, height, width, channels] = x.shape;
  const [rois, bins] = y.shape;
  if (x.size === 0 || y.size === 0) return;
  const { flags, lanes } = lanesFor(channels);
  // With few channels there are too few rows of bins to keep a device busy: one bin per invocation then.
  const run = lanes < 8 ? 1 : bins;
  const runs = Math.ceil(bins / run);
  const options = { operator: 'roi_align', writes: ['y'] };
  inParts({ x }, { ...options, units: x.shape[0] }, (map, images) =>
    inParts({ geometry, y }, { ...options, units: rois }, (parts, { count: some }) => {
      const count = some * bins * runs * lanes;
      const atLeast = images.first === 0 ? -LARGEST_FLOAT : images.first;
      const end = images.first + images.count;
      const below = end === x.shape[0] ? LARGEST_FLOAT : end;
      x.device.gpu.dispatch(poolProgram, {
        flags,
        buffers: { ...map, ...parts },
        uniforms: { count, lanes, runs, run, bins, height, width, level, firstImage: images.first, atLeast, below },
        workgroups: workgroupsFor(count),
      });
    }),
  );
}

/** Cells per side of a tile that shares one list of RoIs: small, since most RoIs are little larger than a tile of 8. */
const TILE = 4;
const MAX_LIST_BYTES = 32 * 2 ** 20;

/**
 * The gradient of `poolLevel` by its map: a new tensor of `shape` [N, H, W, C], or `into`, to which it is added.
 * @param tile cells per side of a tile with its own list of RoIs. One as large as the map is the plain gather, in which every
 * cell visits every RoI of its image and level; the sums have the same bits.
 */
export function poolLevelGradient(
  shape: readonly number[],
  geometry: Tensor,
  level: number,
  dy: Tensor,
  into?: Tensor,
  tile = TILE,
): Tensor {
  if (dy.size === 0) return into ?? dy.device.zeros(shape, dy.dtype);
  const dx = into ?? dy.device.empty(shape, dy.dtype);
  if (dx.size === 0) return dx;
  inParts({ dx }, { operator: 'roi_align', units: shape[0], writes: ['dx'] }, (map, { first: firstImage }) =>
    inParts({ geometry, dy }, { operator: 'roi_align', units: dy.shape[0], writes: [] }, (parts, { first }) =>
      gatherGradient(parts, map.dx, { level, tile, firstImage, accumulate: into !== undefined || first > 0 }),
    ),
  );
  return dx;
}

/** Adds to the images of dx, or sets them to, what the RoIs of dy give. */
function gatherGradient(
  { geometry, dy }: { geometry: Tensor; dy: Tensor },
  dx: Tensor,
  { level, tile, firstImage, accumulate }: { level: number; tile: number; firstImage: number; accumulate: boolean },
): void {
  const { device } = dy;
  const [images, height, width, channels] = dx.shape;
  const [rois, bins] = dy.shape;
  const mostBytes = Math.min(MAX_LIST_BYTES, device.gpu.bindingLimit);
  let side = tile;
  const tilesOf = (extent: number): number => Math.ceil(extent / side);
  while (images * tilesOf(height) * tilesOf(width) * rois * 4 > mostBytes && side < Math.max(height, width)) side *= 2;
  const [tilesY, tilesX] = [tilesOf(height), tilesOf(width)];
  const tiles = images * tilesY * tilesX;
  const list = device.empty([tiles, rois], 'u32');
  const counts = device.empty([tiles], 'u32');
  device.gpu.dispatch(listProgram, {
    buffers: { geometry, list, counts },
    uniforms: { count: tiles, rois, tile: side, tilesY, tilesX, bins, level, firstImage },
    workgroups: workgroupsFor(tiles),
  });
  const { flags, lanes } = lanesFor(channels);
  const count = images * height * width * lanes;
  device.gpu.dispatch(gradientProgram, {
    flags,
    buffers: { geometry, list, counts, dy, dx },
    uniforms: { count, lanes, rois, tile: side, tilesY, tilesX, bins, height, width, accumulate: accumulate ? 1 : 0 },
    workgroups: workgroupsFor(count),
  });
  list.dispose();
  counts.dispose();
}
