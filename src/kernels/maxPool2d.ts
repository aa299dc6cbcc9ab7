import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { defineOperator, expectShape } from '../tensor/operator.ts';
import { inParts } from '../tensor/parts.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type ChannelFlags, channelGroups, floatsOf, intsOf } from './channels.ts';

/*
 * y[n, oy, ox, c] = max over the k × k window of x that starts at (oy·s - p, ox·s - p); what lies outside of x counts as -∞.
 * Of equal values the first in row-major order wins, and its place iy·W + ix is kept as the window's `argmax`.
 *
 * The gradient is a gather: a pixel visits the windows that hold it, in row-major order, and takes dy of those that it won.
 */
const forwardProgram = defineProgram({
  name: 'maxPool2d',
  uniforms: {
    count: 'u32',
    groups: 'u32',
    height: 'i32',
    width: 'i32',
    outHeight: 'u32',
    outWidth: 'u32',
    kernel: 'i32',
    stride: 'i32',
    padding: 'i32',
    keepArgmax: 'u32',
  },
  bindings: (flags: ChannelFlags) => ({
    x: ['read', floatsOf(flags)],
    y: ['write', floatsOf(flags)],
    argmax: ['write', intsOf(flags)],
  }),
  code: (flags) =>
    perElement(`
    let group = i32(i % u.groups);
    let pixel = i / u.groups;
    let oy = i32(pixel / u.outWidth % u.outHeight);
    let image = i32(pixel / u.outWidth / u.outHeight);
    let top = oy * u.stride - u.padding;
    let left = i32(pixel % u.outWidth) * u.stride - u.padding;
    let y0 = max(top, 0);
    let x0 = max(left, 0);
    let y1 = min(top + u.kernel, u.height);
    let x1 = min(left + u.kernel, u.width);
    let plane = image * u.height * u.width;
    let groups = i32(u.groups);
    // Padding is at most half the kernel, so every window holds a pixel to start from.
    var place = ${intsOf(flags)}(y0 * u.width + x0);
    var best = x[(plane + y0 * u.width + x0) * groups + group];
    for (var iy = y0; iy < y1; iy++) {
      for (var ix = x0; ix < x1; ix++) {
        let here = iy * u.width + ix;
        let value = x[(plane + here) * groups + group];
        place = select(place, ${intsOf(flags)}(here), value > best);
        best = max(best, value);
      }
    }
    y[i] = best;
    if (u.keepArgmax == 1u) { argmax[i] = place; }`),
});

const backwardProgram = defineProgram({
  name: 'maxPool2dBackward',
  uniforms: {
    count: 'u32',
    groups: 'u32',
    height: 'u32',
    width: 'u32',
    outHeight: 'i32',
    outWidth: 'i32',
    kernel: 'i32',
    stride: 'i32',
    padding: 'i32',
    accumulate: 'u32',
  },
  bindings: (flags: ChannelFlags) => ({
    argmax: ['read', intsOf(flags)],
    dy: ['read', floatsOf(flags)],
    dx: ['write', floatsOf(flags)],
  }),
  code: (flags) =>
    perElement(`
    let group = i32(i % u.groups);
    let pixel = i / u.groups;
    let here = ${intsOf(flags)}(i32(pixel % (u.height * u.width)));
    let image = i32(pixel / (u.height * u.width));
    // Window o holds the padded coordinate q where o·s <= q < o·s + k; q - k + s may be negative, and / rounds towards 0.
    let qy = i32(pixel / u.width % u.height) + u.padding;
    let qx = i32(pixel % u.width) + u.padding;
    let y0 = max(qy - u.kernel + u.stride, 0) / u.stride;
    let x0 = max(qx - u.kernel + u.stride, 0) / u.stride;
    let y1 = min(qy / u.stride, u.outHeight - 1);
    let x1 = min(qx / u.stride, u.outWidth - 1);
    var total = ${floatsOf(flags)}();
    for (var oy = y0; oy <= y1; oy++) {
      for (var ox = x0; ox <= x1; ox++) {
        let at = ((image * u.outHeight + oy) * u.outWidth + ox) * i32(u.groups) + group;
        total += select(${floatsOf(flags)}(), dy[at], argmax[at] == here);
      }
    }
    if (u.accumulate == 1u) { total += dx[i]; }
    dx[i] = total;`),
});

export type MaxPool2dParams = { kernelSize: number; stride?: number; padding?: number };

function geometry(shape: readonly number[], { kernelSize, stride = kernelSize, padding = 0 }: MaxPool2dParams) {
  const operator = 'max_pool2d';
  expectShape(shape.length === 4, operator, 'x', '[N, H, W, C]', shape);
  const whole = Number.isInteger(kernelSize) && Number.isInteger(stride) && Number.isInteger(padding);
  if (!whole || kernelSize < 1 || stride < 1) {
    throw new Error(
      `${operator}: kernelSize ${kernelSize}, stride ${stride}, padding ${padding}: expected whole numbers of at least 1, 1 and 0.`,
    );
  }
  if (padding < 0 || padding > kernelSize / 2) {
    throw new Error(`${operator}: padding: expected 0 to half of the kernel's ${kernelSize}, got ${padding}.`);
  }
  const [images, height, width, channels] = shape;
  const outHeight = Math.floor((height + 2 * padding - kernelSize) / stride) + 1;
  const outWidth = Math.floor((width + 2 * padding - kernelSize) / stride) + 1;
  expectShape(
    outHeight > 0 && outWidth > 0,
    operator,
    'x',
    `a padded size of at least ${kernelSize}×${kernelSize}`,
    shape,
  );
  const { flags, groups } = channelGroups(channels);
  const uniforms = { groups, height, width, outHeight, outWidth, kernel: kernelSize, stride, padding };
  return { flags, uniforms, outShape: [images, outHeight, outWidth, channels] };
}

const operator = defineOperator<{ x: Tensor }, MaxPool2dParams>({
  name: 'max_pool2d',
  halves: ['x'],
  forward({ x }, params, needs) {
    const { device } = x;
    const { flags, uniforms, outShape } = geometry(x.shape, params);
    const y = device.empty(outShape, x.dtype);
    const argmax = device.empty(needs.x ? outShape : [1], 'i32');
    const maps = { x, y, kept: needs.x ? argmax : undefined };
    inParts(maps, { operator: 'max_pool2d', units: x.shape[0], writes: ['y', 'kept'] }, ({ kept, ...parts }) => {
      const count = parts.y.size / flags.width;
      device.gpu.dispatch(forwardProgram, {
        flags,
        buffers: { ...parts, argmax: kept ?? argmax },
        uniforms: { count, ...uniforms, keepArgmax: needs.x ? 1 : 0 },
        workgroups: workgroupsFor(count),
      });
    });
    if (needs.x) return { output: y, saved: { argmax } };
    argmax.dispose();
    return { output: y };
  },
  backward: ({ params, shapes, saved: { argmax }, upstream }) => ({
    x: (into) => {
      const { flags, uniforms } = geometry(shapes.x, params);
      const dx = into ?? upstream.device.empty(shapes.x, upstream.dtype);
      const maps = { argmax, dy: upstream, dx };
      inParts(maps, { operator: 'max_pool2d', units: shapes.x[0], writes: ['dx'] }, (buffers) => {
        const count = buffers.dx.size / flags.width;
        upstream.device.gpu.dispatch(backwardProgram, {
          flags,
          buffers,
          uniforms: { count, ...uniforms, accumulate: into ? 1 : 0 },
          workgroups: workgroupsFor(count),
        });
      });
      return dx;
    },
  }),
  examples: [
    { inputs: { x: { shape: [2, 7, 8, 4] } }, params: { kernelSize: 3, stride: 2, padding: 1 } },
    { inputs: { x: { shape: [1, 9, 8, 3] } }, params: { kernelSize: 1, stride: 2 } },
    { inputs: { x: { shape: [1, 7, 6, 3] } }, params: { kernelSize: 3, stride: 1, padding: 1 } },
    { inputs: { x: { shape: [1, 8, 9, 2] } }, params: { kernelSize: 2, stride: 3, padding: 1 } },
  ],
});

/**
 * Largest value of each window: x [N, H, W, C] to [N, OH, OW, C] with OH = floor((H + 2·padding - kernelSize) / stride) + 1.
 * Padding, at most half the kernel, never wins. The gradient goes to the first largest pixel of each window in row-major order.
 * `stride` defaults to `kernelSize`. Source: torch.nn.functional.max_pool2d.
 */
export function maxPool2d(x: Tensor, params: MaxPool2dParams): Tensor {
  return operator({ x }, params);
}
