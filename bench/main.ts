import { runCommand } from '../src/cli/runCommand.ts';
import { benchCommand } from './command.ts';

// Dawn keeps Node alive.
process.exit(await runCommand(benchCommand(), process.argv.slice(2)));
