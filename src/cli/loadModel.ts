import { Random } from '../data/random.ts';
import { matchedSource, matchWeights } from '../model/checkpoints/match.ts';
import { openWeightsFile } from '../model/checkpoints/openWeightsFile.ts';
import { MaskRCNN } from '../model/maskRcnn.ts';
import type { Precision } from '../model/precision.ts';
import type { Device } from '../tensor/device.ts';
import type { CheckpointInfo } from '../train/checkpointInfo.ts';
import { type ForeignOptions, type WeightsInfo, weightsInfo } from '../train/weightsInfo.ts';
import { say } from './session.ts';

/** A checkpoint whose names and shapes have been compared with its model's; nothing of it is on a device yet. */
export interface StoredModel {
  path: string;
  model: MaskRCNN;
  info: CheckpointInfo;
  /** Whether the classes have names of their own. */
  named: boolean;
  /** Tells what was taken for weights of other programs, reads the weights and puts the model on the device. */
  allocate(device: Device): Promise<void>;
}

/**
 * Looks at a file's metadata, names and shapes.
 * @param given what the user tells of weights that other programs wrote; and the precision to compute at, by default float32
 * @throws UserError naming the file and what is wrong
 */
export async function openModel(
  path: string,
  given: ForeignOptions & { precision?: Precision } = {},
): Promise<StoredModel> {
  const file = await openWeightsFile(path);
  let described: WeightsInfo;
  let model: MaskRCNN;
  try {
    described = weightsInfo(file, given);
    model = new MaskRCNN(described.info.config);
    model.precision = given.precision ?? 'f32';
    matchWeights(file, model.state, { purpose: 'whole' });
  } finally {
    file.close();
  }
  return {
    path,
    model,
    info: described.info,
    named: described.named,
    async allocate(device) {
      for (const note of described.notes) say(note);
      const weights = await openWeightsFile(path);
      try {
        const match = matchWeights(weights, model.state, { purpose: 'whole' });
        await model.allocate(device, new Random(0), matchedSource(weights, match));
      } finally {
        weights.close();
      }
    },
  };
}
