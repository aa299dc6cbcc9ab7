/** What the page computes: weights from a file's bytes, cells of a decoded picture. Knows nothing of the document. */
import { UserError } from '../src/cli/errors.ts';
import type { RgbImage } from '../src/data/png.ts';
import { Random } from '../src/data/random.ts';
import { scaleImage } from '../src/data/scaledImage.ts';
import { type SelectedInstance, selectInstances } from '../src/eval/selectInstances.ts';
import type { ByteSource } from '../src/model/checkpoints/byteSource.ts';
import { openWeights } from '../src/model/checkpoints/weightsFile.ts';
import { MaskRCNN } from '../src/model/maskRcnn.ts';
import type { Device } from '../src/tensor/device.ts';
import { type CheckpointInfo, stateSource } from '../src/train/checkpointInfo.ts';
import { weightsInfo } from '../src/train/weightsInfo.ts';

/** The cells of one picture, as `npm run predict` finds them. */
export interface Found {
  /** Disjoint, at the picture's own size, best score first. */
  instances: SelectedInstance[];
  /** From the decoded picture to the masks. */
  seconds: number;
}

/** A checkpoint's network on the device. One call at a time. */
export class Detector {
  readonly info: CheckpointInfo;
  /** What was taken for weights that do not tell everything, and why. */
  readonly notes: readonly string[];
  /** Trainable numbers. */
  readonly parameterCount: number;
  readonly #model: MaskRCNN;

  private constructor(info: CheckpointInfo, notes: readonly string[], model: MaskRCNN) {
    this.info = info;
    this.notes = notes;
    this.parameterCount = model.state.parameterCount();
    this.#model = model;
  }

  /**
   * @param source a checkpoint that a training run wrote, or weights of torchvision
   * @throws UserError naming the file and what is wrong with it; nothing is left on the device then
   */
  static async load(device: Device, source: ByteSource): Promise<Detector> {
    const { name } = source;
    const file = await openWeights(source);
    const { info, notes } = weightsInfo(file);
    if (!info.config.masks) throw new UserError(`${name}: a box-only network, expected one that finds masks.`);
    const model = new MaskRCNN(info.config);
    await model.allocate(device, new Random(0), stateSource(file, model.state));
    return new Detector(info, notes, model);
  }

  /**
   * The network sees the picture resized as the weights say; masks are of the picture's own size.
   * @throws UserError when the picture is too small, GpuError when the device fails
   */
  async detect(picture: RgbImage, name: string): Promise<Found> {
    const start = performance.now();
    const { width, height } = picture;
    const image = scaleImage(picture, { resize: this.info.predictResize ?? this.info.resize, id: name, where: name });
    const [detections] = await this.#model.predict([image], { outputSizes: [[height, width]] });
    const instances = selectInstances(detections, this.info.thresholds, width, height);
    return { instances, seconds: (performance.now() - start) / 1000 };
  }

  dispose(): void {
    this.#model.dispose();
  }
}
