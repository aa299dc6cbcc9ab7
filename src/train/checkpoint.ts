import type { MaskRCNN } from '../model/maskRcnn.ts';
import { openSafetensors, type SafetensorsFile, writeSafetensors } from '../model/safetensors.ts';
import { type CheckpointInfo, checkpointMetadata, parseCheckpointInfo } from './checkpointInfo.ts';

export { type CheckpointInfo, stateSource } from './checkpointInfo.ts';

/** Reads every entry of the model back and writes it with its metadata, atomically. */
export async function saveCheckpoint(path: string, model: MaskRCNN, info: CheckpointInfo): Promise<void> {
  const tensors = [];
  for await (const { name, shape, data } of model.state.values()) {
    tensors.push({ name, dtype: 'F32' as const, shape: [...shape], data });
  }
  writeSafetensors(path, tensors, checkpointMetadata(info));
}

/** The same weights under other metadata (thresholds found later), atomically. */
export function rewriteCheckpoint(from: string, to: string, info: CheckpointInfo): void {
  const file = openSafetensors(from);
  try {
    const tensors = [...file.tensors.values()].map(({ name, shape }) => ({
      name,
      dtype: 'F32' as const,
      shape,
      data: file.readFloat32(name),
    }));
    writeSafetensors(to, tensors, {
      ...file.metadata,
      thresholds: JSON.stringify(info.thresholds),
      epoch: JSON.stringify(info.epoch),
    });
  } finally {
    file.close();
  }
}

/** Opens a checkpoint that this program wrote. Close `file` after use. @throws UserError naming the file and what is wrong */
export function openCheckpoint(path: string): { info: CheckpointInfo; file: SafetensorsFile } {
  const file = openSafetensors(path);
  try {
    return { info: parseCheckpointInfo(file.metadata, path), file };
  } catch (error) {
    file.close();
    throw error;
  }
}
