import { CommanderError } from 'commander';
import { UserError } from '../src/cli/errors.ts';
import { benchCommand } from './command.ts';

/** As in src/cli/main.ts: a user's mistake is one sentence and its own code, a defect its stack and 70. */
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
  await benchCommand().parseAsync();
  code = Number(process.exitCode ?? 0);
} catch (error) {
  code = exitCodeFor(error);
}
// Dawn keeps Node alive.
process.exit(code);
