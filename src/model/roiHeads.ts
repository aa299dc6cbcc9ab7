import { sigmoid } from '../kernels/activations.ts';
import { mul } from '../kernels/arithmetic.ts';
import { decodeBoxes, dropBoxes, encodeBoxes } from '../kernels/boxes.ts';
import { gatherClass } from '../kernels/gather.ts';
import { binaryCrossEntropyWithLogits, crossEntropy, smoothL1Loss } from '../kernels/losses.ts';
import { projectMasksOnBoxes } from '../kernels/masks.ts';
import { BELOW_LOW_THRESHOLD, matchBoxes } from '../kernels/matcher.ts';
import { multiScaleRoiAlign } from '../kernels/multiScaleRoiAlign.ts';
import { batchedNms } from '../kernels/nms.ts';
import { indexSelect, reshape } from '../kernels/shape.ts';
import { softmax } from '../kernels/softmax.ts';
import type { Device } from '../tensor/device.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { MaskRCNNConfig } from './config.ts';
import { BoxBranch, MASK_SIZE, MaskBranch } from './heads.ts';
import type { Observer } from './observer.ts';
import { type Permutation, samplePositiveNegative } from './sampler.ts';
import type { StateDict } from './stateDict.ts';
import { type ImageBatch, type NetworkTarget, resizeMask } from './transform.ts';

/** Box coder weights of the box head. */
const WEIGHTS = [10, 10, 5, 5] as const;
const BOX_POOL = 7;
const MASK_POOL = 14;
const SAMPLING_RATIO = 2;
const SMOOTH_L1_BETA = 1 / 9;
/** Detections with a smaller side are dropped (torchvision's `postprocess_detections`). */
const MIN_SIZE = 1e-2;

/** Detections of one image in pixels of the batch, best first, and their masks on the device. */
export interface RoiDetections {
  boxes: Float32Array;
  labels: Int32Array;
  scores: Float32Array;
}

interface SampledImage {
  /** Sampled proposals [n, 4], their labels (0 background) and matched truths. */
  boxes: Float32Array;
  labels: Int32Array;
  truths: Int32Array;
}

function rows4(boxes: Float32Array, indices: ArrayLike<number>): Float32Array {
  const out = new Float32Array(indices.length * 4);
  for (let i = 0; i < indices.length; i++) out.set(boxes.subarray(indices[i] * 4, indices[i] * 4 + 4), i * 4);
  return out;
}

function concat(parts: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** torchvision's RoIHeads (`torchvision/models/detection/roi_heads.py`): box branch and, unless box-only, mask branch. */
export class RoiHeads {
  readonly #config: MaskRCNNConfig;
  readonly #box: BoxBranch;
  readonly #mask: MaskBranch | null;

  constructor(state: StateDict, name: string, config: MaskRCNNConfig) {
    this.#config = config;
    this.#box = new BoxBranch(state, name, config, BOX_POOL);
    this.#mask = config.masks ? new MaskBranch(state, name, config) : null;
  }

  /** RoIs [K, 5] (image, xmin, ymin, xmax, ymax) of all images in order. */
  #rois(device: Device, boxes: readonly Float32Array[]): Tensor {
    const rows = boxes.flatMap((part, image) =>
      Array.from({ length: part.length / 4 }, (_, i) => [image, ...part.subarray(i * 4, i * 4 + 4)]),
    );
    return device.tensor(Float32Array.from(rows.flat()), [rows.length, 5]);
  }

  #pool(features: readonly Tensor[], rois: Tensor, { imageSizes }: ImageBatch, outputSize: number): Tensor {
    // A level's scale is the power of two nearest to its side over the largest unpadded side (`_infer_scale`).
    const height = Math.max(...imageSizes.map((size) => size[0]));
    return multiScaleRoiAlign([...features], rois, {
      outputSize,
      samplingRatio: SAMPLING_RATIO,
      scales: features.map(({ shape }) => 2 ** Math.round(Math.log2(shape[1] / height))),
      canonicalScale: this.#config.canonicalScale,
      canonicalLevel: this.#config.canonicalLevel,
    });
  }

  /** Losses `loss_classifier`, `loss_box_reg` and `loss_mask` (without masks: the first two). */
  async forwardTraining(
    features: readonly Tensor[],
    proposals: readonly Float32Array[],
    batch: ImageBatch,
    targets: readonly NetworkTarget[],
    permutation: Permutation,
    observe?: Observer,
  ): Promise<Record<string, Tensor>> {
    const { device } = features[0];
    const sampled = await this.#select(device, proposals, targets, permutation);
    for (const [image, { boxes, labels }] of sampled.entries()) {
      await observe?.(`box.proposals.${image}`, { shape: [labels.length, 4], data: boxes });
      await observe?.(`box.labels.${image}`, { shape: [labels.length], data: labels });
    }
    return device.scope(async () => {
      const rois = this.#rois(
        device,
        sampled.map(({ boxes }) => boxes),
      );
      const { classLogits, boxRegression } = await this.#box.forward(
        this.#pool(features, rois, batch, BOX_POOL),
        true,
        observe,
      );
      const losses = await this.#boxLosses(classLogits, boxRegression, sampled, targets, observe);
      if (!this.#mask) return losses;
      const mask = this.#mask;
      const loss = device.labelled('roi_heads.mask', () =>
        this.#maskLoss(mask, features, batch, sampled, targets, observe),
      );
      return { ...losses, loss_mask: await loss };
    });
  }

  /** Truth boxes join the proposals; matching at the box thresholds; a balanced sample of each image. */
  async #select(
    device: Device,
    proposals: readonly Float32Array[],
    targets: readonly NetworkTarget[],
    permutation: Permutation,
  ): Promise<SampledImage[]> {
    const config = this.#config;
    const candidates = proposals.map((boxes, image) => concat([boxes, targets[image].boxes]));
    const matches = await device.scope(() =>
      device.readAll(
        candidates.map((boxes, image) => {
          const truths = targets[image].boxes;
          return matchBoxes(
            device.tensor(truths, [truths.length / 4, 4]),
            device.tensor(boxes, [boxes.length / 4, 4]),
            {
              highThreshold: config.boxFgIouThresh,
              lowThreshold: config.boxBgIouThresh,
              allowLowQualityMatches: false,
            },
          );
        }),
      ),
    );
    return candidates.map((boxes, image) => {
      const matched = matches[image] as Int32Array;
      const labels = matched.map((truth) =>
        truth >= 0 ? targets[image].labels[truth] : truth === BELOW_LOW_THRESHOLD ? 0 : -1,
      );
      const { positive, negative } = samplePositiveNegative(
        labels,
        config.boxBatchSizePerImage,
        config.boxPositiveFraction,
        permutation,
      );
      const indices = Int32Array.from([...positive, ...negative]).sort();
      return {
        boxes: rows4(boxes, indices),
        labels: Int32Array.from(indices, (index) => labels[index]),
        truths: Int32Array.from(indices, (index) => Math.max(matched[index], 0)),
      };
    });
  }

  /** Mean cross entropy over all samples; smooth L1 (beta 1/9) of the positives' own class, summed, divided by all samples. */
  async #boxLosses(
    classLogits: Tensor,
    boxRegression: Tensor,
    sampled: readonly SampledImage[],
    targets: readonly NetworkTarget[],
    observe?: Observer,
  ): Promise<Record<string, Tensor>> {
    const { device } = classLogits;
    const { numClasses } = this.#config;
    const labels = Int32Array.from(sampled.flatMap((image) => [...image.labels]));
    const positives = Int32Array.from(labels.keys()).filter((row) => labels[row] > 0);
    const boxes = concat(sampled.map((image) => image.boxes));
    const reference = concat(
      sampled.map((image, index) =>
        // An image without truth has only background rows, which enter no box loss.
        targets[index].boxes.length > 0 ? rows4(targets[index].boxes, image.truths) : image.boxes,
      ),
    );
    const wanted = encodeBoxes(
      device.tensor(reference, [labels.length, 4]),
      device.tensor(boxes, [labels.length, 4]),
      WEIGHTS,
    );
    if (observe) {
      const values = await wanted.floats();
      let at = 0;
      for (const [image, { labels: own }] of sampled.entries()) {
        await observe(`box.regression_targets.${image}`, {
          shape: [own.length, 4],
          data: values.slice(at * 4, (at + own.length) * 4),
        });
        at += own.length;
      }
    }
    return device.scope(() => {
      const rows = device.tensor(positives, [positives.length], 'i32');
      const chosen = indexSelect(boxRegression, rows);
      const ofClass = gatherClass(
        reshape(chosen, [positives.length, 1, numClasses, 4]),
        device.tensor(
          positives.map((row) => labels[row]),
          [positives.length],
          'i32',
        ),
      );
      const regression = smoothL1Loss(reshape(ofClass, [positives.length, 4]), indexSelect(wanted, rows), {
        beta: SMOOTH_L1_BETA,
        reduction: 'sum',
      });
      return {
        loss_classifier: crossEntropy(classLogits, device.tensor(labels, [labels.length], 'i32')),
        loss_box_reg: mul(regression, device.full([], 1 / Math.max(labels.length, 1))),
      };
    });
  }

  /** Binary cross entropy of the labelled class's mask against the matched truth, projected into each positive's box. */
  async #maskLoss(
    mask: MaskBranch,
    features: readonly Tensor[],
    batch: ImageBatch,
    sampled: readonly SampledImage[],
    targets: readonly NetworkTarget[],
    observe?: Observer,
  ): Promise<Tensor> {
    const { device } = features[0];
    const positives = sampled.map(({ boxes, labels, truths }) => {
      const rows = Int32Array.from(labels.keys()).filter((row) => labels[row] > 0);
      return {
        boxes: rows4(boxes, rows),
        labels: rows.map((row) => labels[row]),
        truths: rows.map((row) => truths[row]),
      };
    });
    const labels = Int32Array.from(positives.flatMap((image) => [...image.labels]));
    return device.scope(async () => {
      const rois = this.#rois(
        device,
        positives.map(({ boxes }) => boxes),
      );
      const logits = await mask.forward(this.#pool(features, rois, batch, MASK_POOL), true, observe);
      const ofClass = gatherClass(
        reshape(logits, [labels.length, MASK_SIZE * MASK_SIZE, this.#config.numClasses, 1]),
        device.tensor(labels, [labels.length], 'i32'),
      );
      const wanted = device.empty([labels.length, MASK_SIZE * MASK_SIZE]);
      let at = 0;
      for (const [image, { boxes, truths }] of positives.entries()) {
        if (truths.length === 0) continue;
        const projected = this.#projectTruths(device, targets[image], batch.imageSizes[image], boxes, truths);
        device.gpu.copy(projected.buffer, wanted.buffer, projected.size * 4, 0, at * 4);
        at += projected.size;
      }
      return binaryCrossEntropyWithLogits(reshape(ofClass, wanted.shape), wanted);
    });
  }

  /** Mask targets of one image's positives. Only the truths that were matched are resized and uploaded. */
  #projectTruths(
    device: Device,
    target: NetworkTarget,
    size: readonly [number, number],
    boxes: Float32Array,
    truths: Int32Array,
  ): Tensor {
    return device.scope(() => {
      const used = [...new Set(truths)].sort((a, b) => a - b);
      const masks = device.tensor(concat(used.map((truth) => resizeMask(target, truth, size))), [used.length, ...size]);
      const matched = truths.map((truth) => used.indexOf(truth));
      return projectMasksOnBoxes(
        masks,
        device.tensor(boxes, [truths.length, 4]),
        device.tensor(matched, [truths.length], 'i32'),
        MASK_SIZE,
      );
    });
  }

  /** Detections of each image and, with a mask branch, their mask probabilities [n, 28, 28] of the predicted class. */
  async forwardInference(
    features: readonly Tensor[],
    proposals: readonly Float32Array[],
    batch: ImageBatch,
    observe?: Observer,
  ): Promise<{ detections: RoiDetections[]; masks: Tensor[] | null }> {
    const { device } = features[0];
    const detections = await device.scope(async () => {
      const rois = this.#rois(device, proposals);
      const { classLogits, boxRegression } = await this.#box.forward(
        this.#pool(features, rois, batch, BOX_POOL),
        false,
        observe,
      );
      return this.#postprocess(device, classLogits, boxRegression, proposals, batch);
    });
    const { numClasses } = this.#config;
    if (!this.#mask) return { detections, masks: null };
    const mask = this.#mask;
    const masks = await device.scope(async () => {
      const rois = this.#rois(
        device,
        detections.map(({ boxes }) => boxes),
      );
      const logits = await mask.forward(this.#pool(features, rois, batch, MASK_POOL), false, observe);
      const count = logits.shape[0];
      const labels = Int32Array.from(detections.flatMap((image) => [...image.labels]));
      const ofClass = gatherClass(
        reshape(logits, [count, MASK_SIZE * MASK_SIZE, numClasses, 1]),
        device.tensor(labels, [count], 'i32'),
      );
      const probabilities = sigmoid(reshape(ofClass, [count, MASK_SIZE, MASK_SIZE]));
      let first = 0;
      return detections.map(({ labels: own }) => {
        const rows = Int32Array.from(own, (_, i) => first + i);
        first += own.length;
        return indexSelect(probabilities, device.tensor(rows, [rows.length], 'i32'));
      });
    });
    return { detections, masks };
  }

  /** softmax, boxes of every class, clip, score and size filters, NMS within classes, best n (`postprocess_detections`). */
  async #postprocess(
    device: Device,
    classLogits: Tensor,
    boxRegression: Tensor,
    proposals: readonly Float32Array[],
    { imageSizes }: ImageBatch,
  ): Promise<RoiDetections[]> {
    const config = this.#config;
    const { numClasses } = config;
    const scores = softmax(classLogits);
    const kept: Tensor[] = [];
    const rows = proposals.map((boxes) => boxes.length / 4);
    const all = device.tensor(concat(proposals), [rows.reduce((sum, n) => sum + n, 0), 4]);
    const decoded = decodeBoxes(boxRegression, all, WEIGHTS);
    const [hostScores, hostBoxes] = (await device.readAll([scores, decoded])) as [Float32Array, Float32Array];
    const candidates = proposals.map((_, image) => {
      const first = rows.slice(0, image).reduce((sum, n) => sum + n, 0);
      const [height, width] = imageSizes[image];
      const labels: number[] = [];
      const values: number[] = [];
      const boxes: number[] = [];
      for (let row = first; row < first + rows[image]; row++) {
        for (let label = 1; label < numClasses; label++) {
          const score = hostScores[row * numClasses + label];
          if (!(score > config.boxScoreThresh)) continue;
          const at = (row * numClasses + label) * 4;
          const clip = (value: number, limit: number): number => Math.min(Math.max(value, 0), limit);
          labels.push(label);
          values.push(score);
          boxes.push(
            clip(hostBoxes[at], width),
            clip(hostBoxes[at + 1], height),
            clip(hostBoxes[at + 2], width),
            clip(hostBoxes[at + 3], height),
          );
        }
      }
      return { labels: Int32Array.from(labels), scores: Float32Array.from(values), boxes: Float32Array.from(boxes) };
    });
    for (const { labels, scores: own, boxes } of candidates) {
      const boxesTensor = device.tensor(boxes, [own.length, 4]);
      const filtered = dropBoxes(boxesTensor, device.tensor(own, [own.length]), { minSize: MIN_SIZE });
      const result = batchedNms(
        boxesTensor,
        filtered,
        device.tensor(labels, [own.length], 'i32'),
        config.boxNmsThresh,
        {
          maxKept: config.boxDetectionsPerImg,
        },
      );
      kept.push(result.indices);
    }
    const indices = (await device.readAll(kept)) as Int32Array[];
    return candidates.map(({ labels, scores: own, boxes }, image) => {
      const chosen = indices[image].filter((index) => index >= 0);
      return {
        boxes: rows4(boxes, chosen),
        labels: chosen.map((index) => labels[index]),
        scores: Float32Array.from(chosen, (index) => own[index]),
      };
    });
  }
}
