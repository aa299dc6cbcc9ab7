import { mul } from '../kernels/arithmetic.ts';
import { dropBoxes, encodeBoxes } from '../kernels/boxes.ts';
import { cast } from '../kernels/cast.ts';
import { binaryCrossEntropyWithLogits, smoothL1Loss } from '../kernels/losses.ts';
import { BELOW_LOW_THRESHOLD, matchBoxes } from '../kernels/matcher.ts';
import { batchedNms } from '../kernels/nms.ts';
import { decodeProposals, gatherBoxes } from '../kernels/proposals.ts';
import { cat, indexSelect, reshape } from '../kernels/shape.ts';
import { topK } from '../kernels/topK.ts';
import type { Device } from '../tensor/device.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { generateAnchors } from './anchorGenerator.ts';
import type { MaskRCNNConfig } from './config.ts';
import { constant, normal } from './initializers.ts';
import { Conv2d } from './layers.ts';
import type { Observer } from './observer.ts';
import { type Permutation, type Sampled, samplePositiveNegative } from './sampler.ts';
import type { StateDict } from './stateDict.ts';
import type { ImageBatch, NetworkTarget } from './transform.ts';

/** Box coder weights of the RPN. */
const WEIGHTS = [1, 1, 1, 1] as const;
/** Proposals with a smaller side are dropped (torchvision's `RegionProposalNetwork.min_size`). */
const MIN_SIZE = 1e-3;
const SMOOTH_L1_BETA = 1 / 9;

export interface RpnOutput {
  /** Per image: xmin, ymin, xmax, ymax in pixels of the batch, best first; [n, 4]. */
  proposals: Float32Array[];
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
   * @param targets in training; `permutation` then chooses the sampled anchors.
   */
  async forward(
    features: readonly Tensor[],
    batch: ImageBatch,
    training: { targets: readonly NetworkTarget[]; permutation: Permutation } | null,
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

    const kept = device.noGrad(() =>
      device.scope(() => this.#filter(levels, anchors.tensor, batch, training !== null)),
    );
    const matches = training?.targets.map(({ boxes }) =>
      matchBoxes(device.tensor(boxes, [boxes.length / 4, 4]), anchors.tensor, {
        highThreshold: this.#config.rpnFgIouThresh,
        lowThreshold: this.#config.rpnBgIouThresh,
        allowLowQualityMatches: true,
      }),
    );
    const [boxes, counts, ...matched] = await device.readAll([kept.boxes, kept.counts, ...(matches ?? [])]);
    const rows = kept.boxes.shape[1] * 4;
    const proposals = Array.from(counts, (n, image) =>
      (boxes as Float32Array).slice(image * rows, image * rows + n * 4),
    );
    for (const [image, data] of proposals.entries())
      await observe?.(`rpn.proposals.${image}`, { shape: [data.length / 4, 4], data });
    if (!training) return { proposals, losses: {} };
    const losses = await this.#losses(levels, anchors, matched as Int32Array[], training, observe);
    return { proposals, losses };
  }

  /** Top-k per level, decode, clip, drop the small and the unlikely, NMS within levels, best n per image; all on the device. */
  #filter(
    levels: readonly { logits: Tensor; deltas: Tensor }[],
    anchors: Tensor,
    { imageSizes }: ImageBatch,
    training: boolean,
  ): { boxes: Tensor; counts: Tensor } {
    const { device } = anchors;
    const config = this.#config;
    const preNms = training ? config.rpnPreNmsTopNTrain : config.rpnPreNmsTopNTest;
    const postNms = training ? config.rpnPostNmsTopNTrain : config.rpnPostNmsTopNTest;
    const images = imageSizes.length;
    const picked = levels.map(({ logits }) => Math.min(preNms, logits.shape[1]));
    const total = picked.reduce((sum, n) => sum + n, 0);
    const all = {
      boxes: device.empty([images, total, 4]),
      scores: device.empty([images, total]),
      levels: device.empty([images, total], 'i32'),
    };
    const sizes = device.tensor(Float32Array.from(imageSizes.flat()), [images, 2]);
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
    matches: readonly Int32Array[],
    { targets, permutation }: { targets: readonly NetworkTarget[]; permutation: Permutation },
    observe?: Observer,
  ): Promise<Record<string, Tensor>> {
    const { device } = anchors.tensor;
    const config = this.#config;
    const total = anchors.host.length / 4;
    const sampled: Sampled[] = [];
    const positives: number[] = [];
    const negatives: number[] = [];
    const reference: number[] = [];
    const proposals: number[] = [];
    for (const [image, matched] of matches.entries()) {
      const labels = matched.map((truth) => (truth >= 0 ? 1 : truth === BELOW_LOW_THRESHOLD ? 0 : -1));
      await observe?.(`rpn.labels.${image}`, { shape: [total], data: labels });
      const sample = samplePositiveNegative(
        labels,
        config.rpnBatchSizePerImage,
        config.rpnPositiveFraction,
        permutation,
      );
      sampled.push(sample);
      for (const index of sample.positive) {
        positives.push(image * total + index);
        const truth = matched[index] * 4;
        reference.push(...targets[image].boxes.subarray(truth, truth + 4));
        proposals.push(...anchors.host.subarray(index * 4, index * 4 + 4));
      }
      for (const index of sample.negative) negatives.push(image * total + index);
    }
    const rows = [...positives, ...negatives];
    return device.scope(() => {
      const logits = reshape(
        cat(
          levels.map((level) => level.logits),
          1,
        ),
        [matches.length * total],
      );
      const deltas = reshape(
        cat(
          levels.map((level) => level.deltas),
          1,
        ),
        [matches.length * total, 4],
      );
      const labels = Float32Array.from(rows, (_, index) => (index < positives.length ? 1 : 0));
      const objectness = binaryCrossEntropyWithLogits(
        indexSelect(logits, device.tensor(Int32Array.from(rows), [rows.length], 'i32')),
        device.tensor(labels, [rows.length]),
      );
      const positiveRows = device.tensor(Int32Array.from(positives), [positives.length], 'i32');
      const shape = [positives.length, 4];
      const wanted = encodeBoxes(device.tensor(reference, shape), device.tensor(proposals, shape), WEIGHTS);
      const regression = smoothL1Loss(indexSelect(deltas, positiveRows), wanted, {
        beta: SMOOTH_L1_BETA,
        reduction: 'sum',
      });
      return {
        loss_objectness: objectness,
        loss_rpn_box_reg: mul(regression, device.full([], 1 / Math.max(rows.length, 1))),
      };
    });
  }

  /** Gives the anchors' memory back. */
  dispose(): void {
    this.#anchors?.tensor.dispose();
    this.#anchors = null;
  }
}
