/** What a converted file of weights holds: torchvision's names of today, in its model's order, with all that is known of the model. */
import { UserError } from '../cli/errors.ts';
import { matchWeights } from '../model/checkpoints/match.ts';
import { BODY } from '../model/checkpoints/names.ts';
import type { WeightsFile } from '../model/checkpoints/weightsFile.ts';
import type { LazyTensor } from '../model/checkpoints/writeWeights.ts';
import { elementCount, isFloating, type WrittenDtype } from '../model/dtypes.ts';
import { MaskRCNN } from '../model/maskRcnn.ts';
import { checkpointMetadata } from './checkpointInfo.ts';
import { type ForeignOptions, isOwn, weightsInfo } from './weightsInfo.ts';

export interface Conversion {
  tensors: LazyTensor[];
  metadata: Record<string, string>;
  /** Sentences for the user. */
  notes: string[];
}

export interface ConvertOptions extends ForeignOptions {
  /** float16 instead of float32. */
  f16?: boolean;
}

/** BatchNorm2d counts its batches; load_state_dict(strict=True) asks for the counters, which nothing here uses. */
function batchCounter(norm: string): LazyTensor {
  return { name: `${norm}.num_batches_tracked`, dtype: 'I64', shape: [], values: async () => new Int32Array(1) };
}

/** The file's tensors for its own model. @throws UserError when it is no whole detector */
function convertModel(file: WeightsFile, { f16, ...given }: ConvertOptions): Conversion {
  const { info, notes } = weightsInfo(file, given);
  const { state } = new MaskRCNN(info.config);
  const { names } = matchWeights(file, state, { purpose: 'whole' });
  const tensors: LazyTensor[] = [];
  for (const { name, shape } of state.entries.values()) {
    const stored = names.get(name) as string;
    tensors.push({ name, shape, dtype: f16 ? 'F16' : 'F32', values: () => file.readFloat32(stored) });
    const norm = /^(.*)\.running_var$/.exec(name)?.[1];
    const kind = name.startsWith(BODY) ? info.config.norm : info.config.headNorm;
    if (norm !== undefined && kind === 'batch') tensors.push(batchCounter(norm));
  }
  return { tensors, metadata: checkpointMetadata(info), notes };
}

/** The file's tensors as they are: floats of one kind, integers as near as they are written. */
function convertTensors(file: WeightsFile, { f16 }: ConvertOptions): LazyTensor[] {
  return [...file.tensors].map(([name, { dtype, shape }]) => {
    const kept: WrittenDtype = dtype === 'I64' || dtype === 'U8' || dtype === 'BOOL' ? dtype : 'I32';
    const narrow = kept === 'U8' || kept === 'BOOL';
    return {
      name,
      shape,
      dtype: isFloating(dtype) ? (f16 ? 'F16' : 'F32') : kept,
      values: async () => {
        const values = await file.read(name);
        return narrow ? Uint8Array.from(values) : values;
      },
    };
  });
}

/**
 * Plans a conversion; values are read when the tensors' turns come.
 * @throws UserError when what the user says of the file does not fit it, or this program's own file is damaged
 */
export function planConversion(file: WeightsFile, options: ConvertOptions): Conversion {
  try {
    return convertModel(file, options);
  } catch (error) {
    const told = options.preset ?? options.classes ?? options.batchNormEps;
    if (!(error instanceof UserError) || told !== undefined || isOwn(file)) throw error;
    const values = [...file.tensors.values()].reduce((sum, { shape }) => sum + elementCount(shape), 0);
    return {
      tensors: convertTensors(file, options),
      metadata: {},
      notes: [
        `${error.message} Its ${file.tensors.size} tensors of ${values} values are converted as they are, without a description of a model.`,
      ],
    };
  }
}
