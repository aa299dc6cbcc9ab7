import { runProgram } from './program.ts';

// Dawn keeps Node alive.
process.exit(await runProgram(process.argv.slice(2)));
