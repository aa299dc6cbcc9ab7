import { defineProgram, perElement, workgroupsFor } from '../src/gpu/program.ts';
import { boxGeometryWgsl } from '../src/kernels/boxes.ts';
import { descendingOrder } from '../src/kernels/topK.ts';
import type { Tensor } from '../src/tensor/tensor.ts';

/*
 * The plainest kernels that compute the right thing: one invocation for each element, scalar loads, no sharing. They are the
 * lowest rungs of the ladders of operators that have no such kernel of their own.
 */

const addProgram = defineProgram({
  name: 'benchNaiveAdd',
  uniforms: { count: 'u32' },
  bindings: { a: 'read', b: 'read', y: 'write' },
  code: () => perElement('y[i] = a[i] + b[i];'),
});

/** a + b of one shape. */
export function naiveAdd(a: Tensor, b: Tensor): Tensor {
  const y = a.device.empty(a.shape);
  a.device.gpu.dispatch(addProgram, {
    buffers: { a, b, y },
    uniforms: { count: y.size },
    workgroups: workgroupsFor(y.size),
  });
  return y;
}

const matmulProgram = defineProgram({
  name: 'benchNaiveMatmul',
  uniforms: { count: 'u32', k: 'u32', n: 'u32' },
  bindings: { a: 'read', b: 'read', y: 'write' },
  code: () =>
    perElement(`
    let row = i / u.n;
    let column = i % u.n;
    var sum = 0.0;
    for (var k = 0u; k < u.k; k++) { sum += a[row * u.k + k] * b[k * u.n + column]; }
    y[i] = sum;`),
});

/** a [M, K] · b [K, N]. */
export function naiveMatmul(a: Tensor, b: Tensor): Tensor {
  const y = a.device.empty([a.shape[0], b.shape[1]]);
  a.device.gpu.dispatch(matmulProgram, {
    buffers: { a, b, y },
    uniforms: { count: y.size, k: a.shape[1], n: b.shape[1] },
    workgroups: workgroupsFor(y.size),
  });
  return y;
}

const statisticsProgram = defineProgram({
  name: 'benchNaiveStatistics',
  uniforms: { count: 'u32', rows: 'u32', eps: 'f32' },
  bindings: { x: 'read', mean: 'write', inverse: 'write' },
  code: () =>
    perElement(`
    var sum = 0.0;
    for (var r = 0u; r < u.rows; r++) { sum += x[r * u.count + i]; }
    let average = sum / f32(u.rows);
    var squares = 0.0;
    for (var r = 0u; r < u.rows; r++) {
      let off = x[r * u.count + i] - average;
      squares += off * off;
    }
    mean[i] = average;
    inverse[i] = inverseSqrt(squares / f32(u.rows) + u.eps);`),
});

const normalizeProgram = defineProgram({
  name: 'benchNaiveNormalize',
  uniforms: { count: 'u32', channels: 'u32' },
  bindings: { x: 'read', mean: 'read', inverse: 'read', weight: 'read', bias: 'read', y: 'write' },
  code: () =>
    perElement(`
    let c = i % u.channels;
    y[i] = (x[i] - mean[c]) * inverse[c] * weight[c] + bias[c];`),
});

/** Batch normalisation of x [N, H, W, C] by the batch's own statistics: an invocation for each channel reads all of it twice. */
export function naiveBatchNorm(x: Tensor, weight: Tensor, bias: Tensor, eps = 1e-5): Tensor {
  const { device } = x;
  const channels = x.shape[3];
  const y = device.empty(x.shape);
  const mean = device.empty([channels]);
  const inverse = device.empty([channels]);
  device.gpu.dispatch(statisticsProgram, {
    buffers: { x, mean, inverse },
    uniforms: { count: channels, rows: x.size / channels, eps },
    workgroups: workgroupsFor(channels),
  });
  device.gpu.dispatch(normalizeProgram, {
    buffers: { x, mean, inverse, weight, bias, y },
    uniforms: { count: y.size, channels },
    workgroups: workgroupsFor(y.size),
  });
  mean.dispose();
  inverse.dispose();
  return y;
}

const roiAlignProgram = defineProgram({
  name: 'benchNaiveRoiAlign',
  uniforms: { count: 'u32', bins: 'u32', height: 'u32', width: 'u32', channels: 'u32', samples: 'u32', scale: 'f32' },
  bindings: { x: 'read', rois: 'read', y: 'write' },
  code: () =>
    perElement(`
    let c = i % u.channels;
    let bx = i / u.channels % u.bins;
    let by = i / u.channels / u.bins % u.bins;
    let roi = i / u.channels / u.bins / u.bins * 5u;
    let image = u32(rois[roi]);
    let start = vec2f(rois[roi + 1u], rois[roi + 2u]) * u.scale;
    let bin = max(vec2f(rois[roi + 3u], rois[roi + 4u]) * u.scale - start, vec2f(1.0)) / f32(u.bins);
    let last = vec2f(f32(u.width - 1u), f32(u.height - 1u));
    var sum = 0.0;
    for (var sy = 0u; sy < u.samples; sy++) {
      for (var sx = 0u; sx < u.samples; sx++) {
        let inside = (vec2f(f32(sx), f32(sy)) + 0.5) / f32(u.samples);
        let place = start + (vec2f(f32(bx), f32(by)) + inside) * bin;
        if (any(place < vec2f(-1.0)) || any(place > last + 1.0)) { continue; }
        let at = clamp(place, vec2f(), last);
        let low = vec2u(at);
        let high = min(low + 1u, vec2u(last));
        let part = at - vec2f(low);
        let upper = (image * u.height + low.y) * u.width;
        let lower = (image * u.height + high.y) * u.width;
        let top = mix(x[(upper + low.x) * u.channels + c], x[(upper + high.x) * u.channels + c], part.x);
        let bottom = mix(x[(lower + low.x) * u.channels + c], x[(lower + high.x) * u.channels + c], part.x);
        sum += mix(top, bottom, part.y);
      }
    }
    y[i] = sum / f32(u.samples * u.samples);`),
});

/** ROIAlign (not aligned) of x [N, H, W, C] over RoIs [K, 5], each element by itself; `samples` per bin and axis. */
export function naiveRoiAlign(x: Tensor, rois: Tensor, bins: number, scale: number, samples: number): Tensor {
  const [, height, width, channels] = x.shape;
  const y = x.device.empty([rois.shape[0], bins, bins, channels]);
  x.device.gpu.dispatch(roiAlignProgram, {
    buffers: { x, rois, y },
    uniforms: { count: y.size, bins, height, width, channels, samples, scale },
    workgroups: workgroupsFor(y.size),
  });
  return y;
}

const nmsProgram = defineProgram({
  name: 'benchNaiveNms',
  uniforms: { count: 'u32', n: 'u32', threshold: 'f32' },
  bindings: { order: ['read', 'vec2u'], boxes: ['read', 'vec4f'], gone: ['write', 'u32'], indices: ['write', 'i32'] },
  code: () =>
    `${boxGeometryWgsl}${perElement(`
    for (var k = 0u; k < u.n; k++) { gone[k] = 0u; indices[k] = -1; }
    var kept = 0u;
    for (var k = 0u; k < u.n; k++) {
      if (gone[k] == 1u) { continue; }
      let box = boxes[order[k].y];
      indices[kept] = i32(order[k].y);
      kept++;
      for (var other = k + 1u; other < u.n; other++) {
        let next = boxes[order[other].y];
        if (intersectionOverUnion(box, next, boxArea(box), boxArea(next)) > u.threshold) { gone[other] = 1u; }
      }
    }`)}`,
});

/** Greedy non-maximum suppression of boxes [N, 4] by one invocation, box after box: indices [N], best first, padded with -1. */
export function naiveNms(boxes: Tensor, scores: Tensor, threshold: number): Tensor {
  const { device } = boxes;
  const n = scores.size;
  const [gone, indices] = [device.empty([n], 'u32'), device.empty([n], 'i32')];
  const order = descendingOrder(scores, 1, n, n);
  device.gpu.dispatch(nmsProgram, {
    buffers: { order, boxes, gone, indices },
    uniforms: { count: 1, n, threshold },
    workgroups: 1,
  });
  return indices;
}
