import { z } from 'zod';
import { UserError } from '../cli/errors.ts';
import type { Thresholds } from '../eval/thresholds.ts';
import { type MaskRCNNConfig, parseConfig } from '../model/config.ts';
import type { MaskRCNN } from '../model/maskRcnn.ts';
import { openSafetensors, type SafetensorsFile, writeSafetensors } from '../model/safetensors.ts';
import type { StateDict, StateSource } from '../model/stateDict.ts';

/** What evaluate and predict must know besides the weights. It holds no path, time or adapter: equal runs, equal bytes. */
export interface CheckpointInfo {
  config: MaskRCNNConfig;
  /** Names of the labels 1 …. */
  classes: string[];
  /** Factor by which images were resized when loaded. */
  resize: number;
  thresholds: Thresholds;
  /** Epochs trained. */
  epoch: number;
}

const FORMAT = 'webgpu-mask-rcnn';

const thresholdsSchema = z.strictObject({ minScore: z.array(z.number()), maskThreshold: z.array(z.number()) });

/** Reads every entry of the model back and writes it with its metadata, atomically. */
export async function saveCheckpoint(path: string, model: MaskRCNN, info: CheckpointInfo): Promise<void> {
  const tensors = [];
  for await (const { name, shape, data } of model.state.values()) {
    tensors.push({ name, dtype: 'F32' as const, shape: [...shape], data });
  }
  writeSafetensors(path, tensors, {
    format: FORMAT,
    config: JSON.stringify(info.config),
    classes: JSON.stringify(info.classes),
    resize: JSON.stringify(info.resize),
    thresholds: JSON.stringify(info.thresholds),
    epoch: JSON.stringify(info.epoch),
  });
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
    const { metadata } = file;
    if (metadata.format !== FORMAT) {
      throw new UserError(
        `${path}: expected weights written by this program (their metadata tell architecture and classes).`,
      );
    }
    const part = (key: string): unknown => {
      try {
        return JSON.parse(metadata[key]);
      } catch {
        throw new UserError(`${path}: its metadata '${key}' cannot be read; expected JSON.`);
      }
    };
    const config = parseConfig(part('config'), path);
    const rest = z
      .object({
        classes: z.array(z.string()),
        resize: z.number().positive(),
        thresholds: thresholdsSchema,
        epoch: z.int(),
      })
      .safeParse({
        classes: part('classes'),
        resize: part('resize'),
        thresholds: part('thresholds'),
        epoch: part('epoch'),
      });
    if (!rest.success) {
      throw new UserError(
        `${path}: its metadata '${rest.error.issues[0].path.join('.')}' is wrong: ${rest.error.issues[0].message}.`,
      );
    }
    return { info: { config, ...rest.data }, file };
  } catch (error) {
    file.close();
    throw error;
  }
}

/**
 * A source of all of the state's entries from a file. Every name and shape is compared first, so that nothing is loaded from
 * the weights of another architecture. @throws UserError that names the first differing parameter with both shapes
 */
export function stateSource(file: SafetensorsFile, state: StateDict): StateSource {
  for (const entry of state.entries.values()) {
    const stored = file.tensors.get(entry.name);
    if (!stored)
      throw new UserError(
        `${file.path}: it has no parameter ${entry.name}, which this model needs as [${entry.shape}].`,
      );
    if (stored.shape.join() !== entry.shape.join()) {
      throw new UserError(
        `${file.path}: parameter ${entry.name} has shape [${stored.shape}], but this model's is [${entry.shape}].`,
      );
    }
  }
  for (const name of file.tensors.keys()) {
    if (!state.entries.has(name) && !name.endsWith('num_batches_tracked')) {
      throw new UserError(
        `${file.path}: it has a parameter ${name} of [${file.tensors.get(name)?.shape}], which this model does not have.`,
      );
    }
  }
  return (name) => {
    const stored = file.tensors.get(name);
    return stored && { shape: stored.shape, data: file.readFloat32(name) };
  };
}
