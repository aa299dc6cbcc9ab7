/** What a checkpoint's metadata say, on parsed safetensors alone, so that the browser shares it; `checkpoint.ts` adds files. */
import * as z from 'zod';
import { UserError } from '../cli/errors.ts';
import type { Thresholds } from '../eval/thresholds.ts';
import { matchedSource, matchWeights, type ReadableTensors } from '../model/checkpoints/match.ts';
import { type MaskRCNNConfig, parseConfig } from '../model/config.ts';

import type { StateDict, StateSource } from '../model/stateDict.ts';

/** What evaluate and predict must know besides the weights. It holds no path, time or adapter: equal runs, equal bytes. */
export interface CheckpointInfo {
  config: MaskRCNNConfig;
  /** Names of the labels 1 …. */
  classes: string[];
  /** Factor by which images were resized when loaded. */
  resize: number;
  /** The same for images to predict, where it differs: the notebook trains at half size and predicts at full size. */
  predictResize?: number;
  thresholds: Thresholds;
  /** Epochs trained. */
  epoch: number;
}

export const CHECKPOINT_FORMAT = 'webgpu-mask-rcnn';

/** The metadata that `parseCheckpointInfo` reads. */
export function checkpointMetadata(info: CheckpointInfo): Record<string, string> {
  return {
    format: CHECKPOINT_FORMAT,
    config: JSON.stringify(info.config),
    classes: JSON.stringify(info.classes),
    resize: JSON.stringify(info.resize),
    ...(info.predictResize !== undefined && { predictResize: JSON.stringify(info.predictResize) }),
    thresholds: JSON.stringify(info.thresholds),
    epoch: JSON.stringify(info.epoch),
  };
}

const thresholdsSchema = z.strictObject({ minScore: z.array(z.number()), maskThreshold: z.array(z.number()) });

/** Reads the metadata of a checkpoint that this program wrote. @throws UserError naming `where` and what is wrong */
export function parseCheckpointInfo(metadata: Readonly<Record<string, string>>, where: string): CheckpointInfo {
  if (metadata.format !== CHECKPOINT_FORMAT) {
    throw new UserError(
      `${where}: expected weights written by this program (their metadata tell architecture and classes).`,
    );
  }
  const part = (key: string): unknown => {
    try {
      return JSON.parse(metadata[key]);
    } catch {
      throw new UserError(`${where}: its metadata '${key}' cannot be read; expected JSON.`);
    }
  };
  const config = parseConfig(part('config'), where);
  const rest = z
    .object({
      classes: z.array(z.string()),
      resize: z.number().positive(),
      predictResize: z.number().positive().optional(),
      thresholds: thresholdsSchema,
      epoch: z.int(),
    })
    .safeParse({
      classes: part('classes'),
      resize: part('resize'),
      ...('predictResize' in metadata && { predictResize: part('predictResize') }),
      thresholds: part('thresholds'),
      epoch: part('epoch'),
    });
  if (!rest.success) {
    throw new UserError(
      `${where}: its metadata '${rest.error.issues[0].path.join('.')}' is wrong: ${rest.error.issues[0].message}.`,
    );
  }
  return { config, ...rest.data };
}

/**
 * A source of all of the state's entries from a file. Every name and shape is compared first, so that nothing is loaded from
 * the weights of another architecture.
 *
 * @param file opened or in memory; `path` names it in messages
 * @throws UserError that lists all parameters that differ
 */
export function stateSource(file: ReadableTensors, state: StateDict): StateSource {
  return matchedSource(file, matchWeights(file, state, { purpose: 'whole' }));
}
