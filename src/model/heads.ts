import { convTranspose2d } from '../kernels/convTranspose2d.ts';
import { reshape } from '../kernels/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { MaskRCNNConfig } from './config.ts';
import { constant, kaimingNormalFanOut, torchDefaultBias } from './initializers.ts';
import { Conv2d, Linear } from './layers.ts';
import type { Observer } from './observer.ts';
import { Entry, type StateDict } from './stateDict.ts';

/** Side of a predicted mask, pixels of the RoI grid. */
export const MASK_SIZE = 28;

/** torchvision's TwoMLPHead and FastRCNNPredictor (`torchvision/models/detection/faster_rcnn.py`). */
export class BoxBranch {
  readonly #fc6: Linear;
  readonly #fc7: Linear;
  readonly #score: Linear;
  readonly #regression: Linear;

  constructor(state: StateDict, name: string, config: MaskRCNNConfig, poolSize: number) {
    const { fpnChannels: channels, representationSize: width, numClasses } = config;
    const maps = [channels, poolSize, poolSize] as const;
    this.#fc6 = new Linear(state, `${name}.box_head.fc6`, channels * poolSize * poolSize, width, maps);
    this.#fc7 = new Linear(state, `${name}.box_head.fc7`, width, width);
    this.#score = new Linear(state, `${name}.box_predictor.cls_score`, width, numClasses);
    this.#regression = new Linear(state, `${name}.box_predictor.bbox_pred`, width, numClasses * 4);
  }

  /** Pooled RoIs [K, 7, 7, C] → class logits [K, classes] and box codes [K, 4 · classes]. */
  async forward(pooled: Tensor, observe?: Observer): Promise<{ classLogits: Tensor; boxRegression: Tensor }> {
    await observe?.('box.pool', pooled);
    const [rois, height, width, channels] = pooled.shape;
    const { device } = pooled;
    const head = device.scope(() =>
      this.#fc7.forward(this.#fc6.forward(reshape(pooled, [rois, height * width * channels]), true), true),
    );
    const classLogits = this.#score.forward(head);
    const boxRegression = this.#regression.forward(head);
    await observe?.('box.head', head);
    await observe?.('box.class_logits', classLogits);
    await observe?.('box.box_regression', boxRegression);
    return { classLogits, boxRegression };
  }
}

/** torchvision's MaskRCNNHeads and MaskRCNNPredictor (`torchvision/models/detection/mask_rcnn.py`). */
export class MaskBranch {
  readonly #convs: Conv2d[];
  readonly #upWeight: Entry;
  readonly #upBias: Entry;
  readonly #logits: Conv2d;

  constructor(state: StateDict, name: string, config: MaskRCNNConfig) {
    const { maskLayers, maskDimReduced, numClasses } = config;
    let channels = config.fpnChannels;
    this.#convs = maskLayers.map((width, index) => {
      const conv = new Conv2d(state, `${name}.mask_head.${index}.0`, channels, width, 3, {
        padding: 1,
        relu: true,
        weightInit: kaimingNormalFanOut,
        biasInit: constant(0),
      });
      channels = width;
      return conv;
    });
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

  /** Pooled RoIs [K, 14, 14, C] → mask logits [K, 28, 28, classes]. */
  async forward(pooled: Tensor, observe?: Observer): Promise<Tensor> {
    await observe?.('mask.pool', pooled);
    const logits = pooled.device.scope(() => {
      const features = this.#convs.reduce((x, conv) => conv.forward(x), pooled);
      const up = convTranspose2d(features, this.#upWeight.tensor, this.#upBias.tensor, { stride: 2, relu: true });
      return this.#logits.forward(up);
    });
    await observe?.('mask.logits', logits);
    return logits;
  }
}
