import { Random } from '../data/random.ts';
import { MaskRCNN } from '../model/maskRcnn.ts';
import type { Device } from '../tensor/device.ts';
import { type CheckpointInfo, openCheckpoint, stateSource } from '../train/checkpoint.ts';

/** A checkpoint whose names and shapes have been compared with its model's; nothing of it is on a device yet. */
export interface StoredModel {
  model: MaskRCNN;
  info: CheckpointInfo;
  /** Reads the weights and puts the model on the device. */
  allocate(device: Device): Promise<void>;
}

/** Looks at a checkpoint's metadata, names and shapes. @throws UserError naming the file and what is wrong */
export function openModel(path: string): StoredModel {
  const { info, file } = openCheckpoint(path);
  try {
    const model = new MaskRCNN(info.config);
    stateSource(file, model.state);
    return {
      model,
      info,
      async allocate(device) {
        const weights = openCheckpoint(path).file;
        try {
          await model.allocate(device, new Random(0), stateSource(weights, model.state));
        } finally {
          weights.close();
        }
      },
    };
  } finally {
    file.close();
  }
}
