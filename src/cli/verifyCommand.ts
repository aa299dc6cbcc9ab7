import { Command } from 'commander';
import type { KernelFamily } from '../kernels/kernelChoice.ts';
import { failureSentence, nounOf, renderCase } from '../verify/report.ts';
import { needsDevice, runVerify, type VerifyOptions } from '../verify/runVerify.ts';
import { UserError } from './errors.ts';
import { adapterOption, kernelsOption, say, tunerOption, withDevice } from './session.ts';

interface VerifyFlags {
  golden: string;
  json?: string;
  adapter: string;
  kernels: KernelFamily;
  tuner?: boolean;
  all?: boolean;
}

async function verify({ golden, json, adapter, kernels, tuner, all }: VerifyFlags): Promise<void> {
  let shown = '';
  const options: VerifyOptions = {
    golden,
    json,
    progress: (name, done, total, what) => {
      const line = `${name}: ${done} of ${total}, ${what}`;
      if (process.stderr.isTTY) process.stderr.write(`\r${line.padEnd(shown.length)}`);
      shown = line;
    },
  };
  // What cannot be read is told before an adapter is opened, and none is where only data are compared.
  const cases = needsDevice(golden)
    ? await withDevice(adapter, (device) => runVerify({ ...options, device }), { kernels, tuner })
    : await runVerify(options);
  if (process.stderr.isTTY) process.stderr.write(`\r${' '.repeat(shown.length)}\r`);
  for (const verified of cases) {
    console.log(renderCase(verified, all));
    if (verified.unknown) say(`${verified.name} also holds ${verified.unknown.join(', ')}: unknown, not compared.`);
  }
  const failure = failureSentence(cases);
  if (failure !== undefined) throw new UserError(failure, 1);
  const total = cases.reduce((sum, { rows }) => sum + rows.length, 0);
  console.log(`All ${total} ${nounOf(cases, total)} hold.`);
}

/**
 * `verify --golden DIR`: proves that an adapter computes what PyTorch computes, and tables and metrics what their sources do. It throws a UserError with exit code 1 when a
 * value is off, with 2 when the folder cannot be read.
 */
export function verifyCommand(): Command {
  return new Command('verify')
    .description(
      'compare every value of golden cases, computed on this adapter, with what PyTorch (or for data OpenCV, pandas and others) computed',
    )
    .requiredOption(
      '--golden <dir>',
      'a golden case (case.json, tensors.safetensors; or data.json, data.safetensors), or a folder of such',
    )
    .option('--json <file>', 'also write every comparison to this file')
    .addOption(adapterOption())
    .addOption(kernelsOption())
    .addOption(tunerOption())
    .option('--all', 'list passing tensors one by one')
    .action(verify);
}
