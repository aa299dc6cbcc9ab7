import { cast } from '../kernels/cast.ts';
import { convTranspose2d } from '../kernels/convTranspose2d.ts';
import { mapList, type PaddedList } from '../kernels/listParts.ts';
import { reshape } from '../kernels/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { MaskRCNNConfig } from './config.ts';
import { kaimingNormalFanOut, torchDefaultBias } from './initializers.ts';
import { Conv2d, Conv2dNormActivation, Linear } from './layers.ts';
import type { Observer } from './observer.ts';
import { Entry, type StateDict } from './stateDict.ts';

/** Side of a predicted mask, pixels of the RoI grid. */
export const MASK_SIZE = 28;

/** A mask or box head's 3×3 convolutions, each with ReLU: `<name>.0`, `<name>.1` …; `widths` are their output channels. */
function headConvs(
  state: StateDict,
  name: string,
  inChannels: number,
  widths: readonly number[],
  config: MaskRCNNConfig,
): Conv2dNormActivation[] {
  return widths.map((out, index) => {
    const channels = { in: index === 0 ? inChannels : widths[index - 1], out };
    const options = { kernel: 3, relu: true, init: kaimingNormalFanOut };
    return new Conv2dNormActivation(state, `${name}.${index}`, channels, options, config);
  });
}

/**
 * torchvision's TwoMLPHead, or FastRCNNConvFCHead where `boxConvLayers` names convolutions, and FastRCNNPredictor
 * (`torchvision/models/detection/faster_rcnn.py`).
 */
export class BoxBranch {
  readonly #convs: Conv2dNormActivation[];
  readonly #linears: Linear[];
  readonly #score: Linear;
  readonly #regression: Linear;

  constructor(state: StateDict, name: string, config: MaskRCNNConfig, poolSize: number) {
    const { representationSize: width, numClasses, boxConvLayers } = config;
    this.#convs = headConvs(state, `${name}.box_head`, config.fpnChannels, boxConvLayers, config);
    const channels = boxConvLayers.at(-1) ?? config.fpnChannels;
    const inFeatures = channels * poolSize * poolSize;
    const maps = [channels, poolSize, poolSize] as const;
    this.#linears =
      boxConvLayers.length === 0
        ? [
            new Linear(state, `${name}.box_head.fc6`, inFeatures, width, maps),
            new Linear(state, `${name}.box_head.fc7`, width, width),
          ]
        : // Behind the convolutions stands Flatten, which has no parameters but a number.
          [new Linear(state, `${name}.box_head.${boxConvLayers.length + 1}`, inFeatures, width, maps)];
    this.#score = new Linear(state, `${name}.box_predictor.cls_score`, width, numClasses);
    this.#regression = new Linear(state, `${name}.box_predictor.bbox_pred`, width, numClasses * 4);
  }

  /**
   * Pooled RoIs [K, 7, 7, C] → class logits [K, classes] and box codes [K, 4 · classes], float32.
   * @param options `list` tells in training how many of them count
   */
  async forward(
    pooled: Tensor,
    training: boolean,
    { list, observe }: { list?: PaddedList; observe?: Observer } = {},
  ): Promise<{ classLogits: Tensor; boxRegression: Tensor }> {
    await observe?.('box.pool', pooled);
    const head = pooled.device.scope(() => {
      const maps = this.#convs.reduce((x, conv) => conv.forward(x, training, { list }), pooled);
      const [rois, height, width, channels] = maps.shape;
      return this.#linears.reduce(
        (x, linear) => linear.forward(x, true),
        reshape(maps, [rois, height * width * channels]),
      );
    });
    const [classLogits, boxRegression] = pooled.device.scope(() => [
      cast(this.#score.forward(head), 'f32'),
      cast(this.#regression.forward(head), 'f32'),
    ]);
    await observe?.('box.head', head);
    await observe?.('box.class_logits', classLogits);
    await observe?.('box.box_regression', boxRegression);
    return { classLogits, boxRegression };
  }
}

/** torchvision's MaskRCNNHeads and MaskRCNNPredictor (`torchvision/models/detection/mask_rcnn.py`). */
export class MaskBranch {
  readonly #convs: Conv2dNormActivation[];
  readonly #upWeight: Entry;
  readonly #upBias: Entry;
  readonly #logits: Conv2d;

  constructor(state: StateDict, name: string, config: MaskRCNNConfig) {
    const { maskLayers, maskDimReduced, numClasses } = config;
    this.#convs = headConvs(state, `${name}.mask_head`, config.fpnChannels, maskLayers, config);
    const channels = maskLayers[maskLayers.length - 1];
    const shape = [channels, maskDimReduced, 2, 2];
    this.#upWeight = state.declare(
      new Entry(`${name}.mask_predictor.conv5_mask.weight`, shape, {
        layout: { kind: 'convTranspose' },
        init: kaimingNormalFanOut,
      }),
    );
    this.#upBias = state.declare(
      new Entry(`${name}.mask_predictor.conv5_mask.bias`, [maskDimReduced], { init: torchDefaultBias(shape) }),
    );
    this.#logits = new Conv2d(state, `${name}.mask_predictor.mask_fcn_logits`, maskDimReduced, numClasses, 1, {
      weightInit: kaimingNormalFanOut,
    });
  }

  /** Pooled RoIs [K, 14, 14, C] → mask logits [K, 28, 28, classes], float32. */
  async forward(pooled: Tensor, training: boolean, observe?: Observer): Promise<Tensor> {
    await observe?.('mask.pool', pooled);
    const logits = this.logits(pooled, training);
    await observe?.('mask.logits', logits);
    return logits;
  }

  /** The same, of a list of which perhaps not all count, or of which not all is computed. */
  logits(pooled: Tensor, training: boolean, list?: PaddedList): Tensor {
    return pooled.device.scope(() => {
      const features = this.#convs.reduce((x, conv) => conv.forward(x, training, { list }), pooled);
      return mapList(list, features, (part) => {
        const up = convTranspose2d(part, this.#upWeight.tensor, this.#upBias.tensor, { stride: 2, relu: true });
        return cast(this.#logits.forward(up), 'f32');
      });
    });
  }
}
