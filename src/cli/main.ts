import { Command, CommanderError } from 'commander';
import { doctorCommand } from './doctorCommand.ts';
import { UserError } from './errors.ts';
import { evaluateCommand } from './evaluateCommand.ts';
import { predictCommand } from './predictCommand.ts';
import { trainCommand } from './trainCommand.ts';
import { verifyCommand } from './verifyCommand.ts';

const program = new Command('webgpu-mask-rcnn').description(
  'Mask R-CNN for cells on WebGPU: train, evaluate and predict on any GPU, or without one.',
);
for (const command of [trainCommand(), evaluateCommand(), predictCommand(), verifyCommand(), doctorCommand()]) {
  program.addCommand(command);
}
// Errors come here instead of ending the process, so that all of them end it the same way.
for (const command of [program, ...program.commands]) {
  command
    .exitOverride()
    .configureOutput({ outputError: () => undefined })
    .showHelpAfterError(false);
}

/** 0, 1 or 130 are set by commands; a user's mistake is one sentence and its own code, a defect its stack and 70. */
function exitCodeFor(error: unknown): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0;
    process.stderr.write(`${error.message.replace(/^error: /, '')} See --help.\n`);
    return 2;
  }
  if (error instanceof UserError) {
    process.stderr.write(`${error.message}\n`);
    return error.exitCode;
  }
  process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  return 70;
}

let code: number;
try {
  await program.parseAsync();
  code = Number(process.exitCode ?? 0);
} catch (error) {
  code = exitCodeFor(error);
}
// Dawn keeps Node alive.
process.exit(code);
