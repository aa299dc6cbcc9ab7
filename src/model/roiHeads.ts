import { sigmoid } from '../kernels/activations.ts';
import { div } from '../kernels/arithmetic.ts';
import { decodeBoxes } from '../kernels/boxes.ts';
import { proposalRois, selectDetections } from '../kernels/detections.ts';
import { selectChannel, selectClassBoxes } from '../kernels/gather.ts';
import { listParts, mapList } from '../kernels/listParts.ts';
import { binaryCrossEntropyWithLogits, crossEntropy, smoothL1Loss } from '../kernels/losses.ts';
import { projectMasksOnBoxes } from '../kernels/maskTargets.ts';
import { matchBoxes } from '../kernels/matcher.ts';
import { multiScaleRoiAlign } from '../kernels/multiScaleRoiAlign.ts';
import type { PaddedBoxes } from '../kernels/padded.ts';
import { joinSamples, samplePositiveNegative } from '../kernels/sampler.ts';
import { cat, indexSelect, narrow } from '../kernels/shape.ts';
import { softmax } from '../kernels/softmax.ts';
import { addTruthBoxes, type PositiveRois, positiveRois, type RoiTargets, roiTargets } from '../kernels/targets.ts';
import type { Device } from '../tensor/device.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { MaskRCNNConfig } from './config.ts';
import { BoxBranch, MASK_SIZE, MaskBranch } from './heads.ts';
import type { Observer } from './observer.ts';
import type { TrainingTruth } from './rpn.ts';
import type { StateDict } from './stateDict.ts';
import type { ImageBatch } from './transform.ts';

/** Box coder weights of the box head. */
const WEIGHTS = [10, 10, 5, 5] as const;
const BOX_POOL = 7;
const MASK_POOL = 14;
const SAMPLING_RATIO = 2;
const SMOOTH_L1_BETA = 1 / 9;
/** Mask heads of more channels, or of more positives per image, are computed in parts of the list: padding could cost more than the rest of a step. */
const PADDED_MASK_CHANNELS = 64;
const PADDED_POSITIVES = 64;
/** RoIs of a part. */
const MASK_PART = 32;
/** Detections whose masks are predicted at once: more would take more memory, not less time. */
const MASKS_AT_ONCE = 128;
/** Detections with a smaller side are dropped (torchvision's `postprocess_detections`). */
const MIN_SIZE = 1e-2;

/** Detections of one image in pixels of the batch, best first, and their masks on the device. */
export interface RoiDetections {
  boxes: Float32Array;
  labels: Int32Array;
  scores: Float32Array;
}

/** What the heads are trained on. */
interface Selected {
  samples: RoiTargets;
  positives: PositiveRois;
  /** f32 []: what the losses of boxes are divided by, the number of samples. */
  total: Tensor;
  /** u32 [1]: the number of samples. */
  length: Tensor;
}

/** [first, length] of the parts of a list of detections, about equally long; an empty list is one part. */
function partsOf(count: number): (readonly [number, number])[] {
  const parts = Math.max(Math.ceil(count / MASKS_AT_ONCE), 1);
  const starts = Array.from({ length: parts + 1 }, (_, part) => Math.round((part * count) / parts));
  return starts.slice(1).map((end, part) => [starts[part], end - starts[part]] as const);
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

  /**
   * Losses `loss_classifier`, `loss_box_reg` and `loss_mask` (without masks: the first two). Samples and positives stay on the
   * device, as lists that are as long as they may become, so nothing is read back; only where somebody observes they are cut to their
   * lengths first. Batch norms (`headNorm`) leave padding out of their statistics, and a large mask head the parts of its list that hold
   * padding only.
   */
  async forwardTraining(
    features: readonly Tensor[],
    proposals: PaddedBoxes,
    batch: ImageBatch,
    training: TrainingTruth,
    observe?: Observer,
  ): Promise<Record<string, Tensor>> {
    const { device } = features[0];
    return device.scope(async () => {
      const { selected, counts } = device.noGrad(() => this.#select(proposals, training));
      const chosen = observe ? await this.#narrowed(selected, counts, observe) : selected;
      const { samples, positives } = chosen;
      const { classLogits, boxRegression } = await this.#box.forward(
        this.#pool(features, samples.rois, batch, BOX_POOL),
        true,
        { list: observe ? undefined : { count: selected.length }, observe },
      );
      const losses = this.#boxLosses(classLogits, boxRegression, chosen);
      const { masks } = training.truths;
      if (!this.#mask || !masks) return losses;
      const mask = this.#mask;
      const pool = (rois: Tensor): Tensor => this.#pool(features, rois, batch, MASK_POOL);
      const loss_mask = await device.labelled('roi_heads.mask', () =>
        device.scope(async () => {
          const logits = observe
            ? selectChannel(await mask.forward(pool(positives.rois), true, observe), positives.labels)
            : this.#maskLogits(mask, pool, positives, batch.imageSizes.length);
          const wanted = projectMasksOnBoxes(masks, positives.rois, positives.matched, MASK_SIZE);
          // Of the labelled class's mask against the matched truth, projected into each positive's box.
          return binaryCrossEntropyWithLogits(logits, wanted);
        }),
      );
      return { ...losses, loss_mask };
    });
  }

  /** Logits of the labelled class [P, 28, 28] of a padded list of positives. */
  #maskLogits(
    mask: MaskBranch,
    pool: (rois: Tensor) => Tensor,
    { rois, labels, total }: PositiveRois,
    images: number,
  ): Tensor {
    const wide = Math.max(...this.#config.maskLayers) > PADDED_MASK_CHANNELS;
    // A configuration may ask for no positives at all.
    const large = labels.size > 0 && (wide || labels.size > PADDED_POSITIVES * images);
    const list = { count: total, step: large ? MASK_PART : undefined };
    const whole = !large || this.#config.headNorm === 'batch';
    // The statistics of batch norms are of all parts.
    if (whole) return selectChannel(mask.logits(mapList(list, rois, pool), true, list), labels);
    return listParts(list, labels.size, (first, rows) =>
      selectChannel(mask.logits(pool(narrow(rois, 0, first, rows)), true), narrow(labels, 0, first, rows)),
    );
  }

  /** Truth boxes join the proposals; matching at the box thresholds; a balanced sample of each image, `counts` of them. */
  #select(proposals: PaddedBoxes, { truths, order }: TrainingTruth): { selected: Selected; counts: Tensor } {
    const { boxBatchSizePerImage: batchSize, boxPositiveFraction: positiveFraction, ...config } = this.#config;
    const candidates = addTruthBoxes(proposals, truths);
    const matches = matchBoxes(
      truths.boxes,
      candidates,
      {
        highThreshold: config.boxFgIouThresh,
        lowThreshold: config.boxBgIouThresh,
        allowLowQualityMatches: false,
      },
      truths.ranges,
    );
    const images = candidates.shape[0];
    // The RPN has drawn from the first sets.
    const sampled = samplePositiveNegative(matches, { batchSize, positiveFraction, order, firstSet: images });
    const joined = joinSamples(sampled, matches);
    const samples = roiTargets(joined, candidates, truths, WEIGHTS);
    const most = Math.min(Math.trunc(batchSize * positiveFraction), candidates.shape[1]);
    const positives = positiveRois(samples, joined.matched, images * most);
    const { total, length } = joined;
    return { selected: { samples, positives, total, length }, counts: sampled.counts };
  }

  /** The lists without their padding. */
  async #narrowed({ samples, positives, ...all }: Selected, counts: Tensor, observe: Observer): Promise<Selected> {
    const { device } = counts;
    const [perImage, [positive]] = (await device.readAll([counts, positives.total])) as [Uint32Array, Uint32Array];
    const length = perImage.reduce((sum, n) => sum + n, 0);
    const narrowed = {
      samples: {
        rois: narrow(samples.rois, 0, 0, length),
        labels: narrow(samples.labels, 0, 0, length),
        codes: narrow(samples.codes, 0, 0, length),
      },
      positives: {
        rows: narrow(positives.rows, 0, 0, positive),
        rois: narrow(positives.rois, 0, 0, positive),
        labels: narrow(positives.labels, 0, 0, positive),
        matched: narrow(positives.matched, 0, 0, positive),
        total: positives.total,
      },
      ...all,
    };
    await this.#observeSamples(narrowed.samples, perImage, observe);
    return narrowed;
  }

  async #observeSamples({ rois, labels, codes }: RoiTargets, counts: Uint32Array, observe: Observer): Promise<void> {
    const { device } = rois;
    const read = await device.readAll([rois, labels, codes]);
    const [allRois, allLabels, allCodes] = read as [Float32Array, Int32Array, Float32Array];
    let first = 0;
    for (const [image, n] of counts.entries()) {
      const end = first + n;
      const boxes = allRois.slice(first * 5, end * 5).filter((_, i) => i % 5 > 0);
      await observe(`box.proposals.${image}`, { shape: [n, 4], data: boxes });
      await observe(`box.labels.${image}`, { shape: [n], data: allLabels.slice(first, end) });
      const wanted = allCodes.slice(first * 4, end * 4);
      await observe(`box.regression_targets.${image}`, { shape: [n, 4], data: wanted });
      first = end;
    }
  }

  /** Mean cross entropy over all samples; smooth L1 (beta 1/9) of the positives' own class, summed, divided by all samples. */
  #boxLosses(
    classLogits: Tensor,
    boxRegression: Tensor,
    { samples, positives, total }: Selected,
  ): Record<string, Tensor> {
    const { device } = classLogits;
    return device.scope(() => {
      // Padding selects rows of zeros here and there: no distance, no gradient.
      const ofClass = selectClassBoxes(indexSelect(boxRegression, positives.rows), positives.labels);
      const regression = smoothL1Loss(ofClass, indexSelect(samples.codes, positives.rows), {
        beta: SMOOTH_L1_BETA,
        reduction: 'sum',
      });
      return {
        loss_classifier: crossEntropy(classLogits, samples.labels),
        loss_box_reg: div(regression, total),
      };
    });
  }

  /**
   * Detections of each image and, with a mask branch, their mask probabilities [n, 28, 28] of the predicted class. The detections
   * are read back once, before the mask branch, which then works on just those.
   */
  async forwardInference(
    features: readonly Tensor[],
    proposals: PaddedBoxes,
    batch: ImageBatch,
    observe?: Observer,
  ): Promise<{ detections: RoiDetections[]; masks: Tensor[] | null }> {
    const { device } = features[0];
    const detections = await device.scope(() => this.#detect(features, proposals, batch, observe));
    if (!this.#mask) return { detections, masks: null };
    const mask = this.#mask;
    const masks = await device.scope(async () => {
      const rois = this.#rois(
        device,
        detections.map(({ boxes }) => boxes),
      );
      const labels = device.tensor(Int32Array.from(detections.flatMap((image) => [...image.labels])), [rois.shape[0]]);
      const pool = (some: Tensor): Tensor => this.#pool(features, some, batch, MASK_POOL);
      const parts = observe
        ? [selectChannel(await mask.forward(pool(rois), false, observe), labels)]
        : partsOf(labels.size).map(([start, length]) =>
            device.scope(() =>
              selectChannel(mask.logits(pool(narrow(rois, 0, start, length)), false), narrow(labels, 0, start, length)),
            ),
          );
      const probabilities = sigmoid(parts.length === 1 ? parts[0] : cat(parts));
      let first = 0;
      return detections.map(({ labels: { length } }) => {
        first += length;
        return narrow(probabilities, 0, first - length, length);
      });
    });
    return { detections, masks };
  }

  /** The box head on all proposals; softmax, score and size filters, NMS within classes, best n. */
  async #detect(
    features: readonly Tensor[],
    proposals: PaddedBoxes,
    batch: ImageBatch,
    observe?: Observer,
  ): Promise<RoiDetections[]> {
    const { device } = features[0];
    const config = this.#config;
    let { rois, boxes } = proposalRois(proposals);
    if (observe) {
      // Who looks on sees no padding.
      const total = (await proposals.counts.ints()).reduce((sum, n) => sum + n, 0);
      rois = narrow(rois, 0, 0, total);
      boxes = narrow(boxes, 0, 0, total);
    }
    const { classLogits, boxRegression } = await this.#box.forward(this.#pool(features, rois, batch, BOX_POOL), false, {
      observe,
    });
    const found = selectDetections(
      {
        scores: softmax(classLogits),
        decoded: decodeBoxes(boxRegression, boxes, WEIGHTS),
        counts: proposals.counts,
        sizes: batch.sizes,
      },
      proposals.boxes.shape[1],
      {
        scoreThresh: config.boxScoreThresh,
        nmsThresh: config.boxNmsThresh,
        detectionsPerImg: config.boxDetectionsPerImg,
        minSize: MIN_SIZE,
      },
    );
    const read = await device.readAll([found.boxes, found.scores, found.labels, found.counts]);
    const [allBoxes, allScores, allLabels, counts] = read as [Float32Array, Float32Array, Int32Array, Uint32Array];
    const most = found.labels.shape[1];
    return Array.from(counts, (count, image) => {
      // A device that only counts memory finds as many as there may be.
      const n = device.gpu.opened.counts ? most : count;
      const first = image * most;
      return {
        boxes: allBoxes.slice(first * 4, (first + n) * 4),
        labels: allLabels.slice(first, first + n),
        scores: allScores.slice(first, first + n),
      };
    });
  }
}
