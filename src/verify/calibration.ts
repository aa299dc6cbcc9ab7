import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import type { Device } from '../tensor/device.ts';

/*
 * What the adapter can do at most: multiply-adds in 8 independent chains of vec4 that live in registers, and a copy of a
 * buffer larger than caches. Both are measured in turn with the cases, so that a share of the peak means the peak of that
 * moment.
 */
const CHAINS = 8;
const UNROLL = 8;
const LANES = 64;

const each = (text: (chain: number) => string): string => Array.from({ length: CHAINS }, (_, i) => text(i)).join('\n');

const chainsProgram = defineProgram({
  name: 'benchMultiplyAdd',
  uniforms: { iterations: 'u32' },
  bindings: { y: 'write' },
  // The factor is below 1 and depends on the invocation, so that no chain overflows and none can be computed beforehand.
  code: () => `
@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = group.x * ${LANES}u + lane;
  let x = vec4f(0.999 + f32(i) * 1e-9);
  let z = vec4f(1e-7);
  ${each((chain) => `var a${chain} = vec4f(${chain + 1}.0);`)}
  for (var k = 0u; k < u.iterations; k++) {
    ${Array.from({ length: UNROLL }, () => each((chain) => `a${chain} = fma(a${chain}, x, z);`)).join('\n')}
  }
  y[i] = ${Array.from({ length: CHAINS }, (_, chain) => `dot(a${chain}, vec4f(1.0))`).join(' + ')};
}`,
});

const copyProgram = defineProgram({
  name: 'benchCopy',
  uniforms: { count: 'u32' },
  bindings: { x: ['read', 'vec4f'], y: ['write', 'vec4f'] },
  code: () => perElement('y[i] = x[i];'),
});

/** One yardstick: `run` enqueues work of `amount` floating-point operations, or bytes. */
export interface Yardstick {
  name: string;
  amount: number;
  run(): void;
}

const TARGET_MS = 20;

async function timed(device: Device, run: () => void): Promise<number> {
  const start = performance.now();
  run();
  await device.gpu.sync();
  return performance.now() - start;
}

/** Both yardsticks, their work chosen so that a run takes some {@link TARGET_MS}; buffers belong to the current scope. */
export async function calibrate(device: Device): Promise<{ flops: Yardstick; bytes: Yardstick }> {
  const real = device.gpu.opened.info.kind === 'gpu';
  // Enough invocations to fill the adapter; on a CPU few do.
  const workgroups = real ? 16_384 : 64;
  const y = device.empty([workgroups * LANES]);
  const chains = (iterations: number) => () =>
    device.gpu.dispatch(chainsProgram, { buffers: { y }, uniforms: { iterations }, workgroups });
  // The first run compiles.
  await timed(device, chains(1));
  let iterations = 8;
  while ((await timed(device, chains(iterations))) < TARGET_MS / 2 && iterations < 2 ** 20) iterations *= 2;

  const floats = (real ? 32 : 4) * 2 ** 20;
  const [from, to] = [device.full([floats], 1), device.empty([floats])];
  const copy = (): void =>
    device.gpu.dispatch(copyProgram, {
      buffers: { x: from, y: to },
      uniforms: { count: floats / 4 },
      workgroups: workgroupsFor(floats / 4),
    });
  await timed(device, copy);
  return {
    flops: {
      name: 'multiply-add peak',
      amount: 2 * 4 * CHAINS * UNROLL * iterations * LANES * workgroups,
      run: chains(iterations),
    },
    bytes: { name: 'copy peak', amount: 2 * 4 * floats, run: copy },
  };
}
