import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { defineOperator, expectShape } from '../tensor/operator.ts';
import { inParts } from '../tensor/parts.ts';
import { sizeOf, type Tensor } from '../tensor/tensor.ts';
import { reshape } from './reshape.ts';
import { normalizeDim } from './strided.ts';

/*
 * y[o, k, e] = x[o, index[k], e]; an index outside x gives 0. The gradient of a row is the sum over the places that chose
 * it. So that no two invocations write one element and the sum has one order, the places that hold equal indices are first
 * chained (first place → next place → …); the first of each chain alone adds up all of it, in order.
 */
const selectProgram = defineProgram({
  name: 'indexSelect',
  uniforms: { count: 'u32', selected: 'u32', rows: 'u32', inner: 'u32' },
  bindings: { x: ['read', 'u32'], index: ['read', 'i32'], y: ['write', 'u32'] },
  code: () =>
    perElement(`
    let row = index[i / u.inner % u.selected];
    let outer = i / u.inner / u.selected;
    var bits = 0u;
    if (row >= 0 && u32(row) < u.rows) { bits = x[(outer * u.rows + u32(row)) * u.inner + i % u.inner]; }
    y[i] = bits;`),
});

// A place that is not the first of its chain is marked by -2; the last of a chain has no next place, -1.
const chainProgram = defineProgram({
  name: 'indexSelectChains',
  uniforms: { count: 'u32', rows: 'u32' },
  bindings: { index: ['read', 'i32'], head: ['write', 'i32'], next: ['write', 'i32'] },
  code: () =>
    perElement(`
    let row = index[i];
    var first = select(-2, i32(i), row >= 0 && u32(row) < u.rows);
    for (var k = 0u; k < i; k++) { if (index[k] == row) { first = -2; break; } }
    var following = -1;
    for (var k = i + 1u; k < u.count; k++) { if (index[k] == row) { following = i32(k); break; } }
    head[i] = first;
    next[i] = following;`),
});

const scatterProgram = defineProgram({
  name: 'indexSelectBackward',
  uniforms: { count: 'u32', selected: 'u32', rows: 'u32', inner: 'u32' },
  bindings: { index: ['read', 'i32'], head: ['read', 'i32'], next: ['read', 'i32'], dy: 'read', dx: 'write' },
  code: () =>
    perElement(`
    let place = i / u.inner % u.selected;
    let outer = i / u.inner / u.selected;
    let entry = i % u.inner;
    if (head[place] >= 0) {
      var total = 0.0;
      for (var k = i32(place); k >= 0; k = next[k]) { total += dy[(outer * u.selected + u32(k)) * u.inner + entry]; }
      dx[(outer * u.rows + u32(index[place])) * u.inner + entry] += total;
    }`),
});

function extentsOf(shape: readonly number[], dim: number, selected: number) {
  const axis = normalizeDim('index_select', dim, shape.length);
  const inner = sizeOf(shape.slice(axis + 1));
  const count = sizeOf(shape.slice(0, axis)) * selected * inner;
  return { axis, uniforms: { count, selected, rows: shape[axis], inner } };
}

const indexSelectOperator = defineOperator<{ x: Tensor; index: Tensor }, { dim: number }>({
  name: 'index_select',
  forward({ x, index }, { dim }) {
    expectShape(index.dtype === 'i32' && index.rank === 1, 'index_select', 'index', 'i32[K]', index);
    const { axis, uniforms } = extentsOf(x.shape, dim, index.size);
    const y = x.device.empty(
      x.shape.map((extent, at) => (at === axis ? index.size : extent)),
      x.dtype,
    );
    x.device.gpu.dispatch(selectProgram, {
      buffers: { x, index, y },
      uniforms,
      workgroups: workgroupsFor(uniforms.count),
    });
    return { output: y, saved: { index } };
  },
  backward: ({ params, shapes, saved: { index }, upstream }) => ({
    x: (into) => {
      const { device } = upstream;
      const dx = into ?? device.zeros(shapes.x);
      const { uniforms } = extentsOf(shapes.x, params.dim, index.size);
      const head = device.empty(index.shape, 'i32');
      const next = device.empty(index.shape, 'i32');
      device.gpu.dispatch(chainProgram, {
        buffers: { index, head, next },
        uniforms: { count: index.size, rows: uniforms.rows },
        workgroups: workgroupsFor(index.size),
      });
      device.gpu.dispatch(scatterProgram, {
        buffers: { index, head, next, dy: upstream, dx },
        uniforms,
        workgroups: workgroupsFor(uniforms.count),
      });
      head.dispose();
      next.dispose();
      return dx;
    },
  }),
  examples: [
    {
      inputs: { x: { shape: [8, 3, 2] }, index: { shape: [6], dtype: 'i32', values: [4, 0, 0, 7, 2, 7] } },
      params: { dim: 0 },
    },
    {
      inputs: { x: { shape: [2, 5, 3] }, index: { shape: [4], dtype: 'i32', values: [1, 1, -1, 1] } },
      params: { dim: 1 },
    },
  ],
});

/**
 * The entries `index` (i32[K]) of dimension `dim`; x of any dtype. Indices may repeat; one outside the dimension (such as the
 * -1 that pads lists on the device) gives zeros and no gradient. Source: torch.index_select.
 *
 * The gradient compares all pairs of indices once: meant for lists of up to some ten thousand.
 */
export function indexSelect(x: Tensor, index: Tensor, dim = 0): Tensor {
  return indexSelectOperator({ x, index }, { dim });
}

/* y[n, s, d] = x[n, s, labels[n], d]; every element of dx is written once: dy where its class is the label, else 0. */
const gatherProgram = defineProgram({
  name: 'gatherClass',
  uniforms: { count: 'u32', positions: 'u32', classes: 'u32', depth: 'u32' },
  bindings: { x: 'read', labels: ['read', 'i32'], y: 'write' },
  code: () =>
    perElement(`
    let position = i / u.depth;
    let label = labels[position / u.positions];
    var value = 0.0;
    if (label >= 0 && u32(label) < u.classes) { value = x[(position * u.classes + u32(label)) * u.depth + i % u.depth]; }
    y[i] = value;`),
});

const gatherBackwardProgram = defineProgram({
  name: 'gatherClassBackward',
  uniforms: { count: 'u32', positions: 'u32', classes: 'u32', depth: 'u32', accumulate: 'u32' },
  bindings: { dy: 'read', labels: ['read', 'i32'], dx: 'write' },
  code: () =>
    perElement(`
    let position = i / u.depth / u.classes;
    var value = select(0.0, dx[i], u.accumulate == 1u);
    if (i32(i / u.depth % u.classes) == labels[position / u.positions]) { value += dy[position * u.depth + i % u.depth]; }
    dx[i] = value;`),
});

const gatherClassOperator = defineOperator<{ x: Tensor; labels: Tensor }, Record<string, never>>({
  name: 'gather_class',
  forward({ x, labels }) {
    expectShape(x.rank === 4 && x.dtype === 'f32', 'gather_class', 'x', 'f32[N, S, C, D]', x);
    const fits = labels.dtype === 'i32' && labels.rank === 1 && labels.size === x.shape[0];
    expectShape(fits, 'gather_class', 'labels', `i32[${x.shape[0]}]`, labels);
    const [images, positions, classes, depth] = x.shape;
    const y = x.device.empty([images, positions, depth]);
    inParts({ x, labels, y }, { operator: 'gather_class', units: images, writes: ['y'] }, (buffers) =>
      x.device.gpu.dispatch(gatherProgram, {
        buffers,
        uniforms: { count: buffers.y.size, positions, classes, depth },
        workgroups: workgroupsFor(buffers.y.size),
      }),
    );
    return { output: y, saved: { labels } };
  },
  backward: ({ shapes, saved: { labels }, upstream }) => ({
    x: (into) => {
      const dx = into ?? upstream.device.empty(shapes.x);
      const [images, positions, classes, depth] = shapes.x;
      const maps = { dy: upstream, labels, dx };
      inParts(maps, { operator: 'gather_class', units: images, writes: ['dx'] }, (buffers) =>
        dx.device.gpu.dispatch(gatherBackwardProgram, {
          buffers,
          uniforms: { count: buffers.dx.size, positions, classes, depth, accumulate: into ? 1 : 0 },
          workgroups: workgroupsFor(buffers.dx.size),
        }),
      );
      return dx;
    },
  }),
  examples: [
    {
      inputs: { x: { shape: [4, 3, 5, 2] }, labels: { shape: [4], dtype: 'i32', values: [4, 0, -1, 2] } },
      params: {},
    },
  ],
});

/**
 * Of x [N, S, C, D] the class `labels[n]` (i32[N]) of each row: [N, S, D]. A label outside 0 … C - 1 gives zeros and no
 * gradient.
 */
export function gatherClass(x: Tensor, labels: Tensor): Tensor {
  return gatherClassOperator({ x, labels }, {});
}

/** Of masks x [N, H, W, C] the channel `labels[n]` of each: [N, H, W]. Source: torchvision's maskrcnn_loss (`mask_logits[n, label]`). */
export function selectChannel(x: Tensor, labels: Tensor): Tensor {
  expectShape(x.rank === 4, 'selectChannel', 'x', '[N, H, W, C]', x);
  const [n, height, width, channels] = x.shape;
  return reshape(gatherClass(reshape(x, [n, height * width, channels, 1]), labels), [n, height, width]);
}

/** Of box regressions [N, 4·C] the four numbers of class `labels[n]`: [N, 4]. Source: torchvision's fastrcnn_loss. */
export function selectClassBoxes(boxRegression: Tensor, labels: Tensor): Tensor {
  const fits = boxRegression.rank === 2 && boxRegression.shape[1] % 4 === 0;
  expectShape(fits, 'selectClassBoxes', 'boxRegression', '[N, 4·C]', boxRegression);
  const [n, columns] = boxRegression.shape;
  return reshape(gatherClass(reshape(boxRegression, [n, 1, columns / 4, 4]), labels), [n, 4]);
}
