import { z } from 'zod';
import { UserError } from '../cli/errors.ts';
import type { RandomState } from '../data/random.ts';
import type { GradScalerState } from '../kernels/gradScaler.ts';
import type { MaskRCNN } from '../model/maskRcnn.ts';
import { openSafetensors, type SafetensorsFile, type TensorToWrite, writeSafetensors } from '../model/safetensors.ts';
import type { EpochScore } from './best.ts';
import { stateSource } from './checkpoint.ts';

/** Where a run stands: enough to go on bit for bit. */
export interface Position {
  /** Epochs finished. */
  epoch: number;
  /** Steps done in the epoch under way. */
  step: number;
  /** The loader's generator at the start of the epoch under way. */
  loader: RandomState;
  /** The sampler's generator now. */
  sampler: RandomState;
  /** Sums of the training losses of the epoch under way, by name. */
  sums: Record<string, number>;
  /** What was best so far, see `best.ts`. */
  best: EpochScore | null;
  /** The loss scale of a run in float16. */
  scaler: GradScalerState | null;
}

const words = z.tuple([z.int(), z.int(), z.int(), z.int()]);
const positionSchema = z.strictObject({
  epoch: z.int(),
  step: z.int(),
  loader: words,
  sampler: words,
  sums: z.record(z.string(), z.number()),
  best: z
    .strictObject({ epoch: z.int(), iouMap: z.number(), maskAP50: z.number(), validationLoss: z.number() })
    .nullable(),
  // Runs of earlier versions have none.
  scaler: z
    .strictObject({ scale: z.number().positive(), goodSteps: z.int().min(0), skippedSteps: z.int().min(0) })
    .nullable()
    .default(null),
});

const MOMENTUM = 'momentum:';

/** Writes weights, running statistics, momenta and position, atomically. */
export async function saveRunState(path: string, model: MaskRCNN, position: Position): Promise<void> {
  const tensors: TensorToWrite[] = [];
  for await (const { name, shape, data } of model.state.values())
    tensors.push({ name, dtype: 'F32', shape: [...shape], data });
  const { parameters } = model.state;
  for (const name of parameters.names) {
    const data = await parameters.momentum(name).floats();
    tensors.push({ name: MOMENTUM + name, dtype: 'F32', shape: [data.length], data });
  }
  writeSafetensors(path, tensors, { format: 'webgpu-mask-rcnn-run', position: JSON.stringify(position) });
}

/** The position that a state's metadata hold. @throws UserError naming the file */
function positionOf(file: SafetensorsFile): Position {
  let value: unknown;
  try {
    value = JSON.parse(file.metadata.position);
  } catch {
    throw new UserError(`${file.path}: expected the state of an interrupted run, as this program writes it.`);
  }
  const position = positionSchema.safeParse(value);
  if (!position.success)
    throw new UserError(`${file.path}: its position is wrong: ${position.error.issues[0].message}.`);
  return position.data;
}

/** Replaces what was best so far in a run's state by a choice made since (`select`), atomically. @throws UserError naming the file */
export function rewriteBest(path: string, best: EpochScore): void {
  const file = openSafetensors(path);
  try {
    const position: Position = { ...positionOf(file), best };
    const tensors = [...file.tensors.values()].map(({ name, shape }) => ({
      name,
      dtype: 'F32' as const,
      shape,
      data: file.readFloat32(name),
    }));
    writeSafetensors(path, tensors, { ...file.metadata, position: JSON.stringify(position) });
  } finally {
    file.close();
  }
}

/** Puts weights and momenta of an interrupted run back and tells where it stood. @throws UserError naming the file */
export async function loadRunState(path: string, model: MaskRCNN): Promise<Position> {
  const file = openSafetensors(path);
  try {
    const position = positionOf(file);
    const weights = { ...file, tensors: new Map([...file.tensors].filter(([name]) => !name.startsWith(MOMENTUM))) };
    await model.state.load(stateSource(weights, model.state));
    for (const name of model.state.parameters.names) {
      model.state.parameters.write(name, file.readFloat32(MOMENTUM + name), 'momentum');
    }
    return position;
  } finally {
    file.close();
  }
}
