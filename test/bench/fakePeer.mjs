/**
 * An engine for tests, which speaks the protocol of bench/peers/work.ts: it adds up, and takes as many milliseconds as it says.
 * fakePeer.mjs BEHAVIOUR: right, wrong, refuses (cannot do the work), dies (over the first preparation), tires (at its
 * second run), silent (no engine at all).
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const [behaviour] = process.argv.slice(2);
const answer = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

if (behaviour === 'silent') {
  console.error('fatal error: no adapter at all');
  process.exit(3);
}
answer({ adapter: 'paper', versions: { fake: '1.2.3' } });
let times = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  if (request.do === 'prepare') {
    if (behaviour === 'refuses') {
      answer({ error: `it has no ${request.work.op}` });
      continue;
    }
    if (behaviour === 'dies') process.kill(process.pid, 'SIGKILL');
    const bytes = readFileSync(request.inputs.a.file);
    const a = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
    const y = a.map((value) => value * 2 + (behaviour === 'wrong' ? 1 : 0));
    const file = `${request.folder}/y.bin`;
    writeFileSync(file, new Uint8Array(y.buffer));
    answer({ results: { y: { file, shape: request.inputs.a.shape, dtype: 'float32' } }, ms: 0 });
  } else if (request.do === 'run') {
    if (behaviour === 'tires' && times === 1) process.exit(4);
    answer({ ms: 100 + times++ });
  } else {
    answer({});
  }
}
