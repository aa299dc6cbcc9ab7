import { Command } from 'commander';
import type { KernelFamily } from '../kernels/kernelChoice.ts';
import { goldenFolders } from '../verify/golden.ts';
import { failureSentence, renderCase } from '../verify/report.ts';
import { runVerify } from '../verify/runVerify.ts';
import { UserError } from './errors.ts';
import { adapterOption, kernelsOption, withDevice } from './session.ts';

interface VerifyFlags {
  golden: string;
  json?: string;
  adapter: string;
  kernels: KernelFamily;
  all?: boolean;
}

async function verify({ golden, json, adapter, kernels, all }: VerifyFlags): Promise<void> {
  // A folder that is not there is told before an adapter is opened.
  goldenFolders(golden);
  let shown = '';
  const cases = await withDevice(
    adapter,
    (device) =>
      runVerify({
        golden,
        device,
        json,
        progress: (name, done, total, what) => {
          const line = `${name}: ${done} of ${total}, ${what}`;
          if (process.stderr.isTTY) process.stderr.write(`\r${line.padEnd(shown.length)}`);
          shown = line;
        },
      }),
    kernels,
  );
  if (process.stderr.isTTY) process.stderr.write(`\r${' '.repeat(shown.length)}\r`);
  for (const verified of cases) console.log(renderCase(verified, all));
  const failure = failureSentence(cases);
  if (failure !== undefined) throw new UserError(failure, 1);
  const total = cases.reduce((sum, { rows }) => sum + rows.length, 0);
  console.log(`All ${total} tensors hold.`);
}

/**
 * `verify --golden DIR`: proves that an adapter computes what PyTorch computes. It throws a UserError with exit code 1 when a
 * value is off, with 2 when the folder cannot be read.
 */
export function verifyCommand(): Command {
  return new Command('verify')
    .description('compare every value of golden cases, computed on this adapter, with what PyTorch computed')
    .requiredOption('--golden <dir>', 'a golden case (case.json, tensors.safetensors), or a folder of such folders')
    .option('--json <file>', 'also write every comparison to this file')
    .addOption(adapterOption())
    .addOption(kernelsOption())
    .option('--all', 'list passing tensors one by one')
    .action(verify);
}
