import type { BenchGroup } from './cases.ts';
import { type ConvShape, convolutionWork, describeConv, outputSize } from './convolutions.ts';

/** One convolution of the model under torchvision's name, and how many others of the same shape there are with it. */
export interface Layer {
  name: string;
  shape: ConvShape;
  uses: number;
}

const BLOCKS = [3, 4, 6, 3];
const FPN_CHANNELS = 256;
/** Anchors at each place, and classes with the background. */
const ANCHORS = 3;
const CLASSES = 4;

/**
 * The distinct convolutions of one forward pass of torchvision's `maskrcnn_resnet50_fpn` over a 256×352 image, in order, each
 * under the name of the first that has its shape. Sources: torchvision/models/resnet.py (stride on the 3×3),
 * ops/feature_pyramid_network.py, models/detection/rpn.py and mask_rcnn.py.
 *
 * @param rois how many RoIs the mask head sees
 */
export function resnet50Layers(rois: number): Layer[] {
  const layers = new Map<string, Layer>();
  const add = (name: string, shape: ConvShape): { height: number; width: number } => {
    const key = JSON.stringify(shape);
    const known = layers.get(key);
    if (known) known.uses++;
    else layers.set(key, { name, shape, uses: 1 });
    const [height, width] = outputSize(shape);
    return { height, width };
  };
  const conv = (kernel: number, stride = 1) => ({ images: 1, kernel, stride, padding: (kernel - 1) / 2 });

  const stem = add('backbone.body.conv1', { ...conv(7, 2), height: 256, width: 352, in: 4, out: 64 });
  // The 3×3 pooling of stride 2 behind the stem.
  let map = { height: stem.height / 2, width: stem.width / 2 };
  let channels = 64;
  const levels = BLOCKS.map((blocks, stage) => {
    const planes = 64 * 2 ** stage;
    for (let block = 0; block < blocks; block++) {
      const name = `backbone.body.layer${stage + 1}.${block}`;
      const stride = block === 0 && stage > 0 ? 2 : 1;
      const before = map;
      add(`${name}.conv1`, { ...conv(1), ...before, in: channels, out: planes });
      map = add(`${name}.conv2`, { ...conv(3, stride), ...before, in: planes, out: planes });
      add(`${name}.conv3`, { ...conv(1), ...map, in: planes, out: planes * 4 });
      if (block === 0) add(`${name}.downsample.0`, { ...conv(1, stride), ...before, in: channels, out: planes * 4 });
      channels = planes * 4;
    }
    return { ...map, channels };
  });

  const wide = { in: FPN_CHANNELS, out: FPN_CHANNELS };
  levels.forEach(({ channels: from, ...size }, level) => {
    add(`backbone.fpn.inner_blocks.${level}.0`, { ...conv(1), ...size, in: from, out: FPN_CHANNELS });
    add(`backbone.fpn.layer_blocks.${level}.0`, { ...conv(3), ...size, ...wide });
  });
  const coarsest = levels[levels.length - 1];
  const pooled = { height: Math.ceil(coarsest.height / 2), width: Math.ceil(coarsest.width / 2) };
  for (const { height, width } of [...levels, pooled]) {
    const size = { height, width };
    add('rpn.head.conv.0.0', { ...conv(3), ...size, ...wide });
    add('rpn.head.cls_logits', { ...conv(1), ...size, in: FPN_CHANNELS, out: ANCHORS });
    add('rpn.head.bbox_pred', { ...conv(1), ...size, in: FPN_CHANNELS, out: ANCHORS * 4 });
  }
  const grid = { images: rois, height: 14, width: 14 };
  for (let i = 0; i < 4; i++) add(`roi_heads.mask_head.${i}.0`, { ...conv(3), ...grid, ...wide });
  const mask = { images: rois, height: 28, width: 28 };
  add('roi_heads.mask_predictor.mask_fcn_logits', { ...conv(1), ...mask, in: FPN_CHANNELS, out: CLASSES });
  return [...layers.values()];
}

const TABLE = 'Convolution layers of ResNet-50-FPN Mask R-CNN at 256×352';
/** Of the image; the device's layout has a fourth. */
export const IMAGE_CHANNELS = 3;
/** RoIs that the mask head sees. */
const ROIS = 64;

/** Each distinct layer, forward and backward (both gradients; of the stem, which sees the image, that of the weight). */
export function layerGroups(): BenchGroup[] {
  const layers = resnet50Layers(ROIS).map(({ name, shape, uses }) => {
    const stem = name.endsWith('.conv1') && shape.kernel === 7;
    const channels = stem ? IMAGE_CHANNELS : shape.in;
    return { name: `layer ${name} ${describeConv({ ...shape, in: channels })}`, shape, uses, channels };
  });
  return [
    ...layers.map((layer) => convolutionWork({ ...layer, table: `${TABLE}, forward`, results: ['y'] })),
    ...layers.map((layer) =>
      convolutionWork({
        ...layer,
        table: `${TABLE}, backward`,
        name: `${layer.name}, backward`,
        results: layer.channels === layer.shape.in ? ['dx', 'dw'] : ['dw'],
      }),
    ),
  ];
}
