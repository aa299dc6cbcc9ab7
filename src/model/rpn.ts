import { div } from '../kernels/arithmetic.ts';
import { dropBoxes } from '../kernels/boxes.ts';
import { cast } from '../kernels/cast.ts';
import { binaryCrossEntropyWithLogits, smoothL1Loss } from '../kernels/losses.ts';
import { BELOW_LOW_THRESHOLD, matchBoxes } from '../kernels/matcher.ts';
import { batchedNms } from '../kernels/nms.ts';
import type { PaddedBoxes } from '../kernels/padded.ts';
import { decodeProposals, gatherBoxes } from '../kernels/proposals.ts';
import { joinSamples, type SampleOrder, samplePositiveNegative } from '../kernels/sampler.ts';
import { cat, indexSelect, reshape } from '../kernels/shape.ts';
import { anchorTargets } from '../kernels/targets.ts';
import { topK } from '../kernels/topK.ts';
import type { Device } from '../tensor/device.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { generateAnchors } from './anchorGenerator.ts';
import type { MaskRCNNConfig } from './config.ts';
import { constant, normal } from './initializers.ts';
import { Conv2d } from './layers.ts';
import type { Observer } from './observer.ts';
import type { StateDict } from './stateDict.ts';
import type { BatchTruths, ImageBatch } from './transform.ts';

/** Box coder weights of the RPN. */
const WEIGHTS = [1, 1, 1, 1] as const;
/** Proposals with a smaller side are dropped (torchvision's `RegionProposalNetwork.min_size`). */
const MIN_SIZE = 1e-3;
const SMOOTH_L1_BETA = 1 / 9;

/** What a training step knows beside its images. */
export interface TrainingTruth {
  truths: BatchTruths;
  order: SampleOrder;
}

export interface RpnOutput {
  /** xmin, ymin, xmax, ymax in pixels of the batch, best first, image by image. */
  proposals: PaddedBoxes;
  /** In training: scalars `loss_objectness`, `loss_rpn_box_reg`. */
  losses: Record<string, Tensor>;
}

interface Anchors {
  key: string;
  tensor: Tensor;
  host: Float32Array;
}

/** torchvision's RegionProposalNetwork with its RPNHead (`torchvision/models/detection/rpn.py`). */
export class RegionProposalNetwork {
  readonly #config: MaskRCNNConfig;
  readonly #convs: Conv2d[];
  readonly #logits: Conv2d;
  readonly #deltas: Conv2d;
  #anchors: Anchors | null = null;

  constructor(state: StateDict, name: string, config: MaskRCNNConfig) {
    this.#config = config;
    const channels = config.fpnChannels;
    const ratios = config.aspectRatios.length;
    const init = { weightInit: normal(0.01), biasInit: constant(0) };
    this.#convs = Array.from(
      { length: config.rpnConvDepth },
      (_, i) =>
        new Conv2d(state, `${name}.head.conv.${i}.0`, channels, channels, 3, { padding: 1, relu: true, ...init }),
    );
    this.#logits = new Conv2d(state, `${name}.head.cls_logits`, channels, ratios, 1, init);
    this.#deltas = new Conv2d(state, `${name}.head.bbox_pred`, channels, ratios * 4, 1, init);
  }

  /** Anchors depend on sizes alone: kept on the device until another size comes. */
  #anchorsFor(device: Device, batch: ImageBatch, features: readonly Tensor[]): Anchors {
    const image = [batch.tensors.shape[1], batch.tensors.shape[2]] as const;
    const maps = features.map(({ shape }) => [shape[1], shape[2]] as const);
    const key = [image, ...maps].join(';');
    if (this.#anchors?.key !== key) {
      this.#anchors?.tensor.dispose();
      const host = generateAnchors(this.#config.anchorSizes, this.#config.aspectRatios, image, maps);
      const tensor = device.detached(() => device.tagged('anchors', () => device.tensor(host, [host.length / 4, 4])));
      this.#anchors = { key, tensor, host };
    }
    return this.#anchors;
  }

  /**
   * @param features maps fine to coarse, one anchor size each.
   * @param training the truth, in training. Nothing is read back unless somebody observes.
   */
  async forward(
    features: readonly Tensor[],
    batch: ImageBatch,
    training: TrainingTruth | null,
    observe?: Observer,
  ): Promise<RpnOutput> {
    const { device } = features[0];
    const count = batch.imageSizes.length;
    const anchors = this.#anchorsFor(device, batch, features);
    const levels = features.map((feature) =>
      device.scope(() => {
        const hidden = this.#convs.reduce((x, conv) => conv.forward(x), feature);
        const logits = cast(this.#logits.forward(hidden), 'f32');
        const deltas = cast(this.#deltas.forward(hidden), 'f32');
        return {
          logitMap: logits,
          deltaMap: deltas,
          // Channels last is already torchvision's (row, column, anchor) order.
          logits: reshape(logits, [count, logits.size / count]),
          deltas: reshape(deltas, [count, logits.size / count, 4]),
        };
      }),
    );
    for (const [level, { logitMap, deltaMap }] of levels.entries()) {
      await observe?.(`rpn.objectness.${level}`, logitMap);
      await observe?.(`rpn.deltas.${level}`, deltaMap);
    }
    await observe?.('rpn.anchors', { shape: [anchors.host.length / 4, 4], data: anchors.host });

    const proposals = device.noGrad(() =>
      device.scope(() => this.#filter(levels, anchors.tensor, batch, training !== null)),
    );
    if (observe) {
      const [boxes, counts] = (await device.readAll([proposals.boxes, proposals.counts])) as [
        Float32Array,
        Uint32Array,
      ];
      const width = proposals.boxes.shape[1] * 4;
      for (const [image, n] of counts.entries()) {
        const data = boxes.slice(image * width, image * width + n * 4);
        await observe(`rpn.proposals.${image}`, { shape: [n, 4], data });
      }
    }
    return { proposals, losses: training ? await this.#losses(levels, anchors, training, observe) : {} };
  }

  /** Top-k per level, decode, clip, drop the small and the unlikely, NMS within levels, best n per image; all on the device. */
  #filter(
    levels: readonly { logits: Tensor; deltas: Tensor }[],
    anchors: Tensor,
    { sizes }: ImageBatch,
    training: boolean,
  ): PaddedBoxes {
    const { device } = anchors;
    const config = this.#config;
    const preNms = training ? config.rpnPreNmsTopNTrain : config.rpnPreNmsTopNTest;
    const postNms = training ? config.rpnPostNmsTopNTrain : config.rpnPostNmsTopNTest;
    const images = sizes.shape[0];
    const picked = levels.map(({ logits }) => Math.min(preNms, logits.shape[1]));
    const total = picked.reduce((sum, n) => sum + n, 0);
    const all = {
      boxes: device.empty([images, total, 4]),
      scores: device.empty([images, total]),
      levels: device.empty([images, total], 'i32'),
    };
    let firstAnchor = 0;
    let first = 0;
    levels.forEach(({ logits, deltas }, level) => {
      const { indices, values } = topK(logits, picked[level]);
      decodeProposals({ indices, values, deltas, level, firstAnchor, first }, anchors, sizes, all);
      firstAnchor += logits.shape[1];
      first += picked[level];
    });
    const scores = dropBoxes(all.boxes, all.scores, { minSize: MIN_SIZE, scoreAtLeast: config.rpnScoreThresh });
    const kept = batchedNms(all.boxes, scores, all.levels, config.rpnNmsThresh, { maxKept: postNms });
    return { boxes: gatherBoxes(all.boxes, kept.indices), counts: kept.count };
  }

  /**
   * Objectness: mean binary cross entropy over the sampled anchors of all images. Boxes: smooth L1 (beta 1/9), summed over the
   * sampled positives, divided by the number of sampled anchors.
   */
  async #losses(
    levels: readonly { logits: Tensor; deltas: Tensor }[],
    anchors: Anchors,
    { truths, order }: TrainingTruth,
    observe?: Observer,
  ): Promise<Record<string, Tensor>> {
    const { device } = anchors.tensor;
    const config = this.#config;
    const matches = matchBoxes(
      truths.boxes,
      anchors.tensor,
      {
        highThreshold: config.rpnFgIouThresh,
        lowThreshold: config.rpnBgIouThresh,
        allowLowQualityMatches: true,
      },
      truths.ranges,
    );
    const [images, total] = matches.shape;
    if (observe) {
      const matched = await matches.ints();
      for (let image = 0; image < images; image++) {
        const labels = matched
          .slice(image * total, (image + 1) * total)
          .map((truth) => (truth >= 0 ? 1 : truth === BELOW_LOW_THRESHOLD ? 0 : -1));
        await observe(`rpn.labels.${image}`, { shape: [total], data: labels });
      }
    }
    return device.scope(() => {
      const sampled = samplePositiveNegative(matches, {
        batchSize: config.rpnBatchSizePerImage,
        positiveFraction: config.rpnPositiveFraction,
        order,
      });
      const samples = joinSamples(sampled, matches);
      const { positives, labels, codes } = anchorTargets(samples, anchors.tensor, truths.boxes, WEIGHTS);
      const logits = reshape(
        cat(
          levels.map((level) => level.logits),
          1,
        ),
        [images * total],
      );
      const deltas = reshape(
        cat(
          levels.map((level) => level.deltas),
          1,
        ),
        [images * total, 4],
      );
      const regression = smoothL1Loss(indexSelect(deltas, positives), codes, {
        beta: SMOOTH_L1_BETA,
        reduction: 'sum',
      });
      return {
        loss_objectness: binaryCrossEntropyWithLogits(indexSelect(logits, samples.rows), labels),
        loss_rpn_box_reg: div(regression, samples.total),
      };
    });
  }

  /** Gives the anchors' memory back. */
  dispose(): void {
    this.#anchors?.tensor.dispose();
    this.#anchors = null;
  }
}
