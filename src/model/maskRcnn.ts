import type { Random } from '../data/random.ts';
import type { Detections, LoadedImage, Target } from '../data/types.ts';
import { cast } from '../kernels/cast.ts';
import { pasteMasks } from '../kernels/masks.ts';
import type { SampleOrder } from '../kernels/sampler.ts';
import { narrow } from '../kernels/shape.ts';
import type { Device } from '../tensor/device.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { MaskRCNNConfig } from './config.ts';
import { FeaturePyramidNetwork } from './fpn.ts';
import type { Observer } from './observer.ts';
import { type Precision, requirePrecision } from './precision.ts';
import { ResNet } from './resnet.ts';
import { RoiHeads } from './roiHeads.ts';
import { RegionProposalNetwork } from './rpn.ts';
import { StateDict, type StateSource } from './stateDict.ts';
import { type ImageBatch, resizeBoxes, transformImages, transformTargets } from './transform.ts';

/** torchvision's names of the losses, in the order of its `maskrcnn_resnet50_fpn`; a box-only model has the first four. */
export const LOSS_NAMES = [
  'loss_objectness',
  'loss_rpn_box_reg',
  'loss_classifier',
  'loss_box_reg',
  'loss_mask',
] as const;
export type LossName = (typeof LOSS_NAMES)[number];

export interface TrainingOptions {
  /** Which anchors and proposals are sampled. */
  order: SampleOrder;
  /** Sees the stages, at the price of readbacks in the middle; without it there are none. */
  observe?: Observer;
}

export interface PredictOptions {
  /** [height, width] at which each image's boxes and masks are wanted; the image's own size by default. */
  outputSizes?: readonly (readonly [number, number])[];
  observe?: Observer;
}

/**
 * Mask R-CNN on a ResNet-FPN (He et al. 2017; `torchvision/models/detection/mask_rcnn.py`), or with `masks: false` Faster R-CNN.
 * Build it, `allocate` it on a device, then train (`trainingLosses`, `device.backward`, `state.parameters.step`) or `predict`.
 */
export class MaskRCNN {
  readonly config: MaskRCNNConfig;
  /** Set it before `allocate`. */
  precision: Precision = 'f32';
  /** Training keeps no activations inside the body's layers but computes them again in the backward pass: less memory, more time, the same bits. */
  checkpointActivations = false;
  readonly state = new StateDict();
  readonly #body: ResNet;
  readonly #fpn: FeaturePyramidNetwork;
  readonly #rpn: RegionProposalNetwork;
  readonly #roiHeads: RoiHeads;
  #device: Device | null = null;

  constructor(config: MaskRCNNConfig) {
    this.config = config;
    this.#body = new ResNet(this.state, 'backbone.body', config);
    this.#fpn = new FeaturePyramidNetwork(this.state, 'backbone.fpn', this.#body.outChannels, config);
    this.#rpn = new RegionProposalNetwork(this.state, 'rpn', config);
    this.#roiHeads = new RoiHeads(this.state, 'roi_heads', config);
  }

  /**
   * Freezes the first layers of the backbone's body, as torchvision's `trainable_backbone_layers`
   * (`torchvision/models/detection/backbone_utils.py`): their parameters stay as they are, save no activations and get no
   * gradients. Call it before `allocate`.
   *
   * @param trainableLayers 0 … 5: how many of layer4, layer3, layer2, layer1 and the stem (with its norm) are trained
   */
  freezeBackbone(trainableLayers: number): void {
    if (!(Number.isInteger(trainableLayers) && trainableLayers >= 0 && trainableLayers <= 5)) {
      throw new RangeError(`trainableLayers: expected a whole number from 0 to 5, got ${trainableLayers}.`);
    }
    if (trainableLayers === 5) return;
    const trained = ['layer4', 'layer3', 'layer2', 'layer1'].slice(0, trainableLayers);
    for (const entry of this.state.entries.values()) {
      const [, layer] = /^backbone\.body\.(\w+)\./.exec(entry.name) ?? [];
      if (layer !== undefined && !trained.includes(layer)) entry.freeze();
    }
  }

  /**
   * Puts the weights on the device: those of `source` where it has them, else torchvision's initial values.
   * @throws UserError where the device has not the model's precision
   */
  async allocate(device: Device, random: Random, source?: StateSource): Promise<void> {
    requirePrecision(device, this.precision);
    await this.state.allocate(device, random, source);
    this.#device = device;
  }

  get device(): Device {
    if (!this.#device) throw new Error('The model was not allocated.');
    return this.#device;
  }

  async #features(
    images: readonly LoadedImage[],
    training: boolean,
    observe?: Observer,
  ): Promise<{ batch: ImageBatch; features: Tensor[] }> {
    const { device } = this;
    const batch = device.labelled('transform', () => transformImages(device, images, this.config, this.precision));
    if (observe) await observe('transform.batch', narrow(cast(batch.tensors, 'f32'), 3, 0, 3));
    await observe?.('transform.sizes', {
      shape: [images.length, 2],
      data: Int32Array.from(batch.imageSizes.flat()),
    });
    const features = device.scope(() => {
      const maps = device.labelled('backbone.body', () =>
        this.#body.forward(batch.tensors, training, this.checkpointActivations),
      );
      return device.labelled('backbone.fpn', () => this.#fpn.forward(maps, training));
    });
    for (const [level, feature] of features.entries()) {
      await observe?.(`features.${level === features.length - 1 ? 'pool' : level}`, feature);
    }
    return { batch, features };
  }

  /**
   * The losses of one batch in training form, by torchvision's names: scalars with a graph while gradients are recorded.
   * Call it inside `device.scope`; without gradients (`device.noGrad`) running statistics do not move: that is validation.
   */
  async trainingLosses(
    images: readonly LoadedImage[],
    targets: readonly Target[],
    { order, observe }: TrainingOptions,
  ): Promise<Partial<Record<LossName, Tensor>>> {
    const { device } = this;
    const truths = transformTargets(device, targets, images, this.config);
    const { batch, features } = await this.#features(images, true, observe);
    const rpn = await device.labelled('rpn', () => this.#rpn.forward(features, batch, { truths, order }, observe));
    // The box head looks at the four maps of the pyramid, not at the extra one of the RPN.
    const pyramid = features.slice(0, -1);
    const heads = await device.labelled('roi_heads', () =>
      this.#roiHeads.forwardTraining(pyramid, rpn.proposals, batch, { truths, order }, observe),
    );
    return { ...rpn.losses, ...heads };
  }

  /** Detections of each image, best score first; boxes and masks at the image's own size or `outputSizes`. */
  async predict(images: readonly LoadedImage[], { outputSizes, observe }: PredictOptions = {}): Promise<Detections[]> {
    const { device } = this;
    return device.noGrad(() =>
      device.scope(async () => {
        const { batch, features } = await this.#features(images, false, observe);
        const { proposals } = await device.labelled('rpn', () => this.#rpn.forward(features, batch, null, observe));
        const { detections, masks } = await device.labelled('roi_heads', () =>
          this.#roiHeads.forwardInference(features.slice(0, -1), proposals, batch, observe),
        );
        const results: Detections[] = [];
        for (const [i, found] of detections.entries()) {
          const size = outputSizes?.[i] ?? ([images[i].height, images[i].width] as const);
          const boxes = resizeBoxes(found.boxes, batch.imageSizes[i], size);
          results.push({
            ...found,
            boxes,
            masks: masks ? await pasteMasks(masks[i], boxes, [size[0], size[1]]) : undefined,
          });
        }
        return results;
      }),
    );
  }

  dispose(): void {
    this.#rpn.dispose();
    this.state.dispose();
  }
}
