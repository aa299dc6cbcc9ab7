import { type Command, CommanderError } from 'commander';
import { UserError } from './errors.ts';

/** 0 for help, 2 for a mistake in the arguments, told in one line. */
function commanderExit({ code, exitCode, message }: CommanderError): number {
  if (exitCode === 0) return 0;
  // Without a command the help has been shown already.
  if (code === 'commander.help') return 2;
  const sentence = message
    .replace(/^error: /, '')
    .replace(' is invalid. ', ' is invalid: ')
    .replace(/\s*\n\s*/g, ' ')
    .replace(/\.$/, '');
  process.stderr.write(`${sentence}; see --help.\n`);
  return 2;
}

/** A user's mistake is one sentence and its own code, a defect its stack and 70. */
function exitCodeFor(error: unknown): number {
  if (error instanceof CommanderError) return commanderExit(error);
  if (error instanceof UserError) {
    process.stderr.write(`${error.message}\n`);
    return error.exitCode;
  }
  process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  return 70;
}

/**
 * Runs one command line (without node and script) of a program and gives the exit code of the process: errors come here instead
 * of ending it, so that all of them end it the same way.
 */
export async function runCommand(program: Command, args: readonly string[]): Promise<number> {
  for (const command of [program, ...program.commands]) {
    command
      .exitOverride()
      .configureOutput({ outputError: () => undefined })
      .showHelpAfterError(false);
  }
  try {
    await program.parseAsync(args, { from: 'user' });
    // 1 or 130, where a command set it.
    return Number(process.exitCode ?? 0);
  } catch (error) {
    return exitCodeFor(error);
  }
}
