import { statSync } from 'node:fs';
import { extname } from 'node:path';
import { Command } from 'commander';
import { writePiecesAtomic } from '../data/files.ts';
import { openWeightsFile } from '../model/checkpoints/openWeightsFile.ts';
import { type LazyTensor, type Write, writeSafetensorsTo, writeTorchTo } from '../model/checkpoints/writeWeights.ts';
import { type ConvertOptions, planConversion } from '../train/convertWeights.ts';
import { startProgress } from '../train/progress.ts';
import { UserError } from './errors.ts';
import { say } from './session.ts';
import { foreignOptions } from './weightsOptions.ts';

type Writer = (write: Write, tensors: readonly LazyTensor[], metadata: Record<string, string>) => Promise<void>;

const writers: Readonly<Record<string, Writer>> = {
  '.safetensors': writeSafetensorsTo,
  '.pth': writeTorchTo,
  '.pt': writeTorchTo,
  '.bin': writeTorchTo,
};

export function convertWeightsCommand(): Command {
  const command = new Command('convert-weights')
    .description("Convert weights between this program's safetensors and PyTorch's .pth, under torchvision's names.")
    .argument('<in>', 'weights of any form: .safetensors, or what torch.save wrote')
    .argument('<out>', `file to write; its ending is the form: ${Object.keys(writers).join(', ')}`)
    .option('--f16', 'write float16 instead of float32');
  for (const option of foreignOptions()) command.addOption(option);
  return command.action((from: string, to: string, options: ConvertOptions) => convertWeights(from, to, options));
}

/** Converts a file; nothing is written unless all of it can be. @throws UserError naming the file and what is wrong */
export async function convertWeights(from: string, to: string, options: ConvertOptions): Promise<void> {
  const writer = writers[extname(to).toLowerCase()];
  if (!writer) throw new UserError(`${to}: expected an ending of ${Object.keys(writers).join(', ')}.`);
  const file = await openWeightsFile(from);
  try {
    const { tensors, metadata, notes } = planConversion(file, options);
    for (const note of notes) say(note);
    const bar = startProgress('Converting', tensors.length);
    let done = 0;
    const told = tensors.map((tensor) => ({
      ...tensor,
      values: () => {
        bar.update(++done, tensor.name);
        return tensor.values();
      },
    }));
    try {
      await writePiecesAtomic(to, (write) => writer(write, told, metadata));
    } finally {
      bar.stop();
    }
    const megabytes = (statSync(to).size / 1e6).toFixed(1);
    say(`${to}: ${tensors.length} tensors, ${megabytes} MB${options.f16 ? ', float16' : ''}`);
  } finally {
    file.close();
  }
}
