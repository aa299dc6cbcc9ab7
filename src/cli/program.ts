import { Command } from 'commander';
import { convertCommand } from './convertCommand.ts';
import { convertWeightsCommand } from './convertWeightsCommand.ts';
import { doctorCommand } from './doctorCommand.ts';
import { edaCommand } from './edaCommand.ts';
import { evaluateCommand } from './evaluateCommand.ts';
import { mergeCommand } from './mergeCommand.ts';
import { panelsCommand } from './panelsCommand.ts';
import { predictCommand } from './predictCommand.ts';
import { profileCommand } from './profileCommand.ts';
import { reportCommand } from './reportCommand.ts';
import { runCommand } from './runCommand.ts';
import { selectCommand } from './selectCommand.ts';
import { trainCommand } from './trainCommand.ts';
import { tuneCommand } from './tuneCommand.ts';
import { tunerCommand } from './tunerCommand.ts';
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
    selectCommand(),
    tuneCommand(),
    predictCommand(),
    mergeCommand(),
    panelsCommand(),
    reportCommand(),
    convertCommand(),
    verifyCommand(),
    doctorCommand(),
    tunerCommand(),
    profileCommand(),
    convertWeightsCommand(),
  ]) {
    program.addCommand(command);
  }
  return runCommand(program, args);
}
