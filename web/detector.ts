/** What the page computes: weights from a file's bytes, cells of a decoded picture. Knows nothing of the document. */
import { UserError } from '../src/cli/errors.ts';
import type { RgbImage } from '../src/data/png.ts';
import { Random } from '../src/data/random.ts';
import { scaleImage } from '../src/data/scaledImage.ts';
import { type SelectedInstance, selectInstances } from '../src/eval/selectInstances.ts';
import { MaskRCNN } from '../src/model/maskRcnn.ts';
import { parseSafetensors } from '../src/model/safetensorsFormat.ts';
import type { Device } from '../src/tensor/device.ts';
import { type CheckpointInfo, parseCheckpointInfo, stateSource } from '../src/train/checkpointInfo.ts';

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
  /** Trainable numbers. */
  readonly parameterCount: number;
  readonly #model: MaskRCNN;

  private constructor(info: CheckpointInfo, model: MaskRCNN) {
    this.info = info;
    this.parameterCount = model.state.parameterCount();
    this.#model = model;
  }

  /**
   * @param bytes of a checkpoint that a training run wrote
   * @param name of the file, for messages
   * @throws UserError naming the file and what is wrong with it; nothing is left on the device then
   */
  static async load(device: Device, bytes: Uint8Array<ArrayBuffer>, name: string): Promise<Detector> {
    const file = parseSafetensors(bytes, name);
    const info = parseCheckpointInfo(file.metadata, name);
    if (!info.config.masks) throw new UserError(`${name}: a box-only network, expected one that finds masks.`);
    const model = new MaskRCNN(info.config);
    await model.allocate(device, new Random(0), stateSource({ ...file, path: name }, model.state));
    return new Detector(info, model);
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
