import { Command } from 'commander';
import { doctorCommand } from './doctorCommand.ts';
import { edaCommand } from './edaCommand.ts';
import { evaluateCommand } from './evaluateCommand.ts';
import { predictCommand } from './predictCommand.ts';
import { runCommand } from './runCommand.ts';
import { trainCommand } from './trainCommand.ts';
import { verifyCommand } from './verifyCommand.ts';

/** Runs one command line of the program (without node and script) and gives the exit code of the process. */
export function runProgram(args: readonly string[]): Promise<number> {
  const program = new Command('webgpu-mask-rcnn').description(
    'Mask R-CNN for cells on WebGPU: train, evaluate and predict on any GPU, or without one.',
  );
  for (const command of [
    trainCommand(),
    edaCommand(),
    evaluateCommand(),
    predictCommand(),
    verifyCommand(),
    doctorCommand(),
  ]) {
    program.addCommand(command);
  }
  return runCommand(program, args);
}
