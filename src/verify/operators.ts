/** How each operator of the goldens (torch's name, parameters and layouts) is computed here. */
import { relu, sigmoid } from '../kernels/activations.ts';
import { add, div, mul, sub } from '../kernels/arithmetic.ts';
import { batchNorm2d, frozenBatchNorm2d } from '../kernels/batchNorm.ts';
import { type BoxWeights, boxIou, clipBoxesToImage, decodeBoxes, encodeBoxes } from '../kernels/boxes.ts';
import { conv2d } from '../kernels/conv2d.ts';
import { convTranspose2d } from '../kernels/convTranspose2d.ts';
import { interpolateBilinear, interpolateNearest } from '../kernels/interpolate.ts';
import { linear } from '../kernels/linear.ts';
import { binaryCrossEntropyWithLogits, crossEntropy, smoothL1Loss } from '../kernels/losses.ts';
import { denseMasks, pasteMasks } from '../kernels/masks.ts';
import { projectMasksOnBoxes, uploadTruthMasks } from '../kernels/maskTargets.ts';
import { matcher } from '../kernels/matcher.ts';
import { matmul } from '../kernels/matmul.ts';
import { maxPool2d } from '../kernels/maxPool2d.ts';
import { multiScaleRoiAlign } from '../kernels/multiScaleRoiAlign.ts';
import { batchedNms, type Kept, nms } from '../kernels/nms.ts';
import { mean, sum } from '../kernels/reduce.ts';
import { roiAlign } from '../kernels/roiAlign.ts';
import { cat, indexSelect, permute } from '../kernels/shape.ts';
import { softmax } from '../kernels/softmax.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { OperatorArguments } from './operatorArguments.ts';
import type { HostTensor } from './rows.ts';

/** Which torch axis each axis on the device is. */
export type AxisOrder = readonly number[];

export const NHWC: AxisOrder = [0, 2, 3, 1];
const CONV_WEIGHT: AxisOrder = [2, 3, 1, 0];
const CONV_TRANSPOSE_WEIGHT: AxisOrder = [2, 3, 0, 1];
const TRANSPOSED: AxisOrder = [1, 0];

/** Operators, and those that sum many products. */
const SHORT = 1e-5;
const LONG = 1e-4;

export interface OperatorRunner {
  /** Bound of the error relative to the largest expected value; 0 where indices must be equal. */
  tolerance: number;
  /** Layouts on the device by input; an input that is not named lies as in torch. */
  layouts?: Readonly<Record<string, AxisOrder>>;
  /** The output's layout on the device. */
  output?: AxisOrder;
  /** Inputs that are integers in the file and floats here. */
  floats?: readonly string[];
  run(given: OperatorArguments): Tensor | Promise<HostTensor>;
}

const map = { x: NHWC };

/** The kept indices without their padding. */
async function keptIndices(kept: Kept): Promise<HostTensor> {
  const [indices, counts] = await kept.indices.device.readAll([kept.indices, kept.count]);
  return { shape: [counts[0]], data: (indices as Int32Array).slice(0, counts[0]) };
}

function boxWeights(given: OperatorArguments): BoxWeights {
  const [x, y, width, height] = given.numbers('weights', 4);
  return [x, y, width, height];
}

/** Rows (image, xmin, ymin, xmax, ymax) of `boxes0`, `boxes1`, … */
function roisOfImages(given: OperatorArguments): Tensor {
  const boxes = given.series('boxes').map((_, image) => given.host(`boxes${image}`));
  const total = boxes.reduce((rows, { shape }) => rows + shape[0], 0);
  const rois = new Float32Array(total * 5);
  let row = 0;
  boxes.forEach(({ shape, data }, image) => {
    for (let i = 0; i < shape[0]; i++, row++) {
      rois[row * 5] = image;
      rois.set(data.subarray(i * 4, i * 4 + 4), row * 5 + 1);
    }
  });
  return given.device.tensor(rois, [total, 5]);
}

async function pastedMasks(given: OperatorArguments): Promise<HostTensor> {
  const masks = given.tensor('masks');
  const [height, width] = given.pair('size');
  const [n, , side] = masks.shape.length === 4 ? [masks.shape[0], 1, masks.shape[2]] : masks.shape;
  const boxes = Float32Array.from(given.host('boxes').data);
  const crops = await pasteMasks(given.device.adopt(masks.view([n, side, side])), boxes, [height, width]);
  return { shape: [n, 1, height, width], data: denseMasks(crops, [height, width]) };
}

function projectedMasks(given: OperatorArguments): Tensor {
  const { shape, data } = given.host('gt_masks');
  const size = [shape[1], shape[2]] as const;
  const masks = uploadTruthMasks(given.device, [{ masks: Uint8Array.from(data), size, networkSize: size }]);
  const { data: boxes } = given.host('boxes');
  const rows = Array.from({ length: boxes.length / 4 }, (_, i) => [0, ...boxes.subarray(i * 4, i * 4 + 4)]);
  const rois = given.device.tensor(rows.flat(), [rows.length, 5]);
  return projectMasksOnBoxes(masks, rois, given.tensor('matched'), given.number('M'));
}

export const operatorRunners: Readonly<Record<string, OperatorRunner>> = {
  conv2d: {
    tolerance: LONG,
    layouts: { x: NHWC, weight: CONV_WEIGHT },
    output: NHWC,
    run: (g) =>
      conv2d(g.tensor('x'), g.tensor('weight'), {
        bias: g.optional('bias'),
        stride: g.number('stride', 1),
        padding: g.number('padding', 0),
        dilation: g.number('dilation', 1),
        groups: g.number('groups', 1),
      }),
  },
  conv_transpose2d: {
    tolerance: LONG,
    layouts: { x: NHWC, weight: CONV_TRANSPOSE_WEIGHT },
    output: NHWC,
    run: (g) =>
      convTranspose2d(g.tensor('x'), g.tensor('weight'), g.optional('bias'), { stride: g.number('stride', 1) }),
  },
  linear: {
    tolerance: LONG,
    layouts: { weight: TRANSPOSED },
    run: (g) => linear(g.tensor('x'), g.tensor('weight'), g.optional('bias')),
  },
  matmul: {
    tolerance: LONG,
    run: (g) =>
      matmul(g.tensor('a'), g.tensor('b'), { transposeA: g.flag('transposeA'), transposeB: g.flag('transposeB') }),
  },
  frozen_batch_norm2d: {
    tolerance: SHORT,
    layouts: map,
    output: NHWC,
    run: (g) =>
      frozenBatchNorm2d(
        g.tensor('x'),
        g.tensor('weight'),
        g.tensor('bias'),
        g.tensor('running_mean'),
        g.tensor('running_var'),
        g.number('eps', 1e-5),
      ),
  },
  batch_norm2d: {
    tolerance: LONG,
    layouts: map,
    output: NHWC,
    run: (g) => {
      const x = g.tensor('x');
      const channels = [x.shape[3]];
      return batchNorm2d(
        x,
        { weight: g.tensor('weight'), bias: g.tensor('bias') },
        {
          runningMean: g.optional('running_mean') ?? g.device.zeros(channels),
          runningVar: g.optional('running_var') ?? g.device.full(channels, 1),
        },
        { training: g.flag('training'), momentum: g.number('momentum', 0.1), eps: g.number('eps', 1e-5) },
      );
    },
  },
  max_pool2d: {
    tolerance: SHORT,
    layouts: map,
    output: NHWC,
    run: (g) =>
      maxPool2d(g.tensor('x'), {
        kernelSize: g.number('kernelSize'),
        stride: g.number('stride', g.number('kernelSize')),
        padding: g.number('padding', 0),
      }),
  },
  interpolate_nearest: {
    tolerance: SHORT,
    layouts: map,
    output: NHWC,
    run: (g) => interpolateNearest(g.tensor('x'), { size: g.pair('size') }),
  },
  interpolate_bilinear: {
    tolerance: SHORT,
    layouts: map,
    output: NHWC,
    run: (g) => {
      g.refuse('alignCorners', true);
      return interpolateBilinear(g.tensor('x'), { size: g.pair('size') });
    },
  },
  relu: { tolerance: SHORT, run: (g) => relu(g.tensor('x')) },
  sigmoid: { tolerance: SHORT, run: (g) => sigmoid(g.tensor('x')) },
  softmax: { tolerance: SHORT, run: (g) => softmax(g.tensor('x'), g.number('dim', -1)) },
  add: { tolerance: SHORT, run: (g) => add(g.tensor('a'), g.tensor('b')) },
  sub: { tolerance: SHORT, run: (g) => sub(g.tensor('a'), g.tensor('b')) },
  mul: { tolerance: SHORT, run: (g) => mul(g.tensor('a'), g.tensor('b')) },
  div: { tolerance: SHORT, run: (g) => div(g.tensor('a'), g.tensor('b')) },
  sum: { tolerance: LONG, run: (g) => sum(g.tensor('x'), { dim: g.dims('dim'), keepdim: g.flag('keepdim') }) },
  mean: { tolerance: LONG, run: (g) => mean(g.tensor('x'), { dim: g.dims('dim'), keepdim: g.flag('keepdim') }) },
  cat: { tolerance: SHORT, run: (g) => cat(g.all(), g.number('dim', 0)) },
  permute: { tolerance: SHORT, run: (g) => permute(g.tensor('x'), g.numbers('dims')) },
  index_select: {
    tolerance: SHORT,
    run: (g) => indexSelect(g.tensor('x'), g.tensor('index'), g.number('dim', 0)),
  },
  cross_entropy: { tolerance: LONG, run: (g) => crossEntropy(g.tensor('logits'), g.tensor('labels')) },
  binary_cross_entropy_with_logits: {
    tolerance: LONG,
    run: (g) => binaryCrossEntropyWithLogits(g.tensor('logits'), g.tensor('targets')),
  },
  smooth_l1_loss: {
    tolerance: LONG,
    run: (g) =>
      smoothL1Loss(g.tensor('input'), g.tensor('target'), {
        beta: g.number('beta', 1),
        reduction: g.text('reduction', ['sum', 'mean'], 'mean'),
      }),
  },
  roi_align: {
    tolerance: SHORT,
    layouts: map,
    output: NHWC,
    run: (g) =>
      roiAlign(g.tensor('x'), g.tensor('rois'), {
        outputSize: g.number('outputSize'),
        spatialScale: g.number('spatialScale', 1),
        samplingRatio: g.number('samplingRatio', -1),
        aligned: g.flag('aligned'),
      }),
  },
  multiscale_roi_align: {
    tolerance: SHORT,
    layouts: Object.fromEntries(Array.from({ length: 16 }, (_, level) => [`f${level}`, NHWC])),
    output: NHWC,
    run: (g) => {
      const features = g.series('f');
      const height = Math.max(...g.pairs('imageShapes').map((shape) => shape[0]));
      return multiScaleRoiAlign(features, roisOfImages(g), {
        outputSize: g.number('outputSize'),
        samplingRatio: g.number('samplingRatio'),
        scales: features.map(({ shape }) => 2 ** Math.round(Math.log2(shape[1] / height))),
        canonicalScale: g.number('canonicalScale', 224),
        canonicalLevel: g.number('canonicalLevel', 4),
      });
    },
  },
  nms: {
    tolerance: 0,
    run: (g) => keptIndices(nms(g.tensor('boxes'), g.tensor('scores'), g.number('iouThreshold'))),
  },
  batched_nms: {
    tolerance: 0,
    run: (g) =>
      keptIndices(batchedNms(g.tensor('boxes'), g.tensor('scores'), g.tensor('idxs'), g.number('iouThreshold'))),
  },
  box_iou: { tolerance: SHORT, run: (g) => boxIou(g.tensor('a'), g.tensor('b')) },
  clip_boxes_to_image: { tolerance: SHORT, run: (g) => clipBoxesToImage(g.tensor('boxes'), g.pair('size')) },
  encode_boxes: {
    tolerance: SHORT,
    run: (g) => encodeBoxes(g.tensor('reference'), g.tensor('proposals'), boxWeights(g)),
  },
  decode_boxes: {
    tolerance: SHORT,
    run: (g) =>
      decodeBoxes(
        g.tensor('rel_codes'),
        g.tensor('boxes'),
        boxWeights(g),
        g.number('bboxXformClip', Math.log(1000 / 16)),
      ),
  },
  matcher: {
    tolerance: 0,
    run: (g) =>
      matcher(g.tensor('quality'), {
        highThreshold: g.number('highThreshold'),
        lowThreshold: g.number('lowThreshold'),
        allowLowQualityMatches: g.flag('allowLowQualityMatches'),
      }),
  },
  paste_masks_in_image: { tolerance: SHORT, run: pastedMasks },
  project_masks_on_boxes: {
    tolerance: SHORT,
    run: projectedMasks,
  },
};
