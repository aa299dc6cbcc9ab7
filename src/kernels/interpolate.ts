import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { defineOperator, expectShape } from '../tensor/operator.ts';
import { inParts } from '../tensor/parts.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type ChannelFlags, channelGroups, floatsOf } from './channels.ts';

/*
 * Both kinds read, along each axis, from source(d) with step = in / out (or as given), all in float32 as torch does it:
 *   nearest:  y[d] = x[base(d)],                                     base(d) = min(floor(d · step), in - 1)
 *   bilinear: y[d] = (1 - f)·x[base(d)] + f·x[min(base(d) + 1, in - 1)], at(d) = max((d + ½)·step - ½, 0),
 *             base(d) = min(floor(at(d)), in - 1), f = min(at(d) - base(d), 1)
 *
 * base never decreases, so the outputs that read from pixel i form an interval on each axis. The gradients gather: pixel i finds
 * that interval from an estimate of its start, then sums dy over the interval in row-major order.
 */
const KINDS = {
  nearest: { at: 'f32(d) * step', inverse: 'f32(i) / step', reach: 0 },
  bilinear: { at: 'max((f32(d) + 0.5) * step - 0.5, 0.0)', inverse: '(f32(i) + 0.5) / step - 0.5', reach: 1 },
};
type Kind = keyof typeof KINDS;

const uniforms = {
  count: 'u32',
  groups: 'u32',
  height: 'u32',
  width: 'u32',
  outHeight: 'u32',
  outWidth: 'u32',
  stepY: 'f32',
  stepX: 'f32',
} as const;

const sourceWgsl = (kind: Kind): string => `
fn at(d: u32, step: f32) -> f32 { return ${KINDS[kind].at}; }
fn base(d: u32, step: f32, extent: u32) -> u32 { return min(u32(at(d, step)), extent - 1u); }
fn fraction(d: u32, step: f32, extent: u32) -> f32 { return min(at(d, step) - f32(base(d, step, extent)), 1.0); }`;

/** `first(i, …)`: the smallest output whose base is at least pixel i, `outExtent` if none is. */
const intervalWgsl = (kind: Kind): string => `
fn first(i: u32, step: f32, extent: u32, outExtent: u32) -> u32 {
  // Rounding may put the estimate off by one either way: start one early, then step at most twice.
  var d = u32(clamp(ceil(${KINDS[kind].inverse}) - 1.0, 0.0, f32(outExtent)));
  d += select(0u, 1u, d < outExtent && base(d, step, extent) < i);
  d += select(0u, 1u, d < outExtent && base(d, step, extent) < i);
  return select(select(d, outExtent, i >= extent), 0u, i == 0u);
}`;

function forwardProgramOf(kind: Kind) {
  const values = {
    nearest: 'y[i] = x[top + x0];',
    bilinear: `
    let bottom = (image * u.height + min(y0 + 1u, u.height - 1u)) * row + group;
    let x1 = min(base(ox, u.stepX, u.width) + 1u, u.width - 1u) * u.groups;
    let fy = fraction(oy, u.stepY, u.height);
    let fx = fraction(ox, u.stepX, u.width);
    y[i] = (1.0 - fy) * ((1.0 - fx) * x[top + x0] + fx * x[top + x1]) + fy * ((1.0 - fx) * x[bottom + x0] + fx * x[bottom + x1]);`,
  };
  return defineProgram({
    name: `${kind}Interpolation`,
    uniforms,
    bindings: (flags: ChannelFlags) => ({ x: ['read', floatsOf(flags)], y: ['write', floatsOf(flags)] }),
    code: () => `${sourceWgsl(kind)}
${perElement(`
    let group = i % u.groups;
    let pixel = i / u.groups;
    let ox = pixel % u.outWidth;
    let oy = pixel / u.outWidth % u.outHeight;
    let image = pixel / u.outWidth / u.outHeight;
    let row = u.width * u.groups;
    let y0 = base(oy, u.stepY, u.height);
    let top = (image * u.height + y0) * row + group;
    let x0 = base(ox, u.stepX, u.width) * u.groups;
    ${values[kind]}`)}`,
  });
}

function backwardProgramOf(kind: Kind) {
  const weights = {
    nearest: { helper: '', y: '', term: 'dy[at]' },
    bilinear: {
      // Output d reads from pixel i with 1 - f as its base, with f as the base's neighbour, and with both at the far edge.
      helper: `
fn weight(d: u32, i: u32, step: f32, extent: u32) -> f32 {
  let low = base(d, step, extent);
  let f = fraction(d, step, extent);
  return select(0.0, 1.0 - f, low == i) + select(0.0, f, min(low + 1u, extent - 1u) == i);
}`,
      y: 'let wy = weight(oy, iy, u.stepY, u.height);',
      term: 'wy * weight(ox, ix, u.stepX, u.width) * dy[at]',
    },
  }[kind];
  // An output also reads the pixel after its base, so bilinear pixels start with the outputs of the pixel before.
  const before = (i: string): string => (KINDS[kind].reach === 0 ? i : `max(${i}, 1u) - 1u`);
  return defineProgram({
    name: `${kind}InterpolationBackward`,
    uniforms: { ...uniforms, accumulate: 'u32' },
    bindings: (flags: ChannelFlags) => ({ dy: ['read', floatsOf(flags)], dx: ['write', floatsOf(flags)] }),
    code: (flags) => `${sourceWgsl(kind)}
${intervalWgsl(kind)}
${weights.helper}
${perElement(`
    let group = i % u.groups;
    let pixel = i / u.groups;
    let ix = pixel % u.width;
    let iy = pixel / u.width % u.height;
    let image = pixel / u.width / u.height;
    let y0 = first(${before('iy')}, u.stepY, u.height, u.outHeight);
    let y1 = first(iy + 1u, u.stepY, u.height, u.outHeight);
    let x0 = first(${before('ix')}, u.stepX, u.width, u.outWidth);
    let x1 = first(ix + 1u, u.stepX, u.width, u.outWidth);
    var total = ${floatsOf(flags)}();
    for (var oy = y0; oy < y1; oy++) {
      ${weights.y}
      for (var ox = x0; ox < x1; ox++) {
        let at = ((image * u.outHeight + oy) * u.outWidth + ox) * u.groups + group;
        total += ${weights.term};
      }
    }
    if (u.accumulate == 1u) { total += dx[i]; }
    dx[i] = total;`)}`,
  });
}

export type InterpolateParams = {
  /** Size of the output, [height, width]. */
  size: readonly number[];
  /** Source pixels per output pixel, [y, x]; in / out by default. */
  scale?: readonly number[];
};

function geometry(operator: string, shape: readonly number[], { size, scale }: InterpolateParams) {
  expectShape(shape.length === 4, operator, 'x', '[N, H, W, C]', shape);
  const [images, height, width, channels] = shape;
  if (size.length !== 2 || size.some((extent) => !Number.isInteger(extent) || extent < 1)) {
    throw new Error(`${operator}: size: expected [height, width] of at least 1, got [${size}].`);
  }
  expectShape(height > 0 && width > 0, operator, 'x', 'at least one pixel', shape);
  const [stepY, stepX] = scale ?? [height / size[0], width / size[1]];
  if (!(stepY > 0 && stepX > 0)) throw new Error(`${operator}: scale: expected two steps above 0, got [${scale}].`);
  const { flags, groups } = channelGroups(channels);
  const values = { groups, height, width, outHeight: size[0], outWidth: size[1], stepY, stepX };
  return { flags, values, outShape: [images, size[0], size[1], channels] };
}

function defineInterpolation(kind: Kind, examples: { x: number[]; params: InterpolateParams }[]) {
  const name = `interpolate_${kind}`;
  const forwardProgram = forwardProgramOf(kind);
  const backwardProgram = backwardProgramOf(kind);
  return defineOperator<{ x: Tensor }, InterpolateParams>({
    name,
    halves: ['x'],
    forward({ x }, params) {
      const { flags, values, outShape } = geometry(name, x.shape, params);
      const y = x.device.empty(outShape, x.dtype);
      inParts({ x, y }, { operator: name, units: x.shape[0], writes: ['y'] }, (buffers) => {
        const count = buffers.y.size / flags.width;
        x.device.gpu.dispatch(forwardProgram, {
          flags,
          buffers,
          uniforms: { count, ...values },
          workgroups: workgroupsFor(count),
        });
      });
      return { output: y };
    },
    backward: ({ params, shapes, upstream }) => ({
      x: (into) => {
        const { flags, values } = geometry(name, shapes.x, params);
        const dx = into ?? upstream.device.empty(shapes.x, upstream.dtype);
        inParts({ dy: upstream, dx }, { operator: name, units: shapes.x[0], writes: ['dx'] }, (buffers) => {
          const count = buffers.dx.size / flags.width;
          upstream.device.gpu.dispatch(backwardProgram, {
            flags,
            buffers,
            uniforms: { count, ...values, accumulate: into ? 1 : 0 },
            workgroups: workgroupsFor(count),
          });
        });
        return dx;
      },
    }),
    examples: examples.map(({ x, params }) => ({ inputs: { x: { shape: x } }, params })),
  });
}

const nearestOperator = defineInterpolation('nearest', [
  { x: [2, 3, 4, 4], params: { size: [7, 7] } },
  { x: [1, 5, 7, 3], params: { size: [3, 16] } },
]);
const bilinearOperator = defineInterpolation('bilinear', [
  { x: [2, 5, 4, 4], params: { size: [9, 7] } },
  { x: [1, 7, 6, 3], params: { size: [3, 13] } },
  { x: [1, 4, 5, 1], params: { size: [6, 9], scale: [0.8, 0.5] } },
]);

/**
 * Resizes x [N, H, W, C] to [N, size[0], size[1], C] by the nearest pixel in torch's sense: output d shows source
 * min(floor(d · in/out), in - 1), in float32. Source: torch.nn.functional.interpolate(mode='nearest').
 */
export function interpolateNearest(x: Tensor, { size }: { size: readonly number[] }): Tensor {
  return nearestOperator({ x }, { size });
}

/**
 * Resizes x [N, H, W, C] to [N, size[0], size[1], C] bilinearly, without antialiasing. `scale` = source pixels per output pixel
 * [y, x], in / out by default; torch takes the inverse of a given scale factor unless it is told to recompute it.
 * Source: torch.nn.functional.interpolate(mode='bilinear', align_corners=False).
 */
export function interpolateBilinear(x: Tensor, params: InterpolateParams): Tensor {
  return bilinearOperator({ x }, params);
}
