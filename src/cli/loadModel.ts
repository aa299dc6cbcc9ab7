import { Random } from '../data/random.ts';
import { MaskRCNN } from '../model/maskRcnn.ts';
import type { Device } from '../tensor/device.ts';
import { type CheckpointInfo, openCheckpoint, stateSource } from '../train/checkpoint.ts';

/** The model of a checkpoint, on the device, and what its metadata say. @throws UserError naming the file and what is wrong */
export async function loadModel(path: string, device: Device): Promise<{ model: MaskRCNN; info: CheckpointInfo }> {
  const { info, file } = openCheckpoint(path);
  try {
    const model = new MaskRCNN(info.config);
    await model.allocate(device, new Random(0), stateSource(file, model.state));
    return { model, info };
  } finally {
    file.close();
  }
}
