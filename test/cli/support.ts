import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { vi } from 'vitest';
import { runProgram } from '../../src/cli/program.ts';
import { initialThresholds } from '../../src/eval/defaults.ts';
import type { MaskRCNNConfig } from '../../src/model/config.ts';
import { MaskRCNN } from '../../src/model/maskRcnn.ts';
import { writeSafetensors } from '../../src/model/safetensors.ts';

export interface Answer {
  code: number | null;
  /** What was written to standard error and output. */
  error: string;
  output: string;
}

/** Runs a command line inside this process. */
export async function command(...args: string[]): Promise<Answer> {
  const answer = { error: '', output: '' };
  const collect = (stream: 'error' | 'output') => (text: string | Uint8Array) => {
    answer[stream] += String(text);
    return true;
  };
  const spies = [
    vi.spyOn(process.stderr, 'write').mockImplementation(collect('error')),
    vi.spyOn(process.stdout, 'write').mockImplementation(collect('output')),
    vi.spyOn(console, 'log').mockImplementation((line: string) => {
      answer.output += `${line}\n`;
    }),
  ];
  try {
    return { code: await runProgram(args), ...answer };
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
}

const root = resolve(import.meta.dirname, '../..');
const nodeArguments = (args: string[]): string[] => ['--import', 'tsx', resolve(root, 'src/cli/main.ts'), ...args];

/** Runs a command line as a user does. */
export function processOf(...args: string[]): Answer {
  const { status, stderr, stdout } = spawnSync(process.execPath, nodeArguments(args), { cwd: root, encoding: 'utf8' });
  return { code: status, error: stderr, output: stdout };
}

/** Starts a command line as a user does. */
export function spawnProcess(...args: string[]): ChildProcessWithoutNullStreams {
  return spawn(process.execPath, nodeArguments(args), { cwd: root });
}

/** Writes a checkpoint of zeros for a model, as its metadata tell; `shapes` may spoil what the file holds. */
export function writeWeights(
  path: string,
  config: MaskRCNNConfig,
  classes: string[],
  spoil: (shapes: Map<string, readonly number[]>) => void = () => undefined,
): string {
  const entries = [...new MaskRCNN(config).state.entries.values()];
  const shapes = new Map<string, readonly number[]>(entries.map(({ name, shape }) => [name, shape]));
  spoil(shapes);
  const tensors = [...shapes].map(([name, shape]) => ({
    name,
    dtype: 'F32' as const,
    shape: [...shape],
    data: new Float32Array(shape.reduce((product, side) => product * side, 1)),
  }));
  writeSafetensors(path, tensors, {
    format: 'webgpu-mask-rcnn',
    config: JSON.stringify(config),
    classes: JSON.stringify(classes),
    resize: '1',
    thresholds: JSON.stringify(initialThresholds(classes)),
    epoch: '1',
  });
  return path;
}
