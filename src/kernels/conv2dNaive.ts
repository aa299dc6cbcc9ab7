import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { inParts } from '../tensor/parts.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type ConvGeometry, convOutputSize } from './convolution.ts';
import type { Epilogue } from './tileProduct.ts';

/*
 * Convolution straight from its definition: one invocation per element, scalar loads, any number of groups. Output channel co belongs to group
 * co / (Co / groups), which sees the Ci / groups input channels of that group. Grouped convolutions run on these kernels;
 * for one group they are the ground that faster kernels are measured against.
 */
const geometryUniforms = {
  count: 'u32',
  height: 'u32',
  width: 'u32',
  channels: 'u32',
  outHeight: 'u32',
  outWidth: 'u32',
  outChannels: 'u32',
  kernelHeight: 'u32',
  kernelWidth: 'u32',
  stride: 'i32',
  padding: 'i32',
  dilation: 'i32',
  groups: 'u32',
  scaled: 'u32',
  accumulate: 'u32',
} as const;

const groupConstants = `
    let inputs = u.channels / u.groups;
    let outputs = u.outChannels / u.groups;`;

const forwardProgram = defineProgram({
  name: 'conv2dNaive',
  uniforms: { ...geometryUniforms, biased: 'u32', hasResidual: 'u32', relu: 'u32' },
  bindings: { x: 'read', weight: 'read', scale: 'read', bias: 'read', residual: 'read', y: 'write' },
  code: () =>
    perElement(`${groupConstants}
    let co = i % u.outChannels;
    let ox = i / u.outChannels % u.outWidth;
    let line = i / u.outChannels / u.outWidth;
    let oy = line % u.outHeight;
    let image = line / u.outHeight;
    let firstInput = co / outputs * inputs;
    var sum = 0.0;
    for (var kh = 0u; kh < u.kernelHeight; kh++) {
      let iy = i32(oy) * u.stride + i32(kh) * u.dilation - u.padding;
      if (iy < 0 || iy >= i32(u.height)) { continue; }
      for (var kw = 0u; kw < u.kernelWidth; kw++) {
        let ix = i32(ox) * u.stride + i32(kw) * u.dilation - u.padding;
        if (ix < 0 || ix >= i32(u.width)) { continue; }
        let origin = ((image * u.height + u32(iy)) * u.width + u32(ix)) * u.channels + firstInput;
        let by = (kh * u.kernelWidth + kw) * inputs * u.outChannels + co;
        for (var ci = 0u; ci < inputs; ci++) { sum += x[origin + ci] * weight[by + ci * u.outChannels]; }
      }
    }
    if (u.scaled == 1u) { sum *= scale[co]; }
    if (u.biased == 1u) { sum += bias[co]; }
    if (u.hasResidual == 1u) { sum += residual[i]; }
    if (u.relu == 1u) { sum = max(sum, 0.0); }
    if (u.accumulate == 1u) { sum += y[i]; }
    y[i] = sum;`),
});

const inputGradientProgram = defineProgram({
  name: 'conv2dNaiveInputGradient',
  uniforms: geometryUniforms,
  bindings: { g: 'read', weight: 'read', scale: 'read', dx: 'write' },
  code: () =>
    perElement(`${groupConstants}
    let channel = i % u.channels;
    let ix = i / u.channels % u.width;
    let line = i / u.channels / u.width;
    let iy = line % u.height;
    let image = line / u.height;
    let firstOutput = channel / inputs * outputs;
    let ci = channel % inputs;
    var sum = 0.0;
    for (var kh = 0u; kh < u.kernelHeight; kh++) {
      let down = i32(iy) + u.padding - i32(kh) * u.dilation;
      if (down < 0 || down % u.stride != 0 || down / u.stride >= i32(u.outHeight)) { continue; }
      for (var kw = 0u; kw < u.kernelWidth; kw++) {
        let across = i32(ix) + u.padding - i32(kw) * u.dilation;
        if (across < 0 || across % u.stride != 0 || across / u.stride >= i32(u.outWidth)) { continue; }
        let origin = ((image * u.outHeight + u32(down / u.stride)) * u.outWidth + u32(across / u.stride)) * u.outChannels;
        let by = ((kh * u.kernelWidth + kw) * inputs + ci) * u.outChannels;
        for (var co = firstOutput; co < firstOutput + outputs; co++) {
          var term = g[origin + co] * weight[by + co];
          if (u.scaled == 1u) { term *= scale[co]; }
          sum += term;
        }
      }
    }
    if (u.accumulate == 1u) { sum += dx[i]; }
    dx[i] = sum;`),
});

const weightGradientProgram = defineProgram({
  name: 'conv2dNaiveWeightGradient',
  uniforms: { ...geometryUniforms, images: 'u32' },
  bindings: { x: 'read', g: 'read', scale: 'read', dw: 'write' },
  code: () =>
    perElement(`${groupConstants}
    let co = i % u.outChannels;
    let ci = i / u.outChannels % inputs + co / outputs * inputs;
    let tap = i / u.outChannels / inputs;
    let kh = tap / u.kernelWidth;
    let kw = tap % u.kernelWidth;
    var sum = 0.0;
    for (var image = 0u; image < u.images; image++) {
      for (var oy = 0u; oy < u.outHeight; oy++) {
        let iy = i32(oy) * u.stride + i32(kh) * u.dilation - u.padding;
        if (iy < 0 || iy >= i32(u.height)) { continue; }
        // Summing each line by itself keeps the rounding of long sums low.
        var lineSum = 0.0;
        for (var ox = 0u; ox < u.outWidth; ox++) {
          let ix = i32(ox) * u.stride + i32(kw) * u.dilation - u.padding;
          if (ix < 0 || ix >= i32(u.width)) { continue; }
          let value = x[((image * u.height + u32(iy)) * u.width + u32(ix)) * u.channels + ci];
          lineSum += value * g[((image * u.outHeight + oy) * u.outWidth + ox) * u.outChannels + co];
        }
        sum += lineSum;
      }
    }
    if (u.scaled == 1u) { sum *= scale[co]; }
    if (u.accumulate == 1u) { sum += dw[i]; }
    dw[i] = sum;`),
});

export interface GroupedGeometry extends ConvGeometry {
  groups: number;
}

const flag = (condition: unknown): number => (condition ? 1 : 0);

function geometryValues(
  x: readonly number[],
  y: readonly number[],
  kernel: readonly number[],
  { stride, padding, dilation, groups }: GroupedGeometry,
  { scale, accumulate }: Epilogue,
) {
  return {
    height: x[1],
    width: x[2],
    channels: x[3],
    outHeight: y[1],
    outWidth: y[2],
    outChannels: y[3],
    kernelHeight: kernel[0],
    kernelWidth: kernel[1],
    stride,
    padding,
    dilation,
    groups,
    scaled: flag(scale),
    accumulate: flag(accumulate),
  };
}

/** y [N, OH, OW, Co] = the convolution of x [N, H, W, Ci] by weight [kh, kw, Ci / groups, Co]. */
export function groupedForward(
  x: Tensor,
  weight: Tensor,
  y: Tensor,
  geometry: GroupedGeometry,
  epilogue: Epilogue,
): void {
  const { scale = weight, bias = weight } = epilogue;
  const maps = { x, y, residual: epilogue.residual };
  inParts(maps, { operator: 'conv2d', units: x.shape[0], writes: ['y'] }, (parts) =>
    x.device.gpu.dispatch(forwardProgram, {
      buffers: { ...parts, weight, scale, bias, residual: parts.residual ?? weight },
      uniforms: {
        ...geometryValues(x.shape, y.shape, weight.shape, geometry, epilogue),
        count: parts.y.size,
        biased: flag(epilogue.bias),
        hasResidual: flag(epilogue.residual),
        relu: flag(epilogue.relu),
      },
      workgroups: workgroupsFor(parts.y.size),
    }),
  );
}

/** dx [N, H, W, Ci] of upstream g [N, OH, OW, Co]. */
export function groupedInputGradient(
  g: Tensor,
  weight: Tensor,
  dx: Tensor,
  geometry: GroupedGeometry,
  epilogue: Pick<Epilogue, 'scale' | 'accumulate'>,
): void {
  inParts({ g, dx }, { operator: 'conv2d', units: g.shape[0], writes: ['dx'] }, (parts) =>
    g.device.gpu.dispatch(inputGradientProgram, {
      buffers: { ...parts, weight, scale: epilogue.scale ?? weight },
      uniforms: { ...geometryValues(dx.shape, g.shape, weight.shape, geometry, epilogue), count: parts.dx.size },
      workgroups: workgroupsFor(parts.dx.size),
    }),
  );
}

/** dw [kh, kw, Ci / groups, Co] of input x [N, H, W, Ci] and upstream g [N, OH, OW, Co]. */
export function groupedWeightGradient(
  x: Tensor,
  g: Tensor,
  dw: Tensor,
  geometry: GroupedGeometry,
  epilogue: Pick<Epilogue, 'scale' | 'accumulate'>,
): void {
  inParts({ x, g }, { operator: 'conv2d', units: x.shape[0], writes: [] }, (parts, { first, count }) => {
    const accumulate = epilogue.accumulate || first > 0;
    g.device.gpu.dispatch(weightGradientProgram, {
      buffers: { ...parts, scale: epilogue.scale ?? parts.x, dw },
      uniforms: {
        ...geometryValues(x.shape, g.shape, dw.shape, geometry, { ...epilogue, accumulate }),
        count: dw.size,
        images: count,
      },
      workgroups: workgroupsFor(dw.size),
    });
  });
}

/**
 * A convolution by the plain kernel, outside the tape: what `conv2d` must agree with and outrun.
 * @param x [N, H, W, Ci]
 * @param weight [kh, kw, Ci / groups, Co]
 * @returns [N, OH, OW, Co]
 */
export function conv2dNaive(
  x: Tensor,
  weight: Tensor,
  options: Partial<GroupedGeometry> & { bias?: Tensor } = {},
): Tensor {
  const { bias, stride = 1, padding = 0, dilation = 1, groups = 1 } = options;
  const geometry = { stride, padding, dilation, groups };
  const [images, height, width] = x.shape;
  const [kh, kw, , outChannels] = weight.shape;
  const y = x.device.empty([
    images,
    convOutputSize(height, kh, geometry),
    convOutputSize(width, kw, geometry),
    outChannels,
  ]);
  groupedForward(x, weight, y, geometry, { bias });
  return y;
}
